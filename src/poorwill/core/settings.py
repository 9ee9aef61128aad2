"""What a fleet is configured to do, as plain values. `config` reads them from TOML; nobody else makes
them but tests. `*_us` are microseconds, `*_nusd` nano-dollars."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from poorwill.core.words import SECOND_US, ModelName, Phase, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """Bounds of the hold queue of one model; beyond them a request gets 429."""

    count: int = 256
    """0 holds nothing: a request for a parked model is refused, and the wake starts all the same."""
    bytes: int = 64 * 2**20
    age_us: int = 600 * SECOND_US


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeSettings:
    """Bounds and back-off of wakes."""

    budget_us: int = 300 * SECOND_US
    """From the first held request to readiness; absolute."""
    cap_us: int = 900 * SECOND_US
    """Where a wake that outlived its budget is torn down."""
    backoff_us: int = 5 * SECOND_US
    """After the first failure; doubles with each one."""
    backoff_max_us: int = 900 * SECOND_US
    stable_us: int = 60 * SECOND_US
    """An engine that dies sooner than this after a wake counts as one more failed wake in a row."""
    phase_limits_us: Mapping[Phase, int] = field(default_factory=dict)
    expected_us: Mapping[Tier, int] = field(default_factory=dict)
    """What a wake from a tier is predicted to take, for as long as none was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkSettings:
    """How a replica is parked."""

    ladder: tuple[Tier, ...] = (Tier.COLD,)
    """Tiers from shallow to deep; the last one is where a replica ends up."""
    drain_us: int = 60 * SECOND_US
    limit_us: int = 120 * SECOND_US
    """A park that takes longer has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """Everything `core.machine.step` needs to know about one replica."""

    model: ModelName
    max_concurrency: int = 0
    """Leases at once; 0 is unlimited."""
    hold: HoldSettings = field(default_factory=HoldSettings)
    wake: WakeSettings = field(default_factory=WakeSettings)
    park: ParkSettings = field(default_factory=ParkSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How a model's engine is started."""

    kind: str
    """`llama.cpp`, `command`, `toy`, `transformers`, `vllm`, `sglang`, `ollama`."""
    path: str = ""
    """The model file or directory, absolute."""
    command: tuple[str, ...] = ()
    """For `command`: the argument vector; `{port}`, `{host}`, `{path}` are filled in."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ready_path: str = ""
    port: int = 0
    """0: poorwill chooses a free port once and keeps it."""
    engine_model: str = ""
    context: int = 4096
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class OptionKind(StrEnum):
    """What an engine takes for one of its own options; worded as messages say it."""

    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"


OptionKinds = Mapping[str, OptionKind | tuple[str, ...]]
"""An engine's options by name; a tuple lists the texts it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Which parking policy runs, and which one may run beside it in shadow."""

    name: str = "break-even"
    idle_us: int | None = None
    """For `fixed`: the linger."""
    allow_short_idle: bool = False
    """For `fixed`: a linger below the break-even is meant."""
    rungs_us: Mapping[Tier, int] = field(default_factory=dict)
    """For `fixed` with a ladder: idle time before each deeper tier."""
    wait_nusd_s: int = 0
    """What one held second of one request is worth, in the objective of `adaptive` and `ladder`."""
    shadow: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorWindow:
    """A stretch of the week in which the replica must be ready, in a time zone's own local time."""

    days: tuple[int, ...]
    """0 is Monday."""
    start_minute: int
    end_minute: int
    """Minutes after local midnight; an end not after the start runs into the next day."""
    zone: str = "UTC"
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorSettings:
    """The least number of ready replicas: always, or within windows."""

    always: bool = False
    windows: tuple[FloorWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """One effective-dated rate. Which replicas it prices: all, or those matching every given field."""

    effective_us: int
    active_nusd_h: int
    parked_nusd_h: Mapping[Tier, int] = field(default_factory=dict)
    storage_nusd_gb_month: int = 0
    increment_us: int = 1
    """The provider's billing increment: durations are rounded up to it."""
    minimum_us: int = 0
    """The provider's minimum charge for each stretch of active time."""
    currency: str = "USD"
    source: str = ""
    model: ModelName | None = None
    driver: str | None = None
    replica: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendSettings:
    """The spend breaker's limits, in the rates' currency; None is no limit. Keys: a model's or key's name."""

    day_nusd: int | None = None
    month_nusd: int | None = None
    model_day_nusd: Mapping[str, int] = field(default_factory=dict)
    model_month_nusd: Mapping[str, int] = field(default_factory=dict)
    key_day_nusd: Mapping[str, int] = field(default_factory=dict)
    key_month_nusd: Mapping[str, int] = field(default_factory=dict)
    warn_share: float = 0.8
    currency: str = "USD"

    @property
    def any_limit(self) -> bool:
        """Whether there is a limit."""
        totals = (self.day_nusd, self.month_nusd)
        by_name = (
            self.model_day_nusd,
            self.model_month_nusd,
            self.key_day_nusd,
            self.key_month_nusd,
        )
        return any(total is not None for total in totals) or any(by_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedSettings:
    """The hosted API a model is compared with, in the bill and in plans; with `bridge`, the one that serves
    while the replica cannot."""

    provider: str
    model: str
    bridge: bool = False
    """Whether requests, and with them users' data, may be sent there at all."""
    url: str = ""
    """The base URL of its API, without a slash at the end; `/v1/chat/completions` becomes `url`
    `/chat/completions`."""
    key_env: str = ""
    """The environment variable that holds the API key."""
    when: str = "waking"
    """`waking`: each request that finds the model not ready; `failed`: one whose wake has failed."""
    input_nusd_mtok: int | None = None
    output_nusd_mtok: int | None = None
    """Nano-dollars per million tokens; where None, the public price list's."""

    @property
    def name(self) -> str:
        """Return provider/model."""
        return f"{self.provider}/{self.model}"

    @property
    def bridge_words(self) -> str:
        """Say what the bridge does, for people."""
        when = "while it wakes" if self.when == "waking" else "when a wake fails"
        return f"bridge to {self.name} {when}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSettings:
    """The rented machine that a model's engine is on: its cloud parks it, and it starts the engine itself."""

    provider: str
    machine: str
    """Its id at the provider."""
    host: str
    port: int
    """Where its engine serves."""
    key_env: str
    api: str = ""
    """Where the provider's API is; empty: where it usually is."""

    @property
    def named(self) -> str:
        """The machine's name in the ledger and for people."""
        return f"{self.provider} {self.machine}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One model of the fleet."""

    name: ModelName
    engine: EngineSettings
    replica: ReplicaSettings
    policy: PolicySettings = field(default_factory=PolicySettings)
    floor: FloorSettings = field(default_factory=FloorSettings)
    hosted: HostedSettings | None = None
    cloud: CloudSettings | None = None
    """None: its engine runs on this machine."""
    memory_bytes: int = 0
    """What it needs while ready, for eviction; 0 is unknown and never evicts."""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The two listeners and what they accept."""

    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 8081
    heartbeat_us: int = 5 * SECOND_US
    commit_after_us: int = 15 * SECOND_US
    """How long a held JSON answer stays silent before a 200 is committed for its heartbeats."""
    interim_agents: tuple[str, ...] = ("OpenAI/", "AsyncOpenAI/", "Anthropic/", "AsyncAnthropic/")
    """Prefixes of User-Agent known to accept 102 responses."""
    max_body_bytes: int = 32 * 2**20
    max_header_bytes: int = 64 * 2**10
    max_headers: int = 100
    head_timeout_us: int = 30 * SECOND_US
    body_timeout_us: int = 120 * SECOND_US
    idle_timeout_us: int = 600 * SECOND_US
    """Of a kept-alive client connection between requests."""
    upstream_timeout_us: int = 600 * SECOND_US
    """Without a byte from the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """A whole `fleet.toml`."""

    directory: str
    """Absolute: ledger, snapshots, logs and lock live here."""
    models: tuple[ModelSettings, ...]
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    rates: tuple[RateSettings, ...] = ()
    spend: SpendSettings = field(default_factory=SpendSettings)
    on_exit: str = "park"
    """`park`, `leave` or `stop`: what a graceful shutdown does with ready replicas."""
    exit_us: int = 60 * SECOND_US
    snapshot_quota_bytes: int = 0
    """0: only the disk bounds the snapshots."""
    memory_bytes: int = 0
    """What all ready replicas may need together; 0 is unbounded."""
    reap_orphans: bool = False
    encrypt_key_env: str = ""
    guest_memory: str = "file"
    """`file` or `anonymous`: where a virtual machine's memory is while it runs."""
    source: str = "fleet.toml"
