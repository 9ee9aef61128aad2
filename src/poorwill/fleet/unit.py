"""One replica under control: its cell, its processes and the requests that wait for it.

Everything that changes a unit runs on the event loop's thread and does not await in between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from poorwill.core.entries import PhaseSpan, ReplicaPlaced
from poorwill.core.errors import PoorwillError, unknown_model
from poorwill.core.launch import Launch, Parked, PhaseMark, Place, Running
from poorwill.core.machine.cell import Cell
from poorwill.core.machine.inputs import Input
from poorwill.core.machine.replica import Replica
from poorwill.core.ports.activator import Connections, Lease
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, DriverError, Processes, Report
from poorwill.core.ports.engine import Engine
from poorwill.core.ports.log import Log
from poorwill.core.words import HoldId, ModelName, ReplicaId, Tier
from poorwill.fleet.journal import Journal
from poorwill.policies.dispatch import Replicas

Fetch = Callable[[Report], Awaitable[None]]
"""Has a model's files on disk, and reports the phase if that takes a download. Raises OperatorFault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a unit uses to start, park and wake its replica."""

    engine: Engine
    drivers: Mapping[Tier, Driver]
    """By the tier each parks into; `cold` is always there."""
    processes: Processes
    fetch: Fetch | None = None
    machine: str = ""
    """The rented machine of its one replica: the ledger names it before it is asked to run."""


@dataclass(slots=True, kw_only=True, eq=False)
class Unit:
    """A replica under the fleet's control."""

    cell: Cell
    replicas: Replicas
    """All replicas of its model, of which the cell is one."""
    equipment: Equipment
    driver: str
    """Name of the driver it is started by, for the ledger's rates."""
    running: Running | None = None
    launched: Launch | None = None
    """The launch that produced `running`."""
    parked: Parked | None = None
    unseen: tuple[Running, Parked | None] | None = None
    """What it has on a host that is silent: adopted when that is back, unless it was woken elsewhere."""
    next_equipment: Equipment | None = None
    """Of a changed configuration; taken when the replica next starts anew."""
    waiting: dict[HoldId, asyncio.Future[Lease]]
    """Whoever waits for one of the model's replicas: the same for all of them."""
    marks: list[PhaseMark] = field(default_factory=list)
    """Phase marks of the wake under way."""
    job: asyncio.Task[None] | None = None
    """The wake or park under way; there is never more than one."""
    watch_task: asyncio.Task[None] | None = None
    ending: asyncio.Task[None] | None = None
    """Ends what is left of an engine that was lost; the next one must not start before."""
    timer: asyncio.TimerHandle | None = None
    ticks_us: int = 0  # when the timer is due
    waiters: dict[asyncio.Future[None], None] = field(default_factory=dict)
    """Resolved after every turn, for whoever waits for a state; in the order in which they came."""
    _lease: Lease | None = None
    """The last lease granted: as long as the same engine runs, the next one says the same."""
    _leased: Running | None = None

    @property
    def replica(self) -> Replica:
        """The replica as it is now."""
        return self.cell.replica

    @property
    def model(self) -> ModelName:
        """The model it serves."""
        return self.replica.model

    @property
    def name(self) -> str:
        """What people know it by: the model's name, the replica's own if there are several."""
        return self.id if len(self.replicas.cells) > 1 else self.model

    @property
    def id(self) -> ReplicaId:
        """The replica's id."""
        return self.cell.id

    def lease(self) -> Lease:
        """Return a lease on the replica as it runs now. The cell must have counted it."""
        running, lease = self.running, self._lease
        if lease is None or self._leased is not running or lease.generation != self.cell.generation:
            assert running is not None, "a lease without a running engine"
            self._leased, replica = running, self.cell.replica
            self._lease = lease = Lease(
                model=replica.model,
                replica=replica.id,
                generation=replica.generation,
                host=running.host,
                port=running.port,
                engine_model=running.engine_model if running.engine_model != replica.model else "",
            )
        return lease

    def renew(self) -> None:
        """Take the equipment of a changed configuration, if there is one."""
        if self.next_equipment is not None:
            self.equipment, self.next_equipment, self.launched = self.next_equipment, None, None

    def launch(self, *, anew: bool = False, place: Place | None = None) -> Launch:
        """Return how to start the replica, as `Engine.launch`; without a place, where it is already.

        Raises OperatorFault if the model is gone.
        """
        held = self.running or self.parked
        return self.equipment.engine.launch(
            replica=self.replica.id,
            generation=self.replica.generation,
            anew=anew,
            place=place or (held.place if held is not None else None),
        )

    def placed(self, at_us: int) -> ReplicaPlaced:
        """Return where the replica is now, a rented machine always, for a poorwill that starts later."""
        parked, machine = self.parked, self.equipment.machine
        if machine and not (self.running or parked):
            parked = Parked(replica=self.id, generation=self.cell.generation, tier=Tier.COLD, machine=machine)
        return ReplicaPlaced(
            replica=self.id,
            at_us=at_us,
            generation=self.cell.generation,
            running_json=self.running.as_json() if self.running else "",
            parked_json=parked.as_json() if parked else "",
        )

    async def known_launch(self) -> Launch:
        """Return the launch that the replica was started by, or how it would be started now.

        Raises OperatorFault if the model file is gone.
        """
        return self.launched if self.launched is not None else await asyncio.to_thread(self.launch)

    async def changed(self) -> None:
        """Wait for the next change. Cancelled: forgotten at once."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters[waiter] = None
        try:
            await waiter
        finally:
            self.waiters.pop(waiter, None)

    def notify_waiters(self) -> None:
        """Wake every task that waits for a change."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


Submit = Callable[[Unit, Input], None]
"""Takes an input; see `Controller.submit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetContext:
    """What carrying out an effect needs of the fleet. Results go back as inputs, through `submit`."""

    units: Mapping[ReplicaId, Unit]
    journal: Journal
    connections: Connections
    clock: Clock
    log: Log
    tasks: asyncio.TaskGroup
    submit: Submit
    make_room: Callable[[Unit], Awaitable[Place | None]]
    """Returns a unit's place when its replica fits; see `Room.make`."""
    until_freed: Callable[[Unit, Parked], Awaitable[None]]
    """Returns when a park has freed the unit's devices; see `room.freed`."""
    leaves: Callable[[Sequence[PhaseMark], int, int], tuple[PhaseSpan, ...]]
    """Tiles a wake by its marks; see `policies.coldstart.anatomy`."""
    note_vanished: "Callable[[FleetContext], Awaitable[None]]"
    """See `sweeps.sweeper.note_vanished`."""
    out_of_sight: "Callable[[FleetContext, Unit, Running], bool]"


async def end_engine(processes: Processes, running: Running, log: Log) -> None:
    """End an engine and what is left of its process group; log a failure. The next sweep finds the rest."""
    try:
        await processes.kill(running)
    except (DriverError, OSError) as error:
        log.error("cannot end an engine", replica=running.replica, why=str(error))


async def to_the_end(work: Awaitable[None]) -> None:
    """Wait for work however often the waiting is cancelled; then pass the cancellation on.

    Two engines of one replica would share a port and a place: the first must be gone before a second starts.
    """
    ending = asyncio.gather(work)
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError as error:
            cancelled = error
    ending.result()
    if cancelled is not None:
        raise cancelled


async def still_answers(unit: Unit, running: Running, *, within_s: float) -> bool:
    """Return whether exactly this process lives and its engine serves. Cancelled: it is not touched."""
    with suppress(DriverError, PoorwillError, OSError, TimeoutError):
        if unit.equipment.processes.alive(running):
            async with asyncio.timeout(within_s):
                await unit.equipment.engine.ready(running, await unit.known_launch())
                return True
    return False


class Models(dict[ModelName, Replicas]):
    """The replicas of each model. For a missing one RequestFault is raised, which lists those there are."""

    def __missing__(self, model: ModelName) -> Replicas:
        raise unknown_model(model, list(self))
