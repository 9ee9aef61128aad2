"""The tier `hibernated`, and `cold` on a rented machine: its cloud keeps the disk and takes back the rest.

Both park by hibernating, which most clouds call stopping, because a machine that is merely off is billed in
full at some (hyperstack.py). No GPU cloud keeps an accelerator's memory, and hardly any the machine's own, so
every wake ends with an engine that starts anew; the machine itself starts it when it boots. What is left to
poorwill is to ask, to wait, and to know at every moment whether the machine is still paid for.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Found, Report, SnapshotRefused
from poorwill.core.ports.log import Log
from poorwill.core.words import Phase, ReplicaId, Tier
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.remote.clouds.cloud import CloudBusy, MachineGone, MachineState, MachineStatus
from poorwill.remote.clouds.machine import PARK, RentedMachine
from poorwill.remote.waiting import EngineWait

_KEPT = frozenset({MachineState.PARKED, MachineState.PARKING})
_PAID = frozenset({MachineState.RUNNING, MachineState.OFF, MachineState.MOVING})


@dataclass(slots=True, kw_only=True)
class RentedDriver:
    """Parks and wakes rented machines of one replica each. Implements the port `Driver`, for either tier."""

    into: Tier
    """`hibernated` or `cold`: they differ in name, and in what they list."""
    machines: Mapping[ReplicaId, RentedMachine]
    clock: Clock
    log: Log
    park_limit_s: float = 900.0
    wake_limit_s: float = 1800.0
    """Bounds for callers that set none."""
    undo_limit_s: float = 60.0
    """How long a failed wake waits for the machine to be on its way to be hibernated again."""
    silent_s: float = 60.0
    """How long an engine on a machine that ran already may be silent before the machine is rebooted."""
    look_s: float = 15.0
    """Between two looks at a machine whose engine is waited for."""
    exclusive: Exclusive = field(default_factory=Exclusive)

    @property
    def name(self) -> str:
        """The driver's name: `hibernated`, or `rented` for a cold start of a rented machine."""
        return "hibernated" if self.into is Tier.HIBERNATED else "rented"

    @property
    def tier(self) -> Tier:
        """The tier it parks into."""
        return self.into

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Have the machine hibernated and return when it is; see `Driver.park`.

        Failed: `running` is set if the machine was last seen running. Cancelled: the machine is left to
        its cloud: before the request was taken on it serves on, afterwards it will be hibernated all the
        same, and a later wake waits for that.
        """
        with self.exclusive.during(running.replica, "park"):
            machine = self._machine(running.replica)
            try:
                await machine.bring_to(PARK, limit_s=self.park_limit_s)
            except MachineGone:
                raise
            except DriverError as error:
                runs = machine.seen is not None and machine.seen.state is MachineState.RUNNING
                raise DriverError(str(error), running=running if runs else None) from error
        return Parked(replica=running.replica, generation=generation, tier=self.tier, machine=machine.named)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Have the machine run, from whatever state, and wait for its engine; see `Driver.wake`.

        Failed or cancelled: the machine is hibernated again. That is waited for until its cloud has begun
        with it, at most `undo_limit_s`: one that is still being restored takes no request, and is ended by
        the next sweep. A second cancellation ends the waiting at once, with the same effect.
        """
        with self.exclusive.during(launch.replica, "wake"):
            machine = self._machine(launch.replica)
            report(PhaseMark(phase=Phase.PROVISION, at_us=self.clock.now_us(), detail=machine.named))
            try:
                ran = await machine.run(limit_s=self.wake_limit_s)
                await self._engine(machine, launch, report, ran=ran)
            except MachineGone as gone:
                if self.tier is Tier.COLD:
                    raise
                raise SnapshotRefused(str(gone)) from gone
            except BaseException:
                await self._let_go(machine)
                raise
        return self._running(machine, launch.replica, launch=launch, generation=generation)

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Call a hibernated machine cold: nothing about it changes. Other tiers cannot become cold here."""
        machine = self._machine(launch.replica)
        if self.tier is not Tier.COLD or parked.machine != machine.named:
            raise DriverError(f"there is no way from {parked.tier} to {self.tier}")
        await machine.bring_to(PARK, limit_s=self.park_limit_s)
        return Parked(replica=parked.replica, generation=generation, tier=self.tier, machine=machine.named)

    async def discard(self, parked: Parked) -> None:
        """Do nothing: the machine and its disk are its owner's, and a wake depends on nothing else."""

    async def inventory(self) -> Sequence[Found]:
        """Return the machines that are hibernated; as `cold`, those that are paid for.

        They are looked at all at once. One whose cloud does not answer is listed as it was last seen.
        """
        wanted = _KEPT if self.tier is Tier.HIBERNATED else _PAID
        async with asyncio.TaskGroup() as looks:
            looking = {
                replica: looks.create_task(self._seen(machine)) for replica, machine in self.machines.items()
            }
        seen = {replica: look.result() for replica, look in looking.items()}
        return [
            self._found(replica, self.machines[replica])
            for replica, what in seen.items()
            if what is not None and what.state in wanted
        ]

    async def _seen(self, machine: RentedMachine) -> MachineStatus | None:
        try:
            return await machine.look(attempts=1)
        except MachineGone:
            machine.seen = None
            return None
        except DriverError as error:
            self.log.warning("cannot look at a machine", machine=machine.named, why=str(error))
            return machine.seen

    def _found(self, replica: ReplicaId, machine: RentedMachine) -> Found:
        parked = running = None
        if self.tier is Tier.HIBERNATED:
            parked = Parked(replica=replica, generation=0, tier=self.tier, machine=machine.named)
        else:
            running = self._running(machine, replica)
        return Found(
            replica=replica,
            generation=0,
            tier=self.tier if parked else None,
            what=f"rented machine {machine.named}",
            running=running,
            parked=parked,
            unfinished=machine.unwanted and running is not None,
        )

    def _running(
        self,
        machine: RentedMachine,
        replica: ReplicaId,
        *,
        launch: Launch | None = None,
        generation: int = 0,
    ) -> Running:
        return Running(
            replica=replica,
            generation=generation,
            host=machine.address,
            port=machine.port,
            log_path=launch.log_path if launch else "",
            driver=self.name,
            engine_model=launch.engine_model if launch else "",
            launched=launch.identity() if launch else "",
            machine=machine.named,
        )

    async def _engine(self, machine: RentedMachine, launch: Launch, report: Report, *, ran: bool) -> None:
        """Wait for the engine of a machine that runs. `ran`: it ran already, so its engine may be dead."""
        waiting = EngineWait(
            # It has no address while a floating one is rebooted and was not looked at again.
            reach=lambda: machine.here if machine.address else None,
            ready_path=launch.ready_path,
            report=report,
            clock=self.clock,
        )
        waiting.mark(Phase.SPAWN, "the machine boots and starts its engine")
        loop = asyncio.get_running_loop()
        began = looked = loop.time()
        while not await waiting.ready():
            now = loop.time()
            if now - began > self.wake_limit_s:
                raise DriverError(
                    f"the engine on {machine.named} was not ready within {self.wake_limit_s:g} s: "
                    f"{launch.ready_path} last answered {waiting.last}"
                )
            if ran and not waiting.answered and now - began > self.silent_s:
                ran, looked = False, now
                waiting.mark(Phase.PROVISION, "rebooted: its engine did not answer")
                await machine.reboot()
                waiting.mark(Phase.SPAWN, "the machine boots and starts its engine")
            if now - looked > self.look_s:
                looked = now
                await self._still_runs(machine)
            await asyncio.sleep(waiting.delay_s())

    async def _still_runs(self, machine: RentedMachine) -> None:
        """Raise DriverError if a machine stopped while its engine starts; a silent cloud proves nothing."""
        try:
            seen = await machine.look(attempts=1)
        except CloudBusy as error:
            self.log.warning("cannot look at a machine", machine=machine.named, why=str(error))
            return
        if seen.state not in (MachineState.RUNNING, MachineState.MOVING):
            raise DriverError(f"{machine.named} became {seen.word} before its engine was ready")

    async def _let_go(self, machine: RentedMachine) -> None:
        """Hibernate a machine after a failed wake. A failure is logged: the machine may still be billed."""
        if machine.at_rest:
            return
        try:
            await machine.release(limit_s=self.undo_limit_s)
        except MachineGone:
            return
        except DriverError as error:
            self.log.error(
                "a rented machine may run on, and be billed; the next sweep tries again",
                machine=machine.named,
                why=str(error),
            )

    def _machine(self, replica: ReplicaId) -> RentedMachine:
        machine = self.machines.get(replica)
        if machine is None:
            raise DriverError(f"replica {replica} has no rented machine")
        return machine
