"""What the controller asks of a host's service, and what that answers: plain data, one line of JSON each."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct, field

from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.launch import Parked, PhaseMark, Running
from poorwill.core.ports.driver import DriverError, Found, NoCapacity, SnapshotRefused
from poorwill.core.settings import FleetSettings
from poorwill.core.words import ModelName, ReplicaId, Tier

SNAPSHOTS = "snapshots"
WEIGHTS = "weights"


class Op(StrEnum):
    """The calls: those of the ports `Driver`, `Engine` and `Processes` that need the host."""

    EQUIP = "equip"
    WAKE = "wake"
    PARK = "park"
    DESCEND = "descend"
    DISCARD = "discard"
    INVENTORY = "inventory"
    READY = "ready"
    PROBE = "probe"
    VITAL_SIGNS = "vital_signs"
    KILL = "kill"
    UNDO = "undo"


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call."""

    op: Op
    id: str = ""
    """Another one for each call; of `undo`: that of the call which is to be undone."""
    model: ModelName = ModelName("")
    replica: ReplicaId = ReplicaId("")
    generation: int = 0
    tier: Tier = Tier.COLD
    running: Running | None = None
    parked: Parked | None = None
    fleet: FleetSettings | None = None
    """For `equip`: the models that may run on this host, and how snapshots and engines are kept there."""


class HostOffer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a host can do for one model, each tier proven there by a trial."""

    tiers: tuple[Tier, ...]
    broken: dict[Tier, tuple[str, str]] = field(default_factory=dict)
    """Why a tier of its ladder does not work there, and what would fix it."""
    weights_bytes: int = 0
    """Of its files that lie there already."""
    fault: str = ""
    """Why the host cannot run the model at all."""


class CallAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a call; `error` if it failed."""

    error: str = ""
    kind: str = ""
    """The exception that the caller is to see."""
    running: Running | None = None
    parked: Parked | None = None
    found: tuple[Found, ...] = ()
    text: str | None = None
    offers: dict[ModelName, HostOffer] = field(default_factory=dict)
    beat: int = 0
    """The number of the last beat before the answer: later ones know of it."""


class Marked(Struct, frozen=True, kw_only=True):
    """A phase that began in a wake under way."""

    replica: ReplicaId
    generation: int
    mark: PhaseMark


class Disk(Struct, frozen=True, kw_only=True):
    """A file system of a host."""

    path: str
    holds: tuple[str, ...]
    """What is kept there: SNAPSHOTS, WEIGHTS."""
    free_bytes: int
    """What an ordinary user may still write."""
    total_bytes: int


class Beat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host's sign of life."""

    number: int
    now_us: int
    """By the host's clock."""
    session: int
    """Another one for each service that has run there."""
    engines: tuple[tuple[int, int], ...] = ()
    """The engines that live there, by pid and start time."""
    ended: dict[str, str] = field(default_factory=dict)
    """Why others have ended, by `pid:start time`."""
    marks: tuple[Marked, ...] = ()
    """The phases that began since the last beat."""
    disks: tuple[Disk, ...] = ()


_KINDS: Mapping[str, type[DriverError]] = {"refused": SnapshotRefused, "no capacity": NoCapacity}


def failed(error: Exception, *, running: Running | None = None) -> CallAnswer:
    """Return the answer to a call that raised."""
    kind = next((name for name, kind in _KINDS.items() if isinstance(error, kind)), "")
    if isinstance(error, PoorwillError) and error.code is ErrorCode.NO_CAPACITY:
        kind = "no capacity"
    return CallAnswer(error=str(error) or repr(error), kind=kind, running=running)


def checked(answer: CallAnswer, host: str) -> CallAnswer:
    """Return the answer to a call that succeeded. Raises DriverError as the host did."""
    if not answer.error:
        return answer
    kind = _KINDS.get(answer.kind)
    what = f"{host}: {answer.error}"
    raise DriverError(what, running=answer.running) if kind is None else kind(what)


def line(what: Struct) -> bytes:
    """Return one line of JSON."""
    return msgspec.json.encode(what) + b"\n"


def read_call(text: bytes) -> Call:
    """Read a call. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Call)


def read_answer(text: bytes) -> CallAnswer:
    """Read an answer. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=CallAnswer)


def read_beat(text: bytes) -> Beat:
    """Read a beat. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Beat)
