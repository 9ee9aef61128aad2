"""Makes room for replicas that want to wake, by parking less valuable idle ones.

Those who wait for room hold none meanwhile, so that several wakes at once cannot wait for each other; they
are let in by priority, then in order of arrival, a later one only if the earlier ones would still fit.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.machine.inputs import ParkAsked
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import next_descent_us
from poorwill.core.ports.clock import Clock
from poorwill.core.words import SECOND_US, ModelName, ReplicaId
from poorwill.fleet.unit import Unit
from poorwill.policies.placement.victims import Occupant, choose_victims, likelihood

Submit = Callable[[Unit, ParkAsked], None]

RECHECK_S = 1.0
"""How often a waiting wake checks for what no change reports: a replica has been ready long enough."""


UNKNOWN_WAKE_US = 10 * SECOND_US
"""The assumed length of a wake if none was measured or predicted."""


@dataclass(slots=True, kw_only=True, eq=False)
class Room:
    """What the host has room for. `park` is the controller's submit, set when the two meet."""

    total_bytes: int
    """0: unbounded."""
    needs: dict[ModelName, int]
    """Bytes each model needs while ready; 0 is unknown and counts as nothing."""
    priorities: dict[ModelName, int]
    units: Mapping[ReplicaId, Unit]
    clock: Clock
    park: Submit | None = field(default=None)
    queue: list[Unit] = field(default_factory=list)
    """Who waits for room, the next one first."""
    let_in: dict[ReplicaId, int] = field(default_factory=dict)
    """The generation of the wake that was last let in: while it lasts it takes up room."""

    async def make(self, unit: Unit) -> None:
        """Return when the unit's replica fits. Parks idle replicas; waits for busy ones to fall idle.

        Raises PoorwillError(NO_CAPACITY) if it could not fit even alone. Cancelled: replicas already
        being parked stay so.
        """
        need = self.needs[unit.model]
        if not self.total_bytes or not need:
            return
        if need > self.total_bytes:
            raise PoorwillError(
                ErrorCode.NO_CAPACITY,
                f"{unit.model} needs {need} bytes; the fleet may use {self.total_bytes}",
                hint="raise memory in [fleet] or lower the model's",
                retry_after_s=60,
            )
        self._line_up(unit)
        try:
            while not self._fits(unit):
                if self.queue[0] is unit:
                    self._evict_for(unit)
                if not self._fits(unit):
                    await self._any_change()
        finally:
            self.queue.remove(unit)
        self.let_in[unit.id] = unit.replica.generation
        unit.notify_waiters()

    def _line_up(self, unit: Unit) -> None:
        rank = self.priorities[unit.model]
        ahead = [other for other in self.queue if self.priorities[other.model] >= rank]
        self.queue.insert(len(ahead), unit)

    def _occupies(self, unit: Unit) -> bool:
        """Whether the unit's replica takes up room now."""
        replica = unit.replica
        if replica.state is State.WAKING:
            return self.let_in.get(unit.id) == replica.generation
        if replica.state is State.PARKING:
            return replica.park_from is None
        return replica.state is not State.PARKED

    def _fits(self, unit: Unit) -> bool:
        used = sum(self.needs[each.model] for each in self.units.values() if self._occupies(each))
        upto = self.queue[: self.queue.index(unit) + 1]
        return used + sum(self.needs[each.model] for each in upto) <= self.total_bytes

    def _evict_for(self, unit: Unit) -> None:
        now = self.clock.now_us()
        victims = choose_victims(
            [_occupant(each, self, now) for each in self.units.values() if self._occupies(each)],
            need=self.needs[unit.model],
            total=self.total_bytes,
            priority=self.priorities[unit.model],
            now_us=now,
        )
        assert self.park is not None
        for each in [each for each in self.units.values() if each.id in victims]:
            self.park(each, ParkAsked(why=f"evicted for {unit.model}"))

    async def _any_change(self) -> None:
        """Wait until some unit's state changes or its last lease comes back, at most `RECHECK_S`."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for each in self.units.values():
            each.waiters[change] = None
        try:
            async with asyncio.timeout(RECHECK_S):
                await change
        except TimeoutError:
            return
        finally:
            for each in self.units.values():
                each.waiters.pop(change, None)


def _occupant(unit: Unit, room: Room, now_us: int) -> Occupant:
    """Describe a replica that takes up room. One that a floor holds, or whose park just failed, is busy."""
    replica = unit.replica
    expected_us = replica.expected_wake_us(replica.settings.park.ladder[0])
    return Occupant(
        replica=unit.id,
        bytes=room.needs[unit.model],
        priority=room.priorities[unit.model],
        busy=replica.state is not State.READY
        or replica.load.in_flight > 0
        or bool(replica.holds)
        or replica.floor.at(now_us).required
        or now_us < replica.park_after_us,
        leaving=replica.state in (State.DRAINING, State.PARKING),
        ready_since_us=replica.ready_since_us,
        idle_since_us=replica.load.idle_since_us,
        wake_us=UNKNOWN_WAKE_US if expected_us is None else expected_us,
        wanted_soon=_wanted_soon(unit, now_us),
    )


def _wanted_soon(unit: Unit, now_us: int) -> float:
    """Return how likely the replica is wanted before its own policy would park it anyway."""
    parks_us = next_descent_us(unit.replica)
    return likelihood(
        unit.cell.level.gaps_us,
        idle_us=now_us - (now_us if unit.cell.quiet_since_us is None else unit.cell.quiet_since_us),
        within_us=None if parks_us is None else max(0, parks_us - now_us),
    )
