"""Which idle replicas give way to one that is wanted, within one memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from poorwill.core.words import SECOND_US, ReplicaId

MIN_RESIDENCE_US = 10 * SECOND_US
"""A replica that has just become ready is not evicted again at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A replica that takes up room."""

    replica: ReplicaId
    bytes: int
    priority: int
    busy: bool
    """Requests in flight or waiting, or not in a state to be parked."""
    leaving: bool
    """Draining or parking: its memory comes free by itself."""
    ready_since_us: int
    idle_since_us: int
    wake_us: int = 0
    """What waking it again is expected to take, from the tier that it is evicted to."""
    wanted_soon: float = 1.0
    """How likely it is wanted before its own policy would park it anyway; see `likelihood`."""

    @property
    def cost(self) -> float:
        """Return what evicting it is expected to cost: seconds of waiting."""
        return self.wake_us * self.wanted_soon / SECOND_US

    @property
    def value(self) -> float:
        """Return what evicting it is expected to cost, for each byte it frees."""
        return self.cost / max(1, self.bytes)


def likelihood(gaps_us: Sequence[int], *, idle_us: int, within_us: int | None) -> float:
    """Return how likely a replica idle for `idle_us` is wanted within the next `within_us` (None: ever).

    The share of its past idle stretches that ended in that time, among those that lasted as long as this one
    has by now. Counted with one more of either kind (Laplace's rule of succession), so that a replica without
    a history gets one half and none gets zero or one.
    """
    outlasted = [gap for gap in gaps_us if gap > idle_us]
    ended = [gap for gap in outlasted if within_us is None or gap <= idle_us + within_us]
    return (len(ended) + 1) / (len(outlasted) + 2)


def choose_victims(
    occupants: Sequence[Occupant], *, need: int, total: int, priority: int, now_us: int
) -> list[ReplicaId]:
    """Return the replicas to park so that `need` bytes fit into `total`, empty if none can help now.

    Never a busy one, never one of higher priority, never one ready for less than MIN_RESIDENCE_US. Lowest
    priority first, then the least `value`, then the longest idle; all that is chosen is needed. What is
    leaving counts as gone.
    """
    staying = [occupant for occupant in occupants if not occupant.leaving]
    missing = sum(occupant.bytes for occupant in staying) + need - total
    candidates = [each for each in staying if each.bytes and may_go(each, priority, now_us)]
    freed = {each.replica: each.bytes for each in candidates}
    if missing <= 0 or sum(freed.values()) < missing:
        return []
    return fewest(by_worth(candidates, freed), freed, missing)


def may_go(occupant: Occupant, priority: int, now_us: int) -> bool:
    """Return whether an occupant may be parked for a replica of this priority."""
    settled = now_us - occupant.ready_since_us >= MIN_RESIDENCE_US
    return settled and not occupant.busy and occupant.priority <= priority


def by_worth(occupants: Iterable[Occupant], freed: Mapping[ReplicaId, int]) -> list[Occupant]:
    """Return occupants in the order they go: by priority, worth for each byte freed, idle time."""
    return sorted(
        occupants,
        key=lambda each: (each.priority, each.cost / freed[each.replica], each.idle_since_us, each.replica),
    )


def fewest(order: Sequence[Occupant], freed: Mapping[ReplicaId, int], missing: int) -> list[ReplicaId]:
    """Return those to go, in this order, of whom none is superfluous. All together must free enough."""
    victims: list[ReplicaId] = []
    for each in order:
        if missing <= 0:
            break
        victims.append(each.replica)
        missing -= freed[each.replica]
    # A large late victim may make others superfluous: spare them, the most valuable first.
    for victim in reversed(list(victims)):
        if freed[victim] <= -missing:
            victims.remove(victim)
            missing += freed[victim]
    return victims
