"""Facts in the past tense: what the ledger records and what `/events` streams.

A span is recorded when it opens; the next one of the same replica closes it at the same instant, so spans
tile by construction. All instants are microseconds since the Unix epoch on poorwill's own clock, which
never runs backwards.
"""

from dataclasses import dataclass, field

from poorwill.core.tokens import NO_PARTS, TokenParts
from poorwill.core.words import Cause, ModelName, Phase, ReplicaId, Tier, WakeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaCreated:
    """A replica exists from now on; its first span opens at the same instant."""

    replica: ReplicaId
    model: ModelName
    driver: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaEnded:
    """A replica is gone for good; its open span closes."""

    replica: ReplicaId
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanOpened:
    """From `at_us` on the replica's time has this cause; the span before it ends here."""

    replica: ReplicaId
    at_us: int
    cause: Cause
    tier: Tier | None = None
    """The tier parked in, woken from or being parked to, if there is one."""
    wake: WakeId | None = None
    why: str = ""
    """Which policy lingers, which floor holds, who asked for the park."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpan:
    """One leaf of a wake's anatomy; the leaves of a wake tile it from start to end."""

    phase: Phase
    began_us: int
    ended_us: int
    bytes_read: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeBegan:
    """A wake (or a cold start) was decided; recorded before it is carried out."""

    wake: WakeId
    replica: ReplicaId
    model: ModelName
    generation: int
    at_us: int
    from_tier: Tier
    asked_by: str
    """A key's name, `operator`, `policy`, `floor`."""
    why: str
    """`demand`, `retry colder`, `predicted`, `floor`, `operator`."""
    budget_us: int | None
    """The wake budget that held requests have, None if nobody waits."""
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeEnded:
    """A wake succeeded or failed. `anatomy`, if given, replaces the wake's spans; its bounds are the
    wake's own. Of a failed wake every span gets the cause `failed_wake`."""

    wake: WakeId
    replica: ReplicaId
    at_us: int
    ok: bool
    why: str = ""
    anatomy: tuple[PhaseSpan, ...] = ()
    served: tuple[str, ...] = ()
    """Ids of the requests it woke for, to attribute its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkEnded:
    """A park succeeded or failed."""

    replica: ReplicaId
    at_us: int
    began_us: int
    to_tier: Tier
    ok: bool
    image_bytes: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlaced:
    """Where the replica is now, so that a restarted poorwill can find it: the JSON of a `Running` or a
    `Parked`, or empty if nothing exists but weights."""

    replica: ReplicaId
    at_us: int
    generation: int
    running_json: str = ""
    parked_json: str = ""


@dataclass(slots=True, kw_only=True)
class RequestEnded:
    """A request row: one request of a client, however it ended.

    Not frozen, as the only entry: a frozen one takes a microsecond longer to make. Nobody changes it.
    """

    request: str
    """The request id, as in `x-request-id`."""
    model: ModelName
    replica: ReplicaId | None
    key: str
    """The key's name; empty if no keys are configured."""
    path: str
    arrived_us: int
    leased_us: int | None
    """When it got its lease, or went over the bridge; arrival to lease is the time it was held."""
    first_byte_us: int | None
    ended_us: int
    status: int
    outcome: str
    """`ok`, or an error code."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    parts: TokenParts = NO_PARTS
    """What is special about some of its tokens."""
    counted: bool = False
    """Whether its tokens were counted as they passed, because no usage was reported."""
    wake: WakeId | None = None
    bridge_nusd: int = 0
    """What a hosted API is known to have been paid for it, if it went over the bridge."""
    bridge_unknown_nusd: int = 0
    """The most that the API may have charged beyond that, if that is not known."""
    bridge: str = ""
    """The hosted API that answered it, as provider/model; empty if a replica did."""

    @property
    def bridge_untold(self) -> bool:
        """Whether its cost at a hosted API is unknown: no usage was reported, or a part has no price."""
        untold = self.counted or (self.tokens_in is None and self.tokens_out is None)
        return bool(self.bridge) and (untold or self.bridge_unknown_nusd > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """poorwill was running at `at_us`; written every second, so that a crash is dated to the second."""

    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStepped:
    """The wall clock jumped by `by_us` against poorwill's own clock."""

    at_us: int
    by_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something an operator wants to find later: a stale snapshot thrown away, an orphan, a fallback."""

    at_us: int
    kind: str
    replica: ReplicaId | None = None
    model: ModelName | None = None
    text: str = ""
    detail: dict[str, str] = field(default_factory=dict)


Entry = (
    ReplicaCreated
    | ReplicaEnded
    | SpanOpened
    | WakeBegan
    | WakeEnded
    | ParkEnded
    | ReplicaPlaced
    | RequestEnded
    | Alive
    | ClockStepped
    | Noted
)
