"""Gives places to replicas that want to wake, by parking less valuable idle ones where there is none.

Those who wait for a place hold none meanwhile, so that several wakes at once cannot wait for each other; they
are let in by priority, then in order of arrival, a later one only if the earlier ones would still fit.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.launch import Place
from poorwill.core.machine.inputs import ParkAsked
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import SnapshotRefused
from poorwill.core.words import SECOND_US, ModelName, ReplicaId, Tier
from poorwill.fleet.room.residents import UNKNOWN_WAKE_US, Claim, resident_of, sleeps
from poorwill.fleet.unit import Unit
from poorwill.policies.placement.devices import Devices, DeviceState
from poorwill.policies.placement.places import (
    House,
    Resident,
    Wanted,
    find_place,
    foreign_bytes,
    goal,
    make_way,
    newcomer,
    taken_by,
    unnamed_bytes,
)
from poorwill.policies.placement.refusals import never_fits, short_of

Submit = Callable[[Unit, ParkAsked], None]

SETTLE_S = 0.01
"""The least time between two looks: a park that is refused at once must not be asked for again and again."""
RECHECK_S = 1.0
"""How often those who wait look for what no change reports: a replica has been ready long enough, a foreign
program has ended."""

ANSWER_US = SECOND_US
"""How long before the end of its budget a wake gives up on a foreign program: clients then get an error that
says what was the matter."""


@dataclass(slots=True, kw_only=True, eq=False)
class Room:
    """What the host has places for. `park` is the controller's submit, set when the two meet."""

    total_bytes: int
    """Of host memory; 0: unbounded."""
    claims: dict[ModelName, Claim]
    units: Mapping[ReplicaId, Unit]
    clock: Clock
    devices: Devices | None = None
    """None: the fleet gives no devices out."""
    park: Submit | None = field(default=None)
    freed_s: float = 5.0
    """How long a park may take to free its devices."""
    queue: list[Unit] = field(default_factory=list)
    """Who waits for a place, the next one first."""
    let_in: dict[ReplicaId, int] = field(default_factory=dict)
    """The generation of the wake that was last let in: while it lasts it has its place."""
    places: dict[ReplicaId, Place] = field(default_factory=dict)
    """Where each was let in last."""
    kept: dict[ReplicaId, Mapping[str, int]] = field(default_factory=dict)
    """What each held of its devices when it was last asleep."""
    unnamed: dict[ReplicaId, Mapping[str, int]] = field(default_factory=dict)
    """What nobody held that could be named of its devices, when it was let in."""
    seen: Sequence[DeviceState] = ()
    """The devices at the last look."""
    _assigned_us: int = 0
    _turned_away: dict[ReplicaId, Exception] = field(default_factory=dict)
    _change: "asyncio.Future[None] | None" = None
    _dealt_with: "asyncio.Future[None] | None" = None

    async def make(self, unit: Unit) -> Place | None:
        """Return the unit's place as soon as it fits; None in a fleet that gives no devices out.

        Parks idle replicas, waits for busy ones to fall idle and, within the wake budget, for foreign
        programs to leave the devices. Raises PoorwillError(NO_CAPACITY) if it could not fit even alone, or if
        a foreign program stays; SnapshotRefused if what it is parked as is bound to devices that it cannot
        have. Cancelled: replicas already being parked stay so.
        """
        if self.devices is None and not (self.total_bytes and self.claims[unit.model].memory_bytes):
            return None
        self._line_up(unit)
        try:
            await self.look()
            self._assign()
            while unit in self.queue:
                change = self._next_change()
                await asyncio.wait((change,))
                if change is not self._dealt_with:  # once for all who wait
                    self._dealt_with = change
                    since_us = self.clock.now_us() - self._assigned_us
                    await asyncio.sleep(max(0.0, SETTLE_S - since_us / SECOND_US))
                    await self.look()
                    self._assign()
        finally:
            if unit in self.queue:
                self.queue.remove(unit)
            self._poke()
        if unit.id in self._turned_away:
            raise self._turned_away.pop(unit.id)
        return self.places.get(unit.id)

    async def look(self) -> None:
        """Look at the devices, if there are any to give."""
        if self.devices is not None:
            self.seen = await self.devices.look()

    def house(self, now_us: int) -> House:
        """Return the devices as of the last look, with everybody who takes up room."""
        foreign = {device.id: foreign_bytes(device, self.given(device)) for device in self.seen}
        tenants = [
            self._tenant(each, self._place_of(each), now_us)
            for each in self.units.values()
            if self._occupies(each)
        ]
        return House(self.seen, foreign=foreign, tenants=tenants, host_bytes=self.total_bytes)

    def _place_of(self, unit: Unit) -> Place:
        """Return a replica's place: that of its engine, or the one it was let in to."""
        running = unit.running.place if unit.running is not None else None
        return running or self.places.get(unit.id) or Place()

    def given(self, device: DeviceState) -> dict[ReplicaId, int]:
        """Return what each replica with a place has been given of a device."""
        places = {each.id: self._place_of(each) for each in self.units.values() if self._occupies(each)}
        return {
            each: taken_by(place, [device])[device.id]
            for each, place in places.items()
            if device.id in place.devices
        }

    def _tenant(self, unit: Unit, place: Place, now_us: int) -> Resident:
        return resident_of(
            unit,
            self.claims[unit.model],
            place,
            self.seen,
            asleep=sleeps(unit) and not self._is_in(unit),
            kept=self.kept.get(unit.id, {}),
            now_us=now_us,
        )

    def _line_up(self, unit: Unit) -> None:
        rank = self.claims[unit.model].priority
        ahead = [other for other in self.queue if self.claims[other.model].priority >= rank]
        self.queue.insert(len(ahead), unit)

    def _occupies(self, unit: Unit) -> bool:
        """Whether the unit's replica takes up room now: asleep, it may still take some of its devices."""
        replica = unit.replica
        asleep = self.devices is not None and sleeps(unit)
        if replica.state is State.WAKING:
            return asleep or self._is_in(unit)
        if replica.state is State.PARKING:
            return asleep or replica.park_from is None
        return asleep or replica.state is not State.PARKED

    def _is_in(self, unit: Unit) -> bool:
        """Whether the wake under way has its place, though the driver may not have begun."""
        replica = unit.replica
        return replica.state is State.WAKING and self.let_in.get(unit.id) == replica.generation

    def _assign(self) -> None:
        """Let in, in order, whoever fits; park idle replicas for those who do not."""
        now_us = self._assigned_us = self.clock.now_us()
        house = self.house(now_us)
        waiting = False
        for unit in list(self.queue):
            if unit not in self.queue:
                continue  # an earlier one needed what it kept asleep
            wanted = self._wanted(unit)
            house.drop(unit.id)  # what it keeps asleep is part of what it needs
            place = find_place(wanted, house)
            if place is not None:
                self.queue.remove(unit)
                self.let_in[unit.id] = unit.replica.generation
                if self.devices is not None:
                    self.places[unit.id] = place
                    on = [device for device in self.seen if device.id in place.devices]
                    self.unnamed[unit.id] = {one.id: unnamed_bytes(one, self.given(one)) for one in on}
            else:
                # Of host memory only the first in line has others parked: what they free is its own.
                going = make_way(wanted, house, now_us=now_us) if wanted.need.any or not waiting else []
                for victim in going:
                    self._evict(victim.replica, unit, deep=victim.deep)
                why = None if going else self._hopeless(unit, wanted, house, now_us)
                if why is not None:
                    self._turn_away(unit, why)
                    continue
                waiting = True
                place = goal(wanted, house) or Place()
            house.add(newcomer(wanted, place, self.seen))
        self._poke(dealt_with=True)

    def _wanted(self, unit: Unit) -> Wanted:
        claim, wake = self.claims[unit.model], unit.replica.wake
        resumes = unit.parked is not None and wake is not None and wake.from_tier is not Tier.COLD
        place = unit.parked.place if unit.parked is not None and resumes else None
        return Wanted(
            replica=unit.id,
            model=unit.model,
            need=claim.devices,
            host_bytes=claim.memory_bytes,
            priority=claim.priority,
            bound=place.devices if place is not None else (),
        )

    def _evict(self, replica: ReplicaId, unit: Unit, *, deep: bool) -> None:
        victim = next(each for each in self.units.values() if each.id == replica)
        why = f"evicted for {unit.model}"
        if victim.replica.state is State.WAKING:  # it sleeps, and waits behind `unit`
            self._turn_away(victim, SnapshotRefused(f"what it kept of its devices was needed: {why}"))
            return
        deeper = next(each for each in victim.replica.settings.park.ladder if each is not Tier.ASLEEP)
        assert self.park is not None
        self.park(victim, ParkAsked(tier=deeper if deep or sleeps(victim) else None, why=why))

    def _turn_away(self, unit: Unit, why: Exception) -> None:
        if unit in self.queue:
            self.queue.remove(unit)
            self._turned_away[unit.id] = why

    def _hopeless(self, unit: Unit, wanted: Wanted, house: House, now_us: int) -> Exception | None:
        """Return why a replica for which nobody can be parked waits no longer, None if it does."""
        unbound = wanted.anywhere()
        why = never_fits(unbound, self.seen, self.total_bytes)
        if why:
            trouble = self.devices.trouble if self.devices is not None else ""
            return _no_place(
                f"{unit.model} {why}" + (f" ({trouble})" if trouble else ""), "see docs/devices.md"
            )
        wake = unit.replica.wake
        if wake is None:
            return None
        if find_place(wanted, house.when_left()) is not None:
            return None
        budget_us = unit.replica.settings.wake.budget_us
        gives_up = now_us >= wake.asked_us + max(budget_us - ANSWER_US, budget_us // 2)
        if wanted.bound:
            cold_us = unit.replica.expected_wake_us(Tier.COLD) or UNKNOWN_WAKE_US
            lost = never_fits(wanted, self.seen)
            # Waiting may take as long as the start it saves would: never more than twice the best.
            waited = gives_up or now_us - wake.began_us >= cold_us
            if lost or (waited and find_place(unbound, house) is not None):
                return SnapshotRefused(
                    f"it is bound to {', '.join(wanted.bound)}, which {lost or 'is taken'}"
                )
        if gives_up and find_place(unbound, house.without_others()) is not None:
            return _no_place(
                f"{unit.model} {short_of(unbound, house)}", "end the program, or give it other devices"
            )
        return None

    def _next_change(self) -> "asyncio.Future[None]":
        """Return what resolves when some unit changes, somebody is let in, or `RECHECK_S` is over."""
        if self._change is None or self._change.done():
            loop = asyncio.get_running_loop()
            change = self._change = loop.create_future()
            timer = loop.call_later(RECHECK_S, self._poke)
            units = list(self.units.values())
            for each in units:
                each.waiters[change] = None

            def over(_: object) -> None:
                timer.cancel()
                for each in units:
                    each.waiters.pop(change, None)

            change.add_done_callback(over)
        return self._change

    def _poke(self, *, dealt_with: bool = False) -> None:
        """Have all who wait look again; `dealt_with`: only at whether they have been let in.

        What an eviction changes at once has been dealt with too: one that is refused must not be tried again
        and again at the same instant.
        """
        if self._change is None:
            return
        if dealt_with:
            self._dealt_with = self._change
        if not self._change.done():
            self._change.set_result(None)


def _no_place(why: str, hint: str) -> PoorwillError:
    return PoorwillError(ErrorCode.NO_CAPACITY, why, hint=hint, retry_after_s=60)
