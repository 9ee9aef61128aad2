"""What operators may see of the fleet and ask of it.

Cancellation: every `async` method may be cancelled at each of its awaits and then leaves nothing half done
that its own docstring does not name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from poorwill.core.entries import Entry
from poorwill.core.spend import LimitState
from poorwill.core.words import ModelName, Phase, ReplicaId, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeInterval:
    """The published wake interval: of real wakes, in seconds."""

    count: int
    p50_s: float | None
    p95_s: float | None
    max_s: float | None
    budget_s: float
    over_budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica as `/status` and `poorwill status` show it."""

    model: ModelName
    replica: ReplicaId
    state: str
    tier: Tier | None
    cause: str
    since_us: int
    in_flight: int
    held: int
    wake: WakeInterval
    phase: Phase | None = None
    ready_in_us: int | None = None
    """While it wakes: when it should be ready, from now; None if nobody can tell."""
    ladder: tuple[Tier, ...] = ()
    parks_at_us: int | None = None
    failures: int = 0
    retry_at_us: int | None = None
    last_error: str = ""
    last_error_us: int = 0
    """When that was; 0 if nothing went wrong."""
    pid: int | None = None
    port: int | None = None
    policy: str = ""
    why: str = ""
    """Why it is ready."""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Which configuration is in force, and what is wrong with the one that was to follow it."""

    since_us: int = 0
    changes: tuple[str, ...] = ()
    """What the last reload changed, for people."""
    needs_restart: tuple[str, ...] = ()
    """Keys whose new value has to wait for a restart."""
    refused_us: int | None = None
    """When the file was last read and refused; None if it was taken."""
    problems: tuple[str, ...] = ()
    """Why it was refused."""


class FleetView(Protocol):
    """What the admin listener may see of the fleet and ask of it."""

    def status(self) -> Sequence[ReplicaStatus]:
        """Return every replica's status."""
        ...

    async def devices(self) -> Sequence[Mapping[str, object]]:
        """Return the devices as `/status` shows them."""
        ...

    def models(self) -> Sequence[ModelName]:
        """Return the configured models, in the configuration's order."""
        ...

    def limits(self) -> Sequence[LimitState]:
        """Return how the spend limits stand."""
        ...

    async def lift(self, limit: str, by: str) -> LimitState:
        """Lift a spend limit, by its key in the configuration, until its window ends; `by` is recorded.

        Raises RequestFault if there is no such limit, OperatorFault if the ledger cannot be written.
        Cancelled: it may be lifted or not; the ledger knows.
        """
        ...

    def configuration(self) -> Configuration:
        """Return which configuration is in force."""
        ...

    async def reload(self) -> Configuration:
        """Read the configuration again and follow it. Raises PoorwillError if it is faulty; nothing changes.

        Cancelled: the reload goes on.
        """
        ...

    async def wake(self, name: str) -> None:
        """Wake a replica, or one of a model if none is ready, as an operator and wait until it is ready.

        Raises PoorwillError.
        """
        ...

    async def park(self, name: str, tier: Tier | None) -> None:
        """Drain and park a replica, or all of a model, as an operator and wait until that is done.

        Raises PoorwillError.
        """
        ...

    def events(self) -> "EventFeed":
        """Subscribe to what happens from now on."""
        ...


class EventFeed(Protocol):
    """A bounded feed of entries; a reader that falls behind loses the oldest and is told how many."""

    def __aiter__(self) -> "EventFeed":
        """Return itself."""
        ...

    async def __anext__(self) -> Entry | int:
        """Return the next entry, or the number of entries lost before the next one."""
        ...

    def rest(self) -> Sequence[Entry]:
        """Return what there is besides, without waiting."""
        ...

    def close(self) -> None:
        """Stop the feed."""
        ...
