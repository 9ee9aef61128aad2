"""One replica's moving parts: its state, its gate, its processes and who waits for it.

A unit is changed only by the controller and, on the warm path, by the activator; both run on the event
loop's thread and never await in between.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.machine.gate import Gate
from poorwill.core.machine.replica import Replica
from poorwill.core.ports.activator import Lease
from poorwill.core.ports.driver import Driver, DriverError, Processes
from poorwill.core.ports.engine import Engine
from poorwill.core.words import HoldId, ModelName, ReplicaId, Tier

REMEMBERED_GAPS = 200
"""Quiet stretches that tell how soon a replica may be wanted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a unit uses to start, park and wake its replica."""

    engine: Engine
    drivers: Mapping[Tier, Driver]
    """By the tier each parks into; `cold` is always there."""
    processes: Processes


@dataclass(slots=True, kw_only=True, eq=False)
class Unit:
    """A replica under the fleet's control."""

    replica: Replica
    gate: Gate
    equipment: Equipment
    running: Running | None = None
    launched: Launch | None = None
    """How what runs was launched."""
    parked: Parked | None = None
    waiting: dict[HoldId, asyncio.Future[Lease]] = field(default_factory=dict)
    bridged: int = 0
    """Requests that a hosted API serves now in the replica's place."""
    marks: list[PhaseMark] = field(default_factory=list)
    """Phase marks of the wake under way."""
    job: asyncio.Task[None] | None = None
    """The wake or park under way; there is never more than one."""
    watch_task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    since_us: int = 0
    """When the open span began, as far as a turn opened it."""
    onlookers: set[asyncio.Future[None]] = field(default_factory=set)
    """Resolved after every turn, for whoever waits for a state."""
    wakes: list[int] = field(default_factory=list)
    """Durations of successful wakes, the latest last; for the published wake interval."""
    over_budget: int = 0
    _lease: Lease | None = None
    """The last lease granted: as long as the same engine runs, the next one says the same."""
    _leased: Running | None = None
    quiet_since_us: int = 0
    """When the last request ended or gave up, 0 while there is one. A wake ahead of demand does not end a
    quiet stretch, so this is not the gate's `idle_since_us`."""

    gaps_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED_GAPS))
    """How long its last quiet stretches were, the latest last."""

    @property
    def model(self) -> ModelName:
        """The model it serves."""
        return self.replica.model

    @property
    def id(self) -> ReplicaId:
        """The replica's id."""
        return self.replica.id

    def observed(self) -> Replica:
        """Return the replica with the gate's present count, as a step must see it."""
        return replace(self.replica, load=self.gate.load())

    def adopt(self, after: Replica) -> None:
        """Take a step's outcome over: the state, and what follows from it for the gate."""
        self.replica = after
        self.gate.in_flight = after.load.in_flight
        self.gate.idle_since_us = after.load.idle_since_us
        self.gate.cause = after.load.cause
        self.gate.open = after.gate_open
        self.gate.waiting = len(after.holds)

    def lease(self) -> Lease:
        """Return a lease on the replica as it runs now. The gate must have counted it."""
        running, replica, lease = self.running, self.replica, self._lease
        if lease is None or self._leased is not running or lease.generation != replica.generation:
            assert running is not None, "a lease without a running engine"
            self._leased = running
            self._lease = lease = Lease(
                model=replica.model,
                replica=replica.id,
                generation=replica.generation,
                host=running.host,
                port=running.port,
                engine_model=running.engine_model if running.engine_model != replica.model else "",
            )
        return lease

    def launch(self) -> Launch:
        """Return how to start the replica. Raises OperatorFault where the model file is gone."""
        return self.equipment.engine.launch(replica=self.replica.id, generation=self.replica.generation)

    def wanted(self, now_us: int) -> None:
        """A request came: let the policy learn of the quiet stretch that it ends, once for each."""
        if self.quiet_since_us:
            others = self.gate.others()
            self.replica.policy.observe(self.quiet_since_us, now_us, others=others)
            self.gaps_us.append(now_us - self.quiet_since_us)
            self.quiet_since_us = 0

    def left(self, now_us: int) -> None:
        """A request ended or gave up: a quiet stretch begins if it was the last."""
        if not (self.quiet_since_us or self.gate.in_flight or self.waiting or self.bridged):
            self.quiet_since_us = now_us

    async def turned(self) -> None:
        """Wait for the next turn. Cancelled: forgotten at once."""
        onlooker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.onlookers.add(onlooker)
        try:
            await onlooker
        finally:
            self.onlookers.discard(onlooker)

    def tell_onlookers(self) -> None:
        """Resolve everyone who waits for a turn."""
        for onlooker in self.onlookers:
            if not onlooker.done():
                onlooker.set_result(None)
        self.onlookers.clear()


async def still_answers(unit: Unit, running: Running, *, within_s: float) -> bool:
    """Return whether exactly this process lives and its engine serves. Cancelled: it is not touched."""
    if not unit.equipment.processes.alive(running):
        return False
    try:
        async with asyncio.timeout(within_s):
            await unit.equipment.engine.ready(running, unit.launched or unit.launch())
    except (DriverError, PoorwillError, OSError, TimeoutError):
        return False
    return True


def unit_of(units: Mapping[ModelName, Unit], model: ModelName) -> Unit:
    """Return a model's unit; raises RequestFault, with the models that there are, where it has none."""
    unit = units.get(model)
    if unit is None:
        known = ", ".join(units) or "none"
        raise RequestFault(ErrorCode.MODEL_NOT_FOUND, f"no model {model!r}", hint=f"configured: {known}")
    return unit
