"""What can happen to a replica: the inputs of `core.machine.step`. Reports carry the generation they belong
to; a report of another generation is stale and changes nothing."""

from dataclasses import dataclass
from typing import ClassVar

from poorwill.core.entries import PhaseSpan
from poorwill.core.errors import ErrorCode
from poorwill.core.launch import PhaseMark
from poorwill.core.machine.lifecycle import Kind
from poorwill.core.machine.replica import Blocked
from poorwill.core.words import HoldId, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A request found no lease to claim and wants to be held."""

    kind: ClassVar[Kind] = Kind.DEMAND
    generation: ClassVar[None] = None
    hold: HoldId
    size_bytes: int
    asked_by: str
    request: str
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """The client of a held request left."""

    kind: ClassVar[Kind] = Kind.WITHDRAWN
    generation: ClassVar[None] = None
    hold: HoldId


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A lease came back while others wait for it or the replica drains."""

    kind: ClassVar[Kind] = Kind.RETURNED
    generation: ClassVar[None] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The instant that `next_wakeup_us` named has come."""

    kind: ClassVar[Kind] = Kind.TICK
    generation: ClassVar[None] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBegan:
    """A phase of the wake under way began."""

    kind: ClassVar[Kind] = Kind.PHASE_BEGAN
    generation: int
    mark: PhaseMark


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeSucceeded:
    """The replica's engine is ready and verified."""

    kind: ClassVar[Kind] = Kind.WAKE_SUCCEEDED
    generation: int
    anatomy: tuple[PhaseSpan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeFailed:
    """The wake failed; nothing of it is left running.

    `kept`: it did not touch the replica, which is parked as before (no room for it, say).
    """

    kind: ClassVar[Kind] = Kind.WAKE_FAILED
    generation: int
    why: str
    code: ErrorCode = ErrorCode.WAKE_FAILED
    kept: bool = False
    anatomy: tuple[PhaseSpan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkSucceeded:
    """The replica is durably parked."""

    kind: ClassVar[Kind] = Kind.PARK_SUCCEEDED
    generation: int
    image_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkFailed:
    """The park failed; `unharmed`: the replica is as it was before; `unobserved`: its host is silent."""

    kind: ClassVar[Kind] = Kind.PARK_FAILED
    generation: int
    why: str
    unharmed: bool
    unobserved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLost:
    """The engine's process ended by itself; or its host fell silent: `unobserved` until it is seen again."""

    kind: ClassVar[Kind] = Kind.ENGINE_LOST
    generation: int
    why: str
    unobserved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLost:
    """The image that the parked replica would be woken from is gone."""

    kind: ClassVar[Kind] = Kind.IMAGE_LOST
    generation: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAsked:
    """An operator or a program asks for the replica to be ready."""

    kind: ClassVar[Kind] = Kind.WAKE_ASKED
    generation: ClassVar[None] = None
    asked_by: str = "operator"
    why: str = "operator"
    demand: bool = False
    """Whether a request that a hosted API serves meanwhile caused it. If so, it respects the back-off after a
    failed wake, and follows a park under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkAsked:
    """An operator, or an eviction, asks for the replica to be parked; to the ladder's first tier if None."""

    kind: ClassVar[Kind] = Kind.PARK_ASKED
    generation: ClassVar[None] = None
    tier: Tier | None = None
    why: str = "operator"
    firm: bool = False
    """No demand and no floor keeps it ready: requests that come meanwhile wait for the next wake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendChanged:
    """The spend breaker's verdict on a replica; None: nothing is forbidden."""

    kind: ClassVar[Kind] = Kind.SPEND_CHANGED
    generation: ClassVar[None] = None
    blocked: Blocked | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """poorwill shuts down: serve nobody new, then `park`, `leave` or `stop` the replica."""

    kind: ClassVar[Kind] = Kind.CLOSE
    generation: ClassVar[None] = None
    action: str
    drain_us: int | None = None
    """How long requests in flight may take at most, if that is less than the replica's own drain."""
    why: str = "poorwill is shutting down"


Input = (
    Demand
    | Withdrawn
    | Returned
    | Tick
    | PhaseBegan
    | WakeSucceeded
    | WakeFailed
    | ParkSucceeded
    | ParkFailed
    | EngineLost
    | ImageLost
    | WakeAsked
    | ParkAsked
    | SpendChanged
    | Close
)
