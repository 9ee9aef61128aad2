"""What the admin listener answers. The command line prints it as it is with `--json`."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from poorwill.core.spend import LimitDocument
from poorwill.core.words import Phase, Tier


class WakeTimes(Struct, frozen=True, kw_only=True):
    """The published wake interval: of real wakes."""

    count: int
    p50_s: float | None
    p95_s: float | None
    max_s: float | None
    budget_s: float
    over_budget: int


class ReplicaNow(Struct, frozen=True, kw_only=True):
    """One replica."""

    model: str
    replica: str
    state: str
    tier: Tier | None
    cause: str
    since_us: int
    since_s: float
    in_flight: int
    held: int
    wake: WakeTimes
    phase: Phase | None = None
    ready_in_us: int | None = None
    ladder: tuple[Tier, ...] = ()
    parks_at_us: int | None = None
    failures: int = 0
    retry_at_us: int | None = None
    last_error: str = ""
    last_error_us: int = 0
    pid: int | None = None
    port: int | None = None
    policy: str = ""
    why: str = ""
    notes: Mapping[str, str] = msgspec.field(default_factory=dict)


class BridgeNow(Struct, frozen=True, kw_only=True):
    """Where a model's requests go while it cannot serve them."""

    model: str
    api: str = ""
    when: str = ""
    under_way: int = 0
    requests: int = 0
    requests_without_usage: int = 0
    failures: int = 0
    nusd: int = 0
    rests_s: int = 0
    what: str


class ConfigurationNow(Struct, frozen=True, kw_only=True):
    """Which configuration is in force, and why the one that was to follow it was refused."""

    since_us: int = 0
    changes: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    refused_us: int | None = None
    problems: tuple[str, ...] = ()


class StatusDocument(Struct, frozen=True, kw_only=True):
    """A fleet that is being served."""

    now_us: int
    status: str
    ledger: str
    requests: int = 0
    connections: int = 0
    replicas: tuple[ReplicaNow, ...]
    limits: tuple[LimitDocument, ...]
    bridges: tuple[BridgeNow, ...]
    configuration: ConfigurationNow = ConfigurationNow()


class WokenDocument(Struct, frozen=True, kw_only=True):
    """A model that is ready."""

    model: str
    state: str


class ParkedDocument(Struct, frozen=True, kw_only=True):
    """A model that is parked; `why` says why not in the tier that was asked for."""

    model: str
    state: str
    tier: Tier | None
    why: str | None = None
