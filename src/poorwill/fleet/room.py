"""Makes room for a replica that wants to wake, by parking idle ones of less worth."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.inputs import ParkAsked
from poorwill.core.lifecycle import State
from poorwill.core.placement import Occupant, choose_victims
from poorwill.core.ports import Clock
from poorwill.core.words import ModelName
from poorwill.fleet.unit import Unit

Submit = Callable[[Unit, ParkAsked], None]


@dataclass(slots=True, kw_only=True, eq=False)
class Room:
    """What the host has room for. `park` is the controller's submit, set when the two meet."""

    total_bytes: int
    """0: unbounded."""
    needs: Mapping[ModelName, int]
    """Bytes each model needs while ready; 0 is unknown and counts as nothing."""
    priorities: Mapping[ModelName, int]
    units: Mapping[ModelName, Unit]
    clock: Clock
    park: Submit | None = field(default=None)

    async def make(self, unit: Unit) -> None:
        """Return when the unit's replica fits. Parks idle replicas; waits for busy ones to fall idle.

        Raises PoorwillError(NO_CAPACITY) where it could not fit even alone. Cancelled: replicas already
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
        while not self._fits(unit, need):
            self._evict_for(unit, need)
            if not self._fits(unit, need):
                await self._any_turn(unit)

    def _others(self, unit: Unit) -> list[Unit]:
        return [other for other in self.units.values() if other is not unit]

    def _fits(self, unit: Unit, need: int) -> bool:
        used = sum(
            self.needs[other.model]
            for other in self._others(unit)
            if other.replica.state is not State.PARKED
        )
        return used + need <= self.total_bytes

    def _evict_for(self, unit: Unit, need: int) -> None:
        occupants = [
            Occupant(
                model=other.model,
                bytes=self.needs[other.model],
                priority=self.priorities[other.model],
                busy=other.replica.state is not State.READY
                or other.gate.in_flight > 0
                or bool(other.replica.holds),
                leaving=other.replica.state in (State.DRAINING, State.PARKING),
                ready_since_us=other.replica.ready_since_us,
                idle_since_us=other.gate.idle_since_us,
            )
            for other in self._others(unit)
            if other.replica.state is not State.PARKED
        ]
        victims = choose_victims(
            occupants,
            need=need,
            total=self.total_bytes,
            priority=self.priorities[unit.model],
            now_us=self.clock.now_us(),
        )
        assert self.park is not None
        for model in victims:
            self.park(self.units[model], ParkAsked(why=f"evicted for {unit.model}"))

    async def _any_turn(self, unit: Unit) -> None:
        """Wait until another unit's state changes or its last lease comes back, at most a second."""
        try:
            async with asyncio.timeout(1.0), asyncio.TaskGroup() as group:
                tasks = [group.create_task(other.turned()) for other in self._others(unit)]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        except TimeoutError:
            return
