"""Requests that wait for a replica: the hold queue of one model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from poorwill.core.settings import HoldSettings
from poorwill.core.words import HoldId


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A held request."""

    id: HoldId
    arrived_us: int
    size_bytes: int
    asked_by: str
    request: str
    priority: int = 0


def in_turn(holds: Sequence[Hold], hold: Hold) -> tuple[Hold, ...]:
    """Return the queue with one more request, in the order of service: one of each key in turn.

    The first requests of all keys come before their second ones, and so on; within a turn, and for one key
    alone, it is first come, first served. Keys of a higher priority have all their turns before the others.
    """
    queue = (*holds, hold)
    if all((held.asked_by, held.priority) == (hold.asked_by, hold.priority) for held in holds):
        return queue
    seen, turns = Counter[str](), []
    for held in queue:
        turns.append((-held.priority, seen[held.asked_by]))
        seen[held.asked_by] += 1
    return tuple(queue[at] for at in sorted(range(len(queue)), key=turns.__getitem__))


def displaced(holds: Sequence[Hold], hold: Hold, bounds: HoldSettings) -> Sequence[Hold]:
    """Return the requests that make room in a full queue for the request of a key that has less in it.

    They are the latest ones of a lower priority, then of the key that has the most, so no key can shut out
    the others. Empty if that makes no room, or would give this key the larger share.
    """
    over_bytes = sum(held.size_bytes for held in holds) + hold.size_bytes - bounds.bytes
    shares = Counter[str]({hold.asked_by: hold.size_bytes if over_bytes > 0 else 1})
    for held in holds:
        shares[held.asked_by] += held.size_bytes if over_bytes > 0 else 1
    biggest, share = shares.most_common(1)[0]
    chosen: list[Hold] = []
    over_count = len(holds) + 1 - bounds.count
    for held in sorted(holds, key=lambda held: (held.priority, -held.id)):
        if (over_bytes <= 0 and over_count <= 0) or held.priority > hold.priority:
            break
        crowds = held.asked_by == biggest and share > shares[hold.asked_by]
        if crowds or held.priority < hold.priority:
            chosen.append(held)
            over_count, over_bytes = over_count - 1, over_bytes - held.size_bytes
    return chosen if over_bytes <= 0 and over_count <= 0 else ()


@dataclass(slots=True, eq=False)
class HoldQueue:
    """The held requests of one model, in the order of service. The cells of its replicas share one queue.

    A cell puts the queue into its replica before a step and takes it back afterwards, so a step sees whoever
    waits, whichever cell they came to.
    """

    holds: tuple[Hold, ...] = ()
    budget_ends_us: int | None = None
    """When the wake budget of those who wait elapses. None if nobody waits, or the replica is ready."""
