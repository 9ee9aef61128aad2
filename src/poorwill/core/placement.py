"""Which idle replicas give way to one that is wanted: pure, busy-safe, without thrash."""

from collections.abc import Sequence
from dataclasses import dataclass

from poorwill.core.words import SECOND_US, ModelName

MIN_RESIDENCE_US = 10 * SECOND_US
"""A replica that has just become ready is not evicted again at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A replica that takes up room."""

    model: ModelName
    bytes: int
    priority: int
    busy: bool
    """Requests in flight or waiting, or not in a state to be parked."""
    leaving: bool
    """On its way out: its room comes free by itself."""
    ready_since_us: int
    idle_since_us: int


def choose_victims(
    occupants: Sequence[Occupant], *, need: int, total: int, priority: int, now_us: int
) -> list[ModelName]:
    """Return the replicas to park so that `need` bytes fit into `total`, empty where none can help now.

    Never a busy one, never one of higher priority, never one ready for less than MIN_RESIDENCE_US. Lowest
    priority first, then the longest idle; all that is chosen is needed. What is leaving counts as gone.
    """
    staying = [occupant for occupant in occupants if not occupant.leaving]
    missing = sum(occupant.bytes for occupant in staying) + need - total
    candidates = sorted(
        (
            occupant
            for occupant in staying
            if occupant.bytes
            and not occupant.busy
            and occupant.priority <= priority
            and now_us - occupant.ready_since_us >= MIN_RESIDENCE_US
        ),
        key=lambda occupant: (occupant.priority, occupant.idle_since_us, occupant.model),
    )
    if missing <= 0 or sum(candidate.bytes for candidate in candidates) < missing:
        return []
    victims: list[Occupant] = []
    for candidate in candidates:
        if missing <= 0:
            break
        victims.append(candidate)
        missing -= candidate.bytes
    # A large late victim may make small early ones superfluous: keep only what is needed.
    for victim in list(victims):
        if victim.bytes <= -missing:
            victims.remove(victim)
            missing += victim.bytes
    return [victim.model for victim in victims]
