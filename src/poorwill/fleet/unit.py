"""One replica's moving parts: its state, its gate, its processes and who waits for it.

A unit is changed only by the controller and, on the warm path, by the activator; both run on the event
loop's thread and never await in between.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from poorwill.core.gate import Gate
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports import Driver, Engine, Lease, Processes
from poorwill.core.replica import Replica
from poorwill.core.words import HoldId, ModelName, ReplicaId, Tier


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
    parked: Parked | None = None
    waiting: dict[HoldId, asyncio.Future[Lease]] = field(default_factory=dict)
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
    quiet_since_us: int = 0
    """When the last request ended, 0 while the policy has nothing to learn. A wake ahead of demand does
    not end a quiet stretch, so this is not the gate's `idle_since_us`."""

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
        running = self.running
        assert running is not None, "a lease without a running engine"
        return Lease(
            model=self.replica.model,
            replica=self.replica.id,
            generation=self.replica.generation,
            host=running.host,
            port=running.port,
        )

    def launch(self) -> Launch:
        """Return how to start the replica. Raises OperatorFault where the model file is gone."""
        return self.equipment.engine.launch(
            replica=self.replica.id, generation=self.replica.generation
        )

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
