"""The replicas of one model as a pure object: which of them a request goes to, and when one more is woken.

As few are busy as will do: a request goes to the busy replica that is fullest and has room, else to the ready
idle one that was emptied last. If none has room it is held, and whoever is free first serves the oldest.
Another replica is woken for it unless a place is expected to be free sooner, or enough are waking already.
"""

from collections.abc import Callable, Sequence

from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import ChangeCause, Effect
from poorwill.core.machine.inputs import Input, WakeAsked
from poorwill.core.machine.lifecycle import Kind, State
from poorwill.core.machine.replica import Replica
from poorwill.core.policy import FloorSchedule, Policy
from poorwill.core.settings import ReplicaSettings
from poorwill.core.words import TIER_DEPTH, ReplicaId

UNLIMITED = 2**31
REMEMBERED_SERVICES = 256
"""From so many completed requests on, earlier ones count half."""


class ServiceTimes:
    """How long requests take, by Little's law: requests in flight, added up over time, for each completed."""

    __slots__ = ("_area_us", "_at_us", "_ended", "in_flight")

    def __init__(self) -> None:
        self.in_flight = self._area_us = self._at_us = self._ended = 0

    def change(self, in_flight: int, now_us: int) -> None:
        """Take the number of requests in flight from now on."""
        self._area_us += self.in_flight * (now_us - self._at_us)
        self._at_us = now_us
        ended, self.in_flight = self.in_flight - in_flight, in_flight
        if ended > 0:
            self._ended += ended
            if self._ended >= REMEMBERED_SERVICES:
                self._ended, self._area_us = self._ended // 2, self._area_us // 2

    def late_from_us(self, places: int, within_us: int) -> int | None:
        """Return from when on so many places are expected to take longer, as requests outlast what is known.

        None if nothing is known or nothing in flight."""
        if not (self._ended and self.in_flight):
            return None
        area_us = -(-within_us * self._ended * self.in_flight // places)
        return self._at_us + max(-(-(area_us - self._area_us) // self.in_flight), 0)


class Replicas:
    """The cells of one model, which share its hold queue. Not thread-safe; never awaits."""

    __slots__ = (
        *("_holders", "_levels", "_limit", "_lone", "_moved", "_slack", "cells", "look_us", "queue"),
        "services",
    )

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = tuple(cells)
        self.queue = cells[0].queue
        self._lone = cells[0] if len(cells) == 1 else None
        self._heed(cells[0].replica.settings)
        self._levels = [cell.level for cell in cells]
        self._holders = list(cells)
        """Who has each level: the busy replicas the lowest ones, then who was emptied last."""
        self._moved: list[Cell] = []
        self.services = ServiceTimes()
        self.look_us: int | None = None
        """When `short` must be asked again, whatever happens until then."""

    # the warm path

    def claim(
        self, now_us: int, last: Callable[[], ReplicaId | None] | None = None
    ) -> tuple[Cell, Sequence[ChangeCause]] | None:
        """Take a lease, see `Activator.claim`; return the cell that grants it, None if there is none now."""
        cell = self._lone
        if cell is None:
            kept = last() if last is not None and self._slack is not None else None
            cell = None if self.queue.holds else self._with_room(kept) or self._beyond_target(now_us)
            if cell is None:
                return None
            if not cell.busy:
                self._go_to_level(cell)
            self.services.change(self.services.in_flight + 1, now_us)
        effects = cell.claim(now_us)
        return None if effects is None else (cell, effects)

    def _with_room(self, kept: ReplicaId | None = None) -> Cell | None:
        """Return the fullest with room, else the idle one emptied last; of busy ones as full, `kept`."""
        chosen, most, same = None, 0, None
        for cell in self._holders:  # the busy ones come first
            count = cell.in_flight
            if cell.open and count < self._limit:
                if chosen is None or count > most:
                    chosen, most = cell, count
                same = cell if count and cell.id == kept else same
            if chosen is not None and not cell.busy:
                break
        return same if same and same.in_flight >= most - (self._slack or 0) else chosen

    def _beyond_target(self, now_us: int) -> Cell | None:
        """Return who takes a request more than it should have, as no other can be woken for it."""
        if self._limit == (self.cells[0].replica.settings.max_concurrency or UNLIMITED):
            return None
        cell = min((cell for cell in self.cells if cell.open), key=lambda each: each.in_flight, default=None)
        return None if cell is None or self._back(cell, now_us) else cell

    def _back(self, cell: Cell, now_us: int) -> bool:
        """Tell a cell what the others are to those who wait; return whether one could take more of them."""
        there = [other for other in self.cells if other is not cell and _is_there(other, now_us)]
        helped = any(not other.open or other.in_flight < self._limit for other in there)
        cell.back(backed=bool(there), helped=helped)
        return helped

    def give_back(self, cell: Cell, generation: int, now_us: int) -> Sequence[Effect]:
        """Return a lease of a cell, as `Cell.give_back`."""
        if self._lone is not None:
            return cell.give_back(generation, now_us)
        if cell.in_flight <= 1:
            self._go_to_level(cell)
        waited, before = bool(self.queue.holds), cell.in_flight
        if waited:
            self._back(cell, now_us)
        effects = cell.give_back(generation, now_us)
        if waited:
            self._settle(now_us, waited=True)
        else:
            self.services.change(self.services.in_flight + cell.in_flight - before, now_us)
        return effects

    # everything else

    def feed(self, cell: Cell, what: Input, now_us: int) -> Sequence[Effect]:
        """Give a cell an input; `short` then says whether another must be woken as well."""
        if self._lone is not None:
            return cell.feed(what, now_us)
        if what.kind is Kind.DEMAND or (cell.busy and what.kind is not Kind.PHASE_BEGAN):
            self._go_to_level(cell)  # a phase makes nobody busy or idle
        waited = bool(self.queue.holds)
        self._back(cell, now_us)
        effects = cell.feed(what, now_us)
        if cell.in_flight and not cell.busy:  # it serves those who came to others
            self._go_to_level(cell)
            cell.wanted(now_us)
        if cell.replica.failures and not (cell.busy or cell.open):
            self._step_back(cell)
        self._settle(now_us, waited=waited)
        return effects

    def taker(self, now_us: int) -> Cell:
        """Return who takes the Demand of a request that found no lease: a replica that must be woken for it,
        else one that wakes, serves or parks, else one that refuses.
        """
        order = (State.WAKING, State.READY, State.DRAINING, State.PARKING, State.PARKED)
        woken = self._lone or self._to_wake(len(self.queue.holds) + 1, now_us)
        return woken or min(
            self._holders,
            key=lambda cell: (
                not _is_there(cell, now_us),
                order.index(cell.replica.state),
                cell.replica.retry_at_us,
            ),
        )

    def short(self, now_us: int) -> tuple[Cell, Input] | None:
        """Return a replica that must be woken as well for those who wait, and the input that does it."""
        self.look_us = None
        holds = () if self._lone else self.queue.holds
        cell = self._to_wake(len(holds), now_us) if holds else None
        if cell is None:
            return None
        return cell, WakeAsked(asked_by=holds[0].asked_by, why="demand", demand=True)

    def configure(self, settings: ReplicaSettings, levels: Sequence[tuple[Policy, FloorSchedule]]) -> None:
        """Take on other settings, and another policy and floor for each level. Feed `Returned` afterwards."""
        self._heed(settings)
        for level, (policy, floor) in zip(self._levels, levels, strict=True):
            level.heed(policy, floor)
        for cell in self.cells:
            cell.configure(settings)

    def _heed(self, settings: ReplicaSettings) -> None:
        self._limit = settings.limit(helped=True) or UNLIMITED
        self._slack = settings.affinity_slack if settings.prefix_affinity else None

    def take_moved(self) -> Sequence[Cell]:
        """Return the idle replicas whose level has changed: when their next Tick is due may have, too."""
        moved, self._moved = dict.fromkeys(self._moved), []
        return tuple(moved)

    def bridge(self, asked_by: str, now_us: int) -> tuple[Cell, Sequence[Effect]] | None:
        """Register the demand of a request that a hosted API serves, as `Cell.bridge`."""
        if not self.may_bridge:
            return None
        cell = next((cell for cell in self.cells if _wakes(cell)), None) or self.taker(now_us)
        self._go_to_level(cell)
        effects = cell.bridge(asked_by, now_us)
        return None if effects is None else (cell, effects)

    def bridge_over(self, cell: Cell, now_us: int) -> None:
        """A request that a hosted API served has ended."""
        self._go_to_level(cell)
        cell.bridge_over(now_us)

    @property
    def may_bridge(self) -> bool:
        """Whether a hosted API may serve a request in the replicas' place now: none is ready."""
        ready = any(cell.replica.state in (State.READY, State.DRAINING) for cell in self.cells)
        return not ready and any(cell.may_bridge for cell in self.cells)

    def soonest(self, now_us: int) -> Replica:
        """Return the replica that can serve first, as far as is known."""
        return min((cell.replica for cell in self.cells), key=lambda replica: replica.retry_after_s(now_us))

    def waking(self, otherwise: Cell) -> Replica:
        """Return a replica that wakes, this one if it does or none does."""
        return next((cell.replica for cell in (otherwise, *self.cells) if _wakes(cell)), otherwise.replica)

    # the rule

    def _to_wake(self, waiting: int, now_us: int) -> Cell | None:
        """Return who must be woken if so many wait: one for as many as a replica takes at once.

        A place is waited for while it is expected to be free before the wake would end, but at most as long
        as that wake takes: then it begins after all. So nobody waits more than twice as long as with a wake
        at once: the bound of ski rental.
        """
        coming = sum(self._limit for cell in self.cells if _wakes(cell))
        able = [cell for cell in self._holders if _could_wake(cell.replica, now_us)]
        if waiting <= coming:
            return None
        if not able:  # one that failed may be tried again then
            again = (cell.replica.retry_at_us for cell in self.cells if cell.replica.state is State.PARKED)
            self.look_us = min((at_us for at_us in again if at_us > now_us), default=None)
            return None
        cell = min(able, key=lambda each: _depth(each.replica))  # of several, who was emptied last
        wake_us = cell.replica.expected_wake_us(cell.replica.tier)
        late_us = None if wake_us is None else self.services.late_from_us(waiting - coming, wake_us)
        if cell.replica.state is State.DRAINING or wake_us is None or late_us is None:
            return cell
        oldest_us = min((hold.arrived_us for hold in self.queue.holds[coming:]), default=now_us)
        until_us = min(late_us, oldest_us + wake_us)
        self.look_us = until_us if until_us > now_us else None
        return None if self.look_us else cell

    # levels

    def _go_to_level(self, cell: Cell) -> None:
        """Let a cell that becomes busy or idle have the level that this is about."""
        at = 0
        for other in self._holders:
            if not other.busy:
                break
            at += 1
        self._swap(cell, at - 1 if cell.busy else at)

    def _step_back(self, cell: Cell) -> None:
        """Let one that just failed have the last idle level, so that another one keeps the floor."""
        idle = [each for each in self._holders if not each.busy and not each.replica.failures]
        ready = [each for each in idle if each.open]
        at = max(map(self._holders.index, ready or idle), default=0)
        if at > self._holders.index(cell):
            self._swap(cell, at)
            self._moved.append(cell)

    def _swap(self, cell: Cell, at: int) -> None:
        other = self._holders[at]
        if other is cell:
            return
        was = self._holders.index(cell)
        self._holders[at], self._holders[was] = cell, other
        cell.take(self._levels[at])
        other.take(self._levels[was])
        if not other.in_flight:
            self._moved.append(other)

    def _settle(self, now_us: int, *, waited: bool) -> None:
        """Keep what the cells have in common: the budget of those who wait, and who is busy for them.

        The budget bounds a wake that somebody waits for; it does not run while a replica serves.
        """
        queue = self.queue
        self.services.change(sum(cell.in_flight for cell in self.cells), now_us)
        if not queue.holds or any(cell.open for cell in self.cells):
            queue.budget_ends_us = None
        elif queue.budget_ends_us is None:
            queue.budget_ends_us = now_us + self.cells[0].replica.settings.wake.budget_us
        if waited and not queue.holds:
            for cell in self.cells:
                if cell.busy and not cell.in_flight:
                    self._go_to_level(cell)
                    cell.relax(now_us)


def _wakes(cell: Cell) -> bool:
    wake = cell.replica.wake
    return wake is not None and not wake.aborting


def _could_wake(replica: Replica, now_us: int) -> bool:
    if replica.closing or replica.must_stop:
        return False
    parked = replica.state is State.PARKED and not replica.blocked and now_us >= replica.retry_at_us
    return parked or (replica.state is State.DRAINING and not replica.drain_firm)


def _is_there(cell: Cell, now_us: int) -> bool:
    """Whether a replica serves those who wait, or could be woken for them."""
    replica = cell.replica
    going = replica.state in (State.PARKING, State.DRAINING) and not (replica.closing or replica.blocked)
    return cell.open or _wakes(cell) or going or _could_wake(replica, now_us)


def _depth(replica: Replica) -> int:
    return -1 if replica.state is State.DRAINING else TIER_DEPTH[replica.tier]
