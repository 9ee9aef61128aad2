"""The orphan sweep, at start and on a timer: what the drivers find against what the units own.

An orphan is noted once; it is ended only if the operator asked for that. This file never decides what is
an orphan: `judgement` does, for `poorwill doctor --sweep` as well.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.entries import Entry, Noted, ReplicaCreated, ReplicaEnded, SpanOpened
from poorwill.core.launch import Parked
from poorwill.core.machine.inputs import ImageLost
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, DriverError, Found, Processes
from poorwill.core.ports.log import Log
from poorwill.core.words import ORPHAN, ModelName, ReplicaId
from poorwill.fleet.sweeps.judgement import Owned, compare, may_exist
from poorwill.fleet.unit import FleetContext, Unit

SWEEP_S = 300.0
"""Between two sweeps: an orphan costs memory or disk, not correctness, and looking costs a walk of /proc."""


HOSTS_SWEEP_S = 20.0
"""In a fleet with other hosts: what nobody owns there ends within a minute."""


async def sweep_is_due() -> None:
    """Return when the next sweep is due."""
    await asyncio.sleep(SWEEP_S)


@dataclass(slots=True, kw_only=True)
class Sweeper:
    """Finds what nobody owns, and remembers what it has reported."""

    clock: Clock
    log: Log
    reap_orphans: bool
    reported: dict[str, ReplicaId | None] = field(default_factory=dict)
    """Reported orphans that still exist, and the replica id their time is booked under (None: an image)."""
    stubborn: set[str] = field(default_factory=set)
    """Orphans that could not be ended."""
    blind: bool = False
    """Whether a driver could not look, the last time."""

    async def sweep(
        self, units: Mapping[ReplicaId, Unit], *, ended: Collection[ReplicaId] = ()
    ) -> Sequence[Entry]:
        """Return notes on finds that no unit owns and that are new, and the spans of what they cost.

        An engine that nobody owns is paid all the same: it has a life of its own in the ledger, with the
        cause `orphan`, from the sweep that finds it to the one that does not. Leftovers of `ended` replicas
        are ended whatever the operator asked for. What belongs to a replica that wakes, parks or did so
        meanwhile is left for the next sweep. Never raises; cancelled: what was already ended stays ended.
        """
        before = {unit.id: _generation_at_rest(unit) for unit in units.values()}
        self.blind = False
        found = await self.inventory(units)
        owned = [Owned(replica=unit.id, running=unit.running, parked=unit.parked) for unit in units.values()]
        owned += [Owned(replica=each.id, running=each.unseen[0]) for each in units.values() if each.unseen]
        finder = {_key(each): driver for driver, each in found}
        orphans = [
            each
            for each in compare((each for _, each in found), owned).orphans
            if each.replica not in _moved(units, before)
        ]
        keys = {_key(each) for each in orphans}
        notes: list[Entry] = []
        if not self.blind:  # what a driver could not look for may be there still, and is paid
            self.stubborn &= keys
            notes = self._forget_all_but(keys)
        for each in orphans:
            if each.replica in _moved(units, before):
                continue  # while another one was ended
            ours = each.replica in ended or each.unfinished or _key(each) in self.stubborn
            if (ours or self.reap_orphans) and await self._reap(units, finder[_key(each)], each):
                notes.append(self._note("swept", each))
            elif _key(each) not in self.reported:
                notes.append(self._note("orphan", each))
                notes += self._begin(each)
        return notes

    def _begin(self, found: Found) -> Sequence[Entry]:
        """Remember an orphan; if it runs, the ledger counts its time. A snapshot only takes space."""
        running = found.running
        if running is None:
            self.reported[_key(found)] = None
            return ()
        replica = ReplicaId(f"{found.replica}:orphan-{running.machine or running.pid}")
        self.reported[_key(found)] = replica
        now = self.clock.now_us()
        model = ModelName(found.replica.rpartition("-")[0] or found.replica)
        return (
            ReplicaCreated(replica=replica, model=model, driver=running.driver, at_us=now),
            SpanOpened(replica=replica, at_us=now, cause=ORPHAN, why=found.what),
        )

    def _forget_all_but(self, there: Collection[str]) -> list[Entry]:
        """Forget what is gone; its time ends."""
        gone = [self.reported.pop(key) for key in list(self.reported) if key not in there]
        now = self.clock.now_us()
        return [ReplicaEnded(replica=replica, at_us=now) for replica in gone if replica]

    async def inventory(self, units: Mapping[ReplicaId, Unit]) -> Sequence[tuple[Driver, Found]]:
        """Return what every driver of the units finds; one that cannot look finds nothing."""
        drivers = {id(d): d for unit in units.values() for d in unit.equipment.drivers.values()}
        return [(driver, found) for driver in drivers.values() for found in await self.look(driver)]

    async def look(self, driver: Driver) -> Sequence[Found]:
        """Return what one driver finds."""
        try:
            return [found for found in await driver.inventory() if not found.silent]
        except (DriverError, OSError) as error:
            self.log.error("cannot look for what exists", driver=driver.name, why=str(error))
            self.blind = True
            return ()

    async def _reap(self, units: Mapping[ReplicaId, Unit], driver: Driver, found: Found) -> bool:
        """End a find; return whether it ended. One that did not is tried again by each sweep."""
        key = _key(found)
        self.stubborn.discard(key)
        try:
            if found.running is not None:
                await _processes(units, driver).kill(found.running)
        except (DriverError, OSError) as error:
            self.stubborn.add(key)
            self.log.error("cannot end an engine", replica=found.replica, why=str(error))
            return False
        try:
            if found.parked is not None:
                await driver.discard(found.parked)
        except (DriverError, OSError) as error:
            self.log.error("cannot discard", what=found.what, why=str(error))
        return True

    def _note(self, kind: str, found: Found) -> Noted:
        return Noted(at_us=self.clock.now_us(), kind=kind, replica=found.replica, text=found.what)


async def sweep_on_time(sweeper: Sweeper, context: FleetContext, due: Callable[[], Awaitable[None]]) -> None:
    """Each time `due` returns, note what nobody owns and what is owned and gone. Runs until cancelled."""
    while True:
        await due()
        notes = await sweeper.sweep(context.units)
        if notes:
            context.journal.post(notes)
        await note_vanished(context)


async def note_vanished(context: FleetContext) -> None:
    """Take every resting replica whose image its driver does not find for cold, and note that.

    Its image was evicted or removed, or its rented machine hibernates no more. Found here it costs a note;
    found by the next wake it would cost a failed one.
    A driver that cannot look finds nothing out. Never raises; cancelled: the rest is left for the next look.
    """
    resting = [
        (unit, unit.parked)
        for unit in context.units.values()
        if unit.parked is not None and (unit.parked.path is not None or unit.parked.machine)
    ]
    seen: dict[int, Sequence[Found] | None] = {}
    for unit, parked in resting:
        driver = unit.equipment.drivers.get(parked.tier)
        if driver is None:
            continue
        if id(driver) not in seen:
            seen[id(driver)] = await _look(context, driver)
        found = seen[id(driver)]
        if found is not None and not may_exist(parked, found):
            _gone(context, unit, parked)


def _gone(context: FleetContext, unit: Unit, parked: Parked) -> None:
    if unit.replica.state is not State.PARKED or unit.parked is not parked:
        return  # woken or parked deeper while the driver looked
    unit.parked = None
    context.journal.post([unit.placed(context.clock.now_us())])
    why = f"{parked.path} is gone: evicted or removed; the next wake is cold"
    if parked.machine:
        why = f"{parked.machine} is not hibernated any more; the next wake is cold"
    context.log.warning("what was parked is gone", model=unit.model, what=parked.where())
    context.submit(unit, ImageLost(generation=unit.replica.generation, why=why))


async def _look(context: FleetContext, driver: Driver) -> Sequence[Found] | None:
    try:
        return await driver.inventory()
    except (DriverError, OSError) as error:
        context.log.warning("cannot look for images", driver=driver.name, why=str(error))
        return None


def _generation_at_rest(unit: Unit) -> int | None:
    """Return the generation of a replica that neither wakes nor parks: it then owns all that it has."""
    busy = unit.replica.state in (State.WAKING, State.PARKING)
    return None if busy else unit.replica.generation


def _moved(units: Mapping[ReplicaId, Unit], before: Mapping[ReplicaId, int | None]) -> Collection[ReplicaId]:
    """Return the replicas that wake or park, or did so since `before`."""
    return {
        unit.id
        for unit in units.values()
        if (rests := _generation_at_rest(unit)) is None or rests != before.get(unit.id)
    }


def _key(found: Found) -> str:
    return f"{found.replica} {found.generation} {found.what}"


def _processes(units: Mapping[ReplicaId, Unit], driver: Driver) -> Processes:
    """Return the `Processes` that end the engines a driver finds."""
    equipped = (unit.equipment for unit in units.values())
    return next(
        each.processes for each in equipped if any(driver is other for other in each.drivers.values())
    )
