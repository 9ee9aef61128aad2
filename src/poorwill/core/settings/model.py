"""The settings of one model: the keys of `[models.NAME]` and `[defaults]`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from poorwill.core.settings.addresses import Address, EngineUrl
from poorwill.core.settings.devices import DeviceNeed
from poorwill.core.settings.notation import (
    Bounds,
    EnvName,
    FileKey,
    Mark,
    Matching,
    NotEmpty,
    OrZero,
)
from poorwill.core.settings.replica import ReplicaSettings
from poorwill.core.words import ModelName, ReplicaId, Tier, replica_id

EngineName = Literal["llama.cpp", "command", "toy", "transformers", "vllm", "sglang", "ollama"]
PolicyName = Literal["break-even", "fixed", "ladder", "adaptive"]


LLAMACPP_SLOTS = 4
"""Requests that llama.cpp works on at once, unless its option `parallel` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How a model's engine is started."""

    kind: Annotated[EngineName, FileKey("engine")] = "llama.cpp"
    """`llama.cpp` is embedded and needs nothing else; `vllm`, `sglang`, `transformers` and `ollama` must be
    installed; `command` starts any OpenAI-compatible server."""
    path: Annotated[str, Mark.FILE_OR_HUB] = ""
    """The model file (a GGUF for `llama.cpp`) or directory; for the other engines also a model id of the
    hub. `hf:ORG/NAME`, `hf:ORG/NAME:QUANT` or `:FILE`, with `@REVISION`, is downloaded (models.md)."""
    command: Annotated[tuple[str, ...], Bounds(least=1)] = ()
    """For `command`: program and arguments; `{port}`, `{host}`, `{path}` and `{name}` are filled in. For the
    other installed engines: what to start instead of the engine's usual program."""
    stop_command: Annotated[tuple[str, ...], Bounds(least=1)] = ()
    """Ends what the engine may leave outside of its own processes; the same is filled in as in `command`. It
    is run once those are gone, and must then exit with 0, also if nothing is left. A container of a `docker
    run` or `podman run` line needs none (engines.md)."""
    args: tuple[str, ...] = ()
    """Arguments added to those poorwill gives the engine."""
    env: Annotated[Mapping[str, str], Mark.MERGES] = field(default_factory=dict)
    """Environment variables for the engine."""
    options: Annotated[Mapping[str, str | int | float | bool], Mark.MERGES] = field(default_factory=dict)
    """Options of the engine itself: `gpu_layers = 8` is given to it as `--gpu-layers 8`."""
    cwd: Annotated[str, Mark.FILE] = ""
    """For `command`: the directory it runs in; by default that of `fleet.toml`, with `engine_user` `/`."""
    ready_path: Annotated[str, Matching(r"/\S*", "a path that begins with /")] = ""
    """The path that answers 200 once the engine is ready; the engine's own if not given."""
    port: Annotated[int, Bounds(most=65_535)] = 0
    """The engine's port on loopback; 0: poorwill chooses a free one and keeps it."""
    engine_model: str = ""
    """The name the engine knows the model by, if it differs from NAME: requests reach it under that name."""
    user: Annotated[str, FileKey("engine_user")] = ""
    """The user of this machine that the engine runs as, who then reads neither ledger nor images nor the
    engines of other users; poorwill must be root. If not given: the user who runs poorwill."""
    adapters: Mapping[str, Annotated[str, Mark.FILE]] = field(default_factory=dict)
    """For `vllm`: directories of LoRA adapters, by the names that clients use."""
    context: Annotated[int, Bounds(least=1, most=2**24)] = 4096
    """For `llama.cpp`: the longest context, in tokens; other engines have an option for it."""
    read_ahead: bool = True
    """Read the model's files into the page cache while the engine starts or is restored."""


class OptionKind(StrEnum):
    """What an engine takes for one of its own options; worded as messages say it."""

    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"


OptionKinds = Mapping[str, OptionKind | tuple[str, ...]]
"""An engine's options by name; a tuple lists the texts it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Which parking policy runs, and which one is computed beside it in shadow."""

    name: Annotated[PolicyName, Mark.BARE] = "break-even"
    """`break-even` parks when staying ready has cost as much as parking and waking would; `fixed` after
    `idle_s`; `ladder` goes down tier by tier on the lower envelope of the tiers' cost lines; `adaptive`
    learns the model's own gaps by hour of week."""
    idle_us: int | None = None
    """For `fixed`: how long an idle replica lingers before it is parked. Shorter than the break-even, once
    wakes and parks were measured, is an error of `check`."""
    allow_short_idle: bool = False
    """For `fixed`: `idle_s` may be shorter than the break-even."""
    rungs_us: Mapping[Tier, int] = field(default_factory=dict)
    """For `fixed`: idle time before each deeper tier of the ladder, counted from the last completion."""
    wait_nusd_s: int = 0
    """For `adaptive` and `ladder`: what it is worth that one request is held one second less."""
    shadow: PolicyName | Literal[""] = ""
    """A second policy that is only computed, for comparison; it parks nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorWindow:
    """A window of the week in which replicas must be ready, in a time zone's own local time."""

    days: Annotated[tuple[int, ...], Mark.WEEKDAYS] = tuple(range(7))
    """Days on which the window begins."""
    start_minute: Annotated[int, FileKey("from"), Mark.TIME_OF_DAY]
    """When it begins, in the zone's own time."""
    end_minute: Annotated[int, FileKey("to"), Mark.TIME_OF_DAY]
    """When it ends; if that is not after `from`, on the next day."""
    zone: Annotated[str, Mark.TIME_ZONE] = "UTC"
    """The time zone."""
    floor: Annotated[int, Bounds(least=1)] = 1
    """How many replicas must be ready."""
    name: str = ""
    """A name for the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorSettings:
    """The least number of ready replicas: always, or within windows."""

    always: Annotated[bool, Mark.BARE] = False
    """Keep a replica ready always."""
    windows: Annotated[tuple[FloorWindow, ...], Mark.BARE] = ()
    """Keep replicas ready within these windows of the week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasSettings:
    """How many replicas a model has: `replicas = 3`, or `{ most = 3, least_ready = 1 }`."""

    most: Annotated[int, Bounds(least=1, most=64), Mark.BARE] = 1
    """How many there may be. As few as will do are busy: another one is woken only if all that are ready have
    `max_concurrency` requests and no place is expected sooner than the wake would end."""
    least_ready: OrZero = 0
    """How many are ready always, whatever the floor says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedSettings:
    """The hosted API a model is compared with, in the bill and in plans; with `bridge`, the one that serves
    while the replica cannot."""

    provider: NotEmpty
    """The provider's name in the price list, such as `openai`."""
    model: NotEmpty
    """The provider's name for the model."""
    bridge: bool = False
    """Send requests there while the replica cannot serve them. That gives their text to the provider and
    costs what the provider charges; without it nothing is ever sent."""
    url: Annotated[str, Matching(r"https?://[^\s/?#@]+(/[^\s?#]*)?", "the URL of an API")] = ""
    """For `bridge`: the base URL of the OpenAI-compatible API, or of Anthropic's, such as
    `https://api.groq.com/openai/v1`."""
    key_env: EnvName = ""
    """For `bridge`: the environment variable that holds the API key. It must be set when `serve` starts."""
    when: Literal["waking", "failed"] = "waking"
    """For `bridge`: `waking` sends every request that finds the model not ready, so that nobody waits;
    `failed` holds it, and sends it only if its wake fails or takes too long."""
    input_nusd_mtok: int | None = None
    """Dollars per million tokens in, if the public price list has no price or another one."""
    output_nusd_mtok: int | None = None
    """Dollars per million tokens out, likewise."""
    max_output_tokens: Annotated[int, Bounds(least=1, most=10**7)] = 131_072
    """For `bridge`: the most tokens that one answer of the API can have. So many are reserved in the spend
    limits for a request that sets no limit of its own."""

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
class EngineElsewhere:
    """An engine that somebody else starts and ends, reached over the network."""

    engine: Annotated[EngineUrl | None, FileKey("url"), Mark.ENGINE_URL] = None
    """The address of an engine that runs already and is not poorwill's to end, `https` or `http`, with the
    path before `/v1` if there is one: a pod, a colleague's server, a hosted API (engines.md)."""
    url_key_env: EnvName = ""
    """The environment variable that holds the API key which the engine, or the proxy before it, wants."""
    url_ca: Annotated[str, Mark.FILE] = ""
    """For `https`: a file of certificates (PEM) to trust instead of the system's: your own authority's."""

    @property
    def named(self) -> str:
        """Where the engine is, in the ledger and for people."""
        return str(self.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSettings(EngineElsewhere):
    """The rented machine that a model's engine is on: its cloud parks it, and it starts the engine itself."""

    provider: Literal["hyperstack", "scaleway", "aws", "gcp"]
    """Who rents the machine out. `aws` needs `pip install 'poorwill[aws]'`, and `gcp` likewise."""
    machine: Annotated[
        str,
        FileKey("id"),
        Matching(r"([A-Za-z0-9][A-Za-z0-9.:-]{0,63}/){0,2}[A-Za-z0-9_-]{1,64}", "the id of a machine"),
    ]
    """The machine's id at its provider, as text; for `scaleway` with its zone before it:
    `"fr-par-2/11111111-..."`; for `aws` with its region: `"eu-central-1/i-0123..."`; for `gcp` its name with
    project and zone: `"my-project/europe-west4-a/gpu-1"`."""
    engine: Annotated[EngineUrl, FileKey("url"), Mark.ENGINE_URL]
    """The address of the machine's engine, `http` or `https`, with the path before `/v1` if there is one. The
    machine starts it by itself when it boots, e.g. as a systemd unit. With `aws` and `gcp` the host may be
    `{public}` or `{private}`: the address that the machine has once it runs. Any other must stay the same."""
    key_env: EnvName = ""
    """The environment variable that holds the provider's API key. Not for `aws` and `gcp`, whose SDKs find
    their credentials themselves."""
    api: Annotated[str, Matching(r"(https?://\S+)?", "an http or https address")] = ""
    """The address of the provider's API, if it is not the usual one."""

    @property
    def named(self) -> str:
        """The machine's name in the ledger and for people."""
        return f"{self.provider} {self.machine}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One table for each model; NAME is what clients write in `model=`. Names with dots or slashes stand in
    quotes: `[models."org/model-7b"]`."""

    name: Annotated[ModelName, Mark.NOT_A_KEY]
    engine: Annotated[EngineSettings, Mark.SPREAD]
    replica: Annotated[ReplicaSettings, Mark.SPREAD]
    aliases: tuple[str, ...] = ()
    """More names for the model, such as `gpt-4o`, for clients that know no other."""
    presets: Mapping[str, Mapping[str, Annotated[object, Mark.JSON]]] = field(default_factory=dict)
    """More names, each with values for the request's body: `precise = { temperature = 0 }` sets them whatever
    the client says; those in `default = { ... }` count where it says nothing."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    """When an idle replica is parked, and how deep."""
    floor: FloorSettings = field(default_factory=FloorSettings)
    """When a replica, or several, must be ready even if nobody asks: always, or in windows of the week."""
    replicas: ReplicasSettings = field(default_factory=ReplicasSettings)
    """How many replicas the model has, and how many of them are ready always. More than one need a
    `max_concurrency`. docs/replicas.md says more."""
    memory_bytes: int = 0
    """What the replica needs while ready, for `[fleet] memory`; 0 is unknown."""
    devices: Annotated[DeviceNeed, Mark.SPREAD] = field(default_factory=DeviceNeed)
    hosts: tuple[str, ...] = ()
    """The hosts of `[hosts]` that its replicas may run on; none: this machine. docs/hosts.md says more."""
    priority: Annotated[int, Bounds(least=-1_000_000, most=1_000_000)] = 0
    """Who gives way when memory or disk runs short: the lower priority is parked, or loses its snapshot,
    first."""
    capture_until_us: Annotated[int | None, FileKey("capture_until"), Mark.DATE] = None
    """Until then, keep the text of the model's last 100 requests in memory, for the dashboard to show: to see
    what a client really sends. If not given, no text is kept. Tell those whose text it is."""
    hosted: HostedSettings | None = None
    """The hosted API that the model is compared with in the bill, and the bridge to it, if wanted."""
    cloud: CloudSettings | None = None
    """The rented machine that the model's engine is on, if it is not this one: poorwill starts nothing there,
    has its provider hibernate the machine and restore it. docs/hibernated.md says more."""
    elsewhere: Annotated[EngineElsewhere, Mark.SPREAD] = field(default_factory=EngineElsewhere)

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may call it: its own name, aliases, presets and adapters."""
        return (self.name, *self.aliases, *self.presets, *self.engine.adapters)

    @property
    def away(self) -> EngineElsewhere | None:
        """Where its engine is if poorwill does not start it: at an address, or on a rented machine."""
        return self.cloud or (self.elsewhere if self.elsewhere.engine else None)

    @property
    def away_at(self) -> Address | None:
        """The address that stands for an engine elsewhere; models that share a host share nothing else."""
        if self.away is None or self.away.engine is None:
            return None
        host, port, *_ = self.away.engine
        return Address(host if self.cloud else f"{self.name}@{host}", port)

    @property
    def replica_ids(self) -> tuple[ReplicaId, ...]:
        """Return the ids of the model's replicas."""
        return tuple(replica_id(self.name, number) for number in range(self.replicas.most))
