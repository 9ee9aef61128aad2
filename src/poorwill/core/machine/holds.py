"""Requests that wait for a replica: the hold queue of one model."""

from dataclasses import dataclass

from poorwill.core.words import HoldId


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A held request."""

    id: HoldId
    arrived_us: int
    size_bytes: int
    asked_by: str
    request: str


@dataclass(slots=True, eq=False)
class HoldQueue:
    """The held requests of one model, oldest first. The cells of its replicas share one queue.

    A cell puts the queue into its replica before a step and takes it back afterwards, so a step sees whoever
    waits, whichever cell they came to.
    """

    holds: tuple[Hold, ...] = ()
    budget_ends_us: int | None = None
    """When the wake budget of those who wait elapses. None if nobody waits, or the replica is ready."""
