"""When an idle replica is parked, how deep, and when it is woken ahead of demand.

A policy is asked when a replica falls idle and answers with a plan for the idle stretch. It learns only
from finished gaps, through `observe`; it never sees the future. The same objects run in `serve` and in
`plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from poorwill.core.words import Tier


@dataclass(frozen=True, slots=True)
class Rung:
    """Be in `tier` from `at_us` on, if still idle."""

    tier: Tier
    at_us: int


@dataclass(frozen=True, slots=True)
class Descent:
    """The plan for one idle stretch. Empty rungs: stay ready until demand comes."""

    rungs: tuple[Rung, ...]
    wake_at_us: int | None = None
    """Wake ahead of predicted demand at this instant, if parked by then; once in a stretch. The stretch goes
    on: rungs after this instant say when to park again if the demand does not come. If there are none, the
    plan for a stretch that begins at that readiness applies."""
    why: str = ""
    """For the ledger: `fixed 5m`, `break-even 3m 34s`, `adaptive: night, 40 s`."""


class Policy(Protocol):
    """A parking policy for one replica."""

    @property
    def name(self) -> str:
        """The policy's name, as in `fleet.toml` and `plan`."""
        ...

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        """Learn that an idle stretch ended with demand. Called once for each, in order.

        `others` is how many requests came in the work before the stretch beside the first one and those
        that a wake held; 0 if that is not known.
        """
        ...

    def descent(self, idle_since_us: int) -> Descent:
        """Return the plan for the stretch that began at `idle_since_us`.

        A pure function of what was observed so far and the argument; may be called repeatedly.
        """
        ...


@runtime_checkable
class LearnsFromWakes(Protocol):
    """A policy that also learns how long its wakes made requests wait. Optional."""

    def woke(self, waits_us: Sequence[int]) -> None:
        """Learn that a wake ended after these requests had waited so long, the first of them first."""
        ...


@runtime_checkable
class LearnsFromTimes(Protocol):
    """A policy whose idle times follow from how long parks and wakes take. Optional."""

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> None:
        """Learn how long the last wakes from a tier took; called after each, with those before it."""
        ...

    def park_took(self, tier: Tier, took_us: int) -> None:
        """Learn how long a park into a tier took."""
        ...


@runtime_checkable
class LearnsFromMeter(Protocol):
    """A policy that also follows the provider's meter. Optional."""

    def metered(self, at_us: int, *, running: bool) -> None:
        """Learn at the start of a span whether the host is billed. May repeat what is known."""
        ...


@dataclass(frozen=True, slots=True)
class Floor:
    """Whether a replica must be ready at a given time, and until when that answer holds."""

    required: bool
    until_us: int | None
    name: str = ""


class FloorSchedule(Protocol):
    """The floor: the least number of ready replicas, always or on a schedule."""

    def at(self, now_us: int) -> Floor:
        """Return the floor at an instant. Pure."""
        ...


NOT_REQUIRED = Floor(required=False, until_us=None)


@dataclass(frozen=True, slots=True)
class NoFloor:
    """No floor: a replica may always park."""

    def at(self, now_us: int) -> Floor:
        """Return that nothing is required, ever."""
        return NOT_REQUIRED
