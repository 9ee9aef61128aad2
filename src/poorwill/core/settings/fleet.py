"""The settings of a whole fleet: the keys of `[fleet]`, `[gateway]`, `[[rates]]` and `[spend]`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from poorwill.core.errors import ErrorCode, RequestFault, unknown_model
from poorwill.core.settings.addresses import Address
from poorwill.core.settings.devices import DeviceSettings
from poorwill.core.settings.model import ModelSettings
from poorwill.core.settings.notation import Bounds, EnvName, FileKey, Mark, Matching, OrZero
from poorwill.core.words import SECOND_US, ModelName, Tier

_LISTEN = Address("127.0.0.1", 8080)
_ADMIN = Address("127.0.0.1", 8081)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAdminSettings:
    """The admin listener for other machines: it asks for a key of `poorwill keys add NAME --operator`."""

    listen: Address
    """Its address."""
    certificate: Annotated[str, Mark.FILE] = ""
    """Its TLS certificate and those between it and the root (PEM). Read again when the file changes."""
    private_key: Annotated[str, Mark.FILE] = ""
    """The certificate's private key (PEM), without a passphrase."""
    behind_proxy: bool = False
    """Instead of a certificate: a proxy in front speaks TLS, and passes `Host` on. What reaches the listener
    past the proxy is not encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The two listeners, and what they accept."""

    listen: Address = _LISTEN
    """The address that clients connect to."""
    admin: Address = _ADMIN
    """The address of status, metrics, events and the dashboard for users of this machine; on loopback."""
    remote_admin: RemoteAdminSettings | None = None
    """The admin listener for other machines: it asks for an operator's key (remote-admin.md)."""
    metrics: Address | None = None
    """An address of its own for `/metrics` and `/healthz`, which may face a network: they name models and
    costs, and say nothing of clients."""
    admin_users: tuple[str, ...] = ()
    """Users of this machine, besides root and the one that runs poorwill, who may use the admin listener."""
    hosts: tuple[Annotated[str, Matching(r"[a-z0-9.-]+", "a host name in lower case")], ...] = ()
    """More names that clients may send in `Host`. While no API key is configured, the listener answers to
    addresses, `localhost`, its own name and these alone, so that no web page can use it through a browser."""
    paths: tuple[Annotated[str, Matching(r"/[^\s?#*]+\*?", "a path; a `*` at its end is any rest")], ...] = ()
    """More paths that engines serve, such as `/tokenize` or `/v2/*`: passed on to the model that body, path
    or `?model=` names, whatever its engine is known to serve."""
    cors_origins: tuple[
        Annotated[
            str, Matching(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s]+", "an origin like https://chat.example.com")
        ],
        ...,
    ] = ()
    """Origins of the web pages that may use the API; `*` is any page, if API keys are configured."""
    heartbeat_us: int = 5 * SECOND_US
    """How often a held client is sent something to keep its connection open."""
    commit_after_us: OrZero = 50 * SECOND_US
    """How long a held JSON answer stays silent before a 200 is committed for heartbeats. Until then a failure
    has its real status; edges cut a connection after 60 s of silence."""
    patient_agents: tuple[Annotated[str, Bounds(least=1)], ...] = (
        "Go-http-client/",
        "OpenAI/Go",
        "Java-http-client/",
        "node",
        "undici",
        "Bun/",
        "Python/3",
        "ollama",
    )
    """Prefixes of the User-Agent of clients whose own time-outs are longer than `patience_s`, and which show
    no reason for a failure after a 200. Without a proxy between they get their 200 only then."""
    patience_us: OrZero = 230 * SECOND_US
    """How long a held JSON answer stays silent for `patient_agents`. Node's `fetch`, Bun's and aiohttp give
    up after 300 s; some load balancers that pass TCP on forget a connection after 240 s."""
    interim_agents: tuple[Annotated[str, Bounds(least=1)], ...] = (
        "OpenAI/Python",
        "AsyncOpenAI/Python",
        "OpenAI/JS",
        "Anthropic/Python",
        "AsyncAnthropic/Python",
        "Anthropic/JS",
        "litellm/",
        "axios/",
        "ai/",
        "ai-sdk/",
    )
    """Prefixes of the User-Agent of clients that accept 102 responses. What is built on the official SDKs for
    Python and JavaScript is known by another header. If empty, only clients that ask get 102s."""
    max_body_bytes: Annotated[int, Bounds(least=1)] = 32 * 2**20
    """The largest request body."""
    max_header_bytes: Annotated[int, Bounds(least=1)] = 64 * 2**10
    """The largest request head."""
    max_headers: Annotated[int, Bounds(least=1, most=10_000)] = 100
    """The most header fields in a request."""
    pass_credentials: bool = False
    """Whether engines get the `Authorization` and `x-api-key` of clients, for engines with keys of their own.
    Not while API keys are configured: those are never passed on."""
    max_connections: Annotated[int, Bounds(least=1, most=1_000_000)] = 8192
    """The most client connections. Fewer, if the limit of file descriptors needs it: as many are kept for
    engines. At the limit the connections that have been idle the longest make room."""
    max_connections_per_address: Annotated[int, Bounds(least=0, most=1_000_000)] = 0
    """The most client connections from one address; 0: half of what all may have. A proxy counts as one."""
    max_receiving_bytes: Annotated[int, Bounds(least=1)] = 256 * 2**20
    """The most memory for requests that are arriving or not yet answered, over all connections. One key may
    have half of it."""
    max_upload_bytes: Annotated[int, Bounds(least=1)] = 2**30
    """The largest form (audio, images). One beyond 1 MiB is kept on disk, in a file without a name in the
    fleet's directory, until it is answered."""
    max_uploads_bytes: Annotated[int, Bounds(least=1)] = 2**32
    """The most disk for such forms, over all connections. One key may have half of it."""
    max_events: Annotated[int, Bounds(least=1, most=10_000)] = 64
    """The most followers of `/events`."""
    max_requests_per_key: Annotated[int, Bounds(least=0, most=1_000_000)] = 0
    """The most requests of one key that are held or in work at once, over all models; 0: without limit. Held
    requests are served in turn with those of other keys in any case."""
    max_bridged_per_key: Annotated[int, Bounds(least=1, most=100_000)] = 64
    """The most requests of one key that a hosted API serves at once, over all models; others are held."""
    head_timeout_us: int = 30 * SECOND_US
    """How long a client may take to send the head."""
    body_timeout_us: int = 120 * SECOND_US
    """How long a client may take to send the body."""
    idle_timeout_us: int = 600 * SECOND_US
    """How long a client's connection stays open between requests."""
    upstream_timeout_us: int = 600 * SECOND_US
    """How long an engine may take without sending a byte. One that hangs is found sooner; reliability.md says
    how."""
    max_request_us: OrZero = 0
    """How long an engine may work on one request, so that none keeps a replica awake for ever; 0: without
    limit."""

    @property
    def beside(self) -> Mapping[str, Address]:
        """The addresses beside the two listeners that there always are, by their keys."""
        remote = self.remote_admin.listen if self.remote_admin else None
        return {name: one for name, one in (("remote_admin", remote), ("metrics", self.metrics)) if one}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostsSettings:
    """Other machines that models may run on, joined through Ray (`pip install 'poorwill[ray]'`). `poorwill
    host --head` runs beside poorwill, `poorwill host --join` on each of the others; docs/hosts.md."""

    head: Address
    """Where Ray's head listens: on this machine."""
    relays: Mapping[str, Address] = field(default_factory=dict)
    """The hosts that may be used, by name, and where the service of each is: `gpu-1 = "10.0.0.7:7443"`."""
    key: Annotated[str, Mark.FILE] = "hosts.pem"
    """The file with the fleet's key, which `poorwill host --head` makes and every host has a copy of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """What a replica's time costs. The rate that names the most (replica, model, host, driver) holds, and of
    several the one that took effect last. A stretch of time that crosses a change is priced in parts; a later
    configuration does not change what the ledger has priced. Without rates the bill counts seconds only."""

    effective_us: Annotated[int, FileKey("effective"), Mark.DATE] = 0
    """From when the rate holds; always, if not given."""
    active_nusd_h: int
    """Dollars an hour while a replica is not parked."""
    parked_nusd_h: Mapping[Tier, int] = field(default_factory=dict)
    """Dollars an hour while parked, by tier. A tier not named costs nothing, but `asleep` costs the active
    rate: its host runs on."""
    storage_nusd_gb_month: int = 0
    """Dollars a month for each GB of snapshot."""
    increment_us: int = 1
    """The provider's billing increment: active time is rounded up to it."""
    minimum_us: OrZero = 0
    """The least active time the provider charges for."""
    currency: Annotated[str, Matching("[A-Z]{3}", "a currency's three letters")] = "USD"
    """The currency of the invoice."""
    source: str = ""
    """The source of the rate: a price list, a contract."""
    model: ModelName | None = None
    """Only for this model; for all, if not given."""
    replica: str | None = None
    """Only for this replica, `NAME-0`; for all, if not given."""
    driver: str | None = None
    """Only for replicas that this driver started; for all, if not given."""
    host: str | None = None
    """Only for time on this host of `[hosts]`; everywhere, if not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendSettings:
    """The spend breaker. When a limit is reached wakes stop and requests get `spend_limit`. Amounts are in
    the currency of the rates, which must all have the same."""

    day_nusd: int | None = None
    """The most for a day (UTC)."""
    month_nusd: int | None = None
    """The most for a month (UTC)."""
    model_day_nusd: Mapping[str, int] = field(default_factory=dict)
    """The most for a day, by model."""
    model_month_nusd: Mapping[str, int] = field(default_factory=dict)
    """The most for a month, by model."""
    key_day_nusd: Mapping[str, int] = field(default_factory=dict)
    """The most for a day, by API key."""
    key_month_nusd: Mapping[str, int] = field(default_factory=dict)
    """The most for a month, by API key."""
    warn_share: float = 0.8
    """The share of a limit from which on there is a warning."""
    currency: Annotated[str, Mark.NOT_A_KEY] = "USD"

    @property
    def any_limit(self) -> bool:
        """Whether there is a limit."""
        by_name = (self.model_day_nusd, self.model_month_nusd, self.key_day_nusd, self.key_month_nusd)
        return self.day_nusd is not None or self.month_nusd is not None or any(by_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementSettings:
    """What stands on the statements that customers get, `poorwill bill --invoice KEY`."""

    issuer: str = ""
    """Who sends them: a name and an address, in as many lines as they need."""
    due_days: Annotated[int | None, Bounds(least=0)] = None
    """The days from the end of the period until the amount is due; if not given, no date is named."""
    terms: str = ""
    """What stands at the end: how to pay, a tax number, whom to ask."""
    charge_failed_wakes: bool = False
    """Charge customers for wakes that failed although their requests waited for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """The fleet as a whole."""

    directory: Annotated[str, Mark.FILE] = "."
    """The directory of ledger, snapshots, logs and the lock. It must belong to the user who runs poorwill,
    and nobody else may write to it; the same holds for `fleet.toml`."""
    on_exit: Literal["park", "leave", "stop"] = "park"
    """What a graceful shutdown does with ready replicas: park them by snapshot, leave them running to be
    adopted by the next start, or stop them."""
    exit_us: int = 60 * SECOND_US
    """How long a graceful shutdown may take."""
    snapshot_quota_bytes: int = 0
    """How much the snapshots may take on disk; 0: as much as there is."""
    memory_bytes: int = 0
    """What all ready replicas may need together; 0 is unbounded. Of accelerators, see `[[devices]]`."""
    reload_on_change: bool = False
    """Read this file again whenever it changes, as `poorwill reload` does."""
    reap_orphans: bool = False
    """End engines and delete snapshots that poorwill made and nobody owns; else they are only reported."""
    confine_engines: bool = False
    """Keep engines away from the ledger, logs and images in the fleet's directory, even if they run as the
    same user, with Linux's Landlock. What lies beside the directory, or beside one that it is in, must exist
    before an engine starts, or stays closed to it. Not with the tier `frozen`, whose wakes would undo it."""
    encrypt_key_env: EnvName = ""
    """The environment variable that holds the key that snapshots are encrypted with."""
    guest_memory: Literal["file", "anonymous"] = "file"
    """How the memory of a running virtual machine is kept: in a file, which a park only syncs, or in no file,
    so that a park writes all of it (mapped-ram). Encrypted, always in no file."""
    models: Annotated[tuple[ModelSettings, ...], Mark.NOT_A_KEY]
    gateway: Annotated[GatewaySettings, Mark.NOT_A_KEY] = field(default_factory=GatewaySettings)
    rates: Annotated[tuple[RateSettings, ...], Mark.NOT_A_KEY] = ()
    devices: Annotated[tuple[DeviceSettings, ...], Mark.NOT_A_KEY] = ()
    hosts: Annotated[HostsSettings | None, Mark.NOT_A_KEY] = None
    spend: Annotated[SpendSettings, Mark.NOT_A_KEY] = field(default_factory=SpendSettings)
    statement: Annotated[StatementSettings, Mark.NOT_A_KEY] = field(default_factory=StatementSettings)
    source: Annotated[str, Mark.NOT_A_KEY] = "fleet.toml"

    @property
    def gives_devices(self) -> bool:
        """Whether replicas get devices of this machine: some are stated, or some model needs one."""
        return bool(self.devices) or any(model.devices.any and not model.hosts for model in self.models)

    def listening(self, host: str | None, port: int | None, admin_port: int | None) -> "FleetSettings":
        """Return the fleet with other listeners, where given; the admin's port is free if the other is."""
        at, admin = self.gateway.listen, self.gateway.admin
        at = Address(at.host if host is None else host, at.port if port is None else port)
        if admin_port is not None or port == 0:
            admin = Address(admin.host, admin_port or 0)
        return replace(self, gateway=replace(self.gateway, listen=at, admin=admin))

    def model_named(self, name: str | None) -> ModelSettings:
        """Return the model of a name, or the only one. Raises RequestFault."""
        known = [model.name for model in self.models]
        if name is None and len(known) > 1:
            what = f"the fleet has several models; name one of {', '.join(known)}"
            raise RequestFault(ErrorCode.MODEL_NOT_FOUND, what)
        found = [model for model in self.models if name in (None, model.name)]
        if not found:
            raise unknown_model(name or "", known)
        return found[0]
