"""What `core.machine.step` wants done: commands as data, carried out by `fleet`, compared by tests."""

from dataclasses import dataclass

from poorwill.core.entries import Entry
from poorwill.core.errors import ErrorCode
from poorwill.core.words import Cause, HoldId, Tier, WakeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Give the held request its lease; it counts as in flight from now."""

    hold: HoldId


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """End the hold with an error."""

    hold: HoldId
    code: ErrorCode
    message: str
    retry_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWake:
    """Wake the replica from a tier. From `cold` whatever else is kept of it is discarded first.

    Answered by WakeSucceeded or WakeFailed of the same generation, always.
    """

    wake: WakeId
    generation: int
    from_tier: Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortWake:
    """Tear down the wake of this generation; answered by its WakeFailed."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPark:
    """Park a ready replica (`from_tier` None) or take a parked one deeper.

    Answered by ParkSucceeded or ParkFailed of the same generation, always.
    """

    generation: int
    from_tier: Tier | None
    to_tier: Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class CutLeases:
    """Abort the requests still in flight: their drain deadline has passed."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Write this down; before any wake or park of the same step is carried out."""

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCause:
    """Record that a ready replica has become busy or idle without a step (`Cell.open_span` has the entry).

    Carries the cause alone: the warm path returns one for every busy period, and the planner needs no more.
    """

    cause: Cause


Effect = Grant | Fail | StartWake | AbortWake | StartPark | CutLeases | Record | ChangeCause
