"""Engines on rented machines, as the port `Processes`: watched over the network, ended with their machine.

Nothing of them is a process here. Whether one lives is asked of itself, and of its cloud only when it is
silent: a cloud's API has limits, and an engine's own answer says more.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from poorwill.core.launch import Running
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.log import Log
from poorwill.core.words import ReplicaId
from poorwill.hosts.files.reach import Reach
from poorwill.remote.clouds.cloud import MachineGone, MachineState
from poorwill.remote.clouds.machine import RentedMachine


@dataclass(slots=True, kw_only=True)
class RentedEngines:
    """The engines of a fleet's rented machines. Implements the port `Processes`."""

    machines: Mapping[ReplicaId, RentedMachine]
    log: Log
    watch_s: float = 15.0
    """Between two liveness checks of an engine."""
    silences: int = 4
    """Unanswered checks in a row after which an engine counts as dead: its supervisor has had time to restart
    it."""
    kill_limit_s: float = 60.0

    async def kill(self, running: Running) -> None:
        """Have the engine's machine hibernated, which costs least; return when it is on its way there.

        Raises DriverError if the cloud does not begin with it in time: the machine may then be billed on,
        and the next sweep tries again. Cancelled: likewise.
        """
        try:
            await self._machine(running).release(limit_s=self.kill_limit_s)
        except MachineGone:
            return

    async def exited(self, running: Running) -> str:
        """Wait until the engine answers no more and return why, for people.

        Cancelled: neither engine nor machine is touched.
        """
        machine, silent = self._machine(running), 0
        while silent < self.silences:
            await asyncio.sleep(self.watch_s)
            if await self._answers(machine):
                silent = 0
                if not machine.floating:
                    continue
                # A machine that was stopped loses such an address, and a stranger may answer there.
            else:
                silent += 1
            try:
                seen = await machine.look(attempts=1)
            except MachineGone as gone:
                return str(gone)
            except DriverError as error:
                self.log.warning("cannot look at a machine", machine=machine.named, why=str(error))
                continue
            if seen.state is not MachineState.RUNNING:
                return f"ended with its machine: {machine.named} is {seen.word}"
            if machine.address != running.host:
                return f"ended with its machine: {machine.named} is at {machine.address or 'no address'} now"
        return f"does not answer on {machine.named}, which runs"

    async def _answers(self, machine: RentedMachine) -> bool:
        try:
            return bool(machine.address) and await machine.here.status("/") is not None
        except DriverError as error:
            self.log.warning("cannot ask an engine", machine=machine.named, why=str(error))
            return False

    def alive(self, running: Running) -> bool:
        """Return whether its machine ran when it was last looked at, or was not looked at yet.

        False for what is on another machine than the replica has by now.
        """
        machine = self.machines.get(running.replica)
        if machine is None or machine.named != running.machine:
            return False
        if machine.seen is None:
            return not machine.floating
        return machine.seen.state is MachineState.RUNNING and machine.address == running.host

    async def locate(self) -> None:
        """Ask where the machines with floating addresses are; a cloud that does not say so is logged.

        Until then nobody knows who answers there. Cancelled: nothing was changed.
        """
        for machine in self.machines.values():
            if machine.floating:
                try:
                    await machine.look()
                except DriverError as error:
                    self.log.warning("cannot look at a machine", machine=machine.named, why=str(error))

    def reached(self, others: Mapping[tuple[str, int], Reach], at: tuple[str, int]) -> Reach | None:
        """Return how an engine is reached, by the address that its machine has now, or one of others."""
        here = (each for each in self.machines.values() if each.address and (each.address, each.port) == at)
        return next((machine.here for machine in here), others.get(at))

    def effort(self, running: Running) -> None:
        """Return None: what its machine does is not seen from here."""

    def _machine(self, running: Running) -> RentedMachine:
        machine = self.machines.get(running.replica)
        if machine is None or machine.named != running.machine:
            raise DriverError(
                f"{running.machine or 'this machine'} is not the rented machine of {running.replica}: "
                "what runs there may run on, and be billed"
            )
        return machine
