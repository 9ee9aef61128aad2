"""The keys of `[models.NAME]` and `[defaults]`: the only list of them there is."""

from types import MappingProxyType

from poorwill.config.cloud_fields import CLOUD
from poorwill.config.kinds import ENV_NAME, Flag, Money, Seconds, Size, Text, Whole, Word, choice
from poorwill.config.places import FilePath
from poorwill.config.tables import Field, Group, Listed, Scalar, Table
from poorwill.config.when import Days, Hour, Zone
from poorwill.core.settings import (
    FloorSettings,
    FloorWindow,
    HoldSettings,
    HostedSettings,
    ModelSettings,
    PolicySettings,
)
from poorwill.core.words import Phase, Tier
from poorwill.policies import NAMES as POLICY_NAMES

ENGINES = ("llama.cpp", "command", "toy", "transformers", "vllm", "sglang", "ollama")

HOLD = Group(
    makes=HoldSettings,
    fields=(
        Field(
            key="count",
            kind=Whole(most=1_000_000),
            doc="How many requests may wait for a wake; beyond it they get 429. 0 holds nothing: the "
            "first request is refused, and the wake starts all the same.",
        ),
        Field(key="bytes", kind=Size(), doc="How much the bodies of held requests may take together."),
        Field(key="age_s", kind=Seconds(), into="age_us", doc="How long one request may be held."),
    ),
)

POLICY = Group(
    makes=PolicySettings,
    words="the name of a policy or a table",
    shorts=MappingProxyType({str: "name"}),
    fields=(
        Field(
            key="name",
            kind=choice(*POLICY_NAMES),
            doc="`break-even` parks where staying ready would cost as much as parking and waking; "
            "`fixed` after `idle_s`; `ladder` goes down tier by tier on the lower envelope of the "
            "tiers' cost lines; `adaptive` learns the model's own gaps by hour of week.",
        ),
        Field(
            key="idle_s",
            kind=Seconds(),
            into="idle_us",
            doc="For `fixed`: how long an idle replica lingers before it is parked. Shorter than the "
            "break-even, once wakes and parks were measured, is an error of `check`.",
        ),
        Field(
            key="allow_short_idle",
            kind=Flag(),
            doc="For `fixed`: `idle_s` may be shorter than the break-even.",
        ),
        Field(
            key="rungs_s",
            kind=Table(of=Seconds(), words="a table of tier and seconds", keys=Tier),
            into="rungs_us",
            doc="For `fixed`: idle time before each deeper tier of the ladder, counted from the last "
            "completion.",
        ),
        Field(
            key="wait_usd_s",
            kind=Money(),
            into="wait_nusd_s",
            doc="For `adaptive` and `ladder`: what one second that one request is held is worth.",
        ),
        Field(
            key="shadow",
            kind=choice(*POLICY_NAMES, ""),
            doc="A second policy that is only computed, for comparison; it parks nothing.",
        ),
    ),
)

FLOOR = Group(
    makes=FloorSettings,
    words="true, false, or a list of windows",
    shorts=MappingProxyType({bool: "always", list: "windows"}),
    fields=(
        Field(key="always", kind=Flag(), doc="Keep the replica ready always."),
        Field(
            key="windows",
            doc="Keep the replica ready within these windows of the week.",
            kind=Listed(
                words="a list of windows",
                of=Group(
                    makes=FloorWindow,
                    fields=(
                        Field(
                            key="days",
                            kind=Days(),
                            default=tuple(range(7)),
                            doc="Days on which the window begins.",
                        ),
                        Field(
                            key="from",
                            kind=Hour(),
                            into="start_minute",
                            required=True,
                            doc="When it begins, in the zone's own time.",
                        ),
                        Field(
                            key="to",
                            kind=Hour(),
                            into="end_minute",
                            required=True,
                            doc="When it ends; not after `from`: on the next day.",
                        ),
                        Field(key="zone", kind=Zone(), doc="The time zone."),
                        Field(key="name", kind=Text(), doc="A name for the ledger."),
                    ),
                ),
            ),
        ),
    ),
)

HOSTED = Group(
    makes=HostedSettings,
    fields=(
        Field(
            key="provider",
            kind=Text(empty=False),
            required=True,
            doc="The provider's name in the price list, such as `openai`.",
        ),
        Field(
            key="model",
            kind=Text(empty=False),
            required=True,
            doc="The provider's name for the model.",
        ),
        Field(
            key="bridge",
            kind=Flag(),
            doc="Send requests there while the replica cannot serve them. That gives their text to the "
            "provider and costs what the provider charges; without it nothing is ever sent.",
        ),
        Field(
            key="url",
            kind=Text(pattern=r"https?://[^\s/?#@]+(/[^\s?#]*)?", words="the URL of an API"),
            doc="For `bridge`: the base URL of the OpenAI-compatible API, or of Anthropic's, such as "
            "`https://api.groq.com/openai/v1`.",
        ),
        Field(
            key="key_env",
            kind=ENV_NAME,
            doc="For `bridge`: the environment variable that holds the API key. It must be set when "
            "`serve` starts.",
        ),
        Field(
            key="when",
            kind=choice("waking", "failed"),
            doc="For `bridge`: `waking` sends every request that finds the model not ready, so that "
            "nobody waits; `failed` holds it, and sends it only if its wake fails or takes too long.",
        ),
        Field(
            key="input_usd_mtok",
            kind=Money(),
            into="input_nusd_mtok",
            doc="Dollars per million tokens in, where the public price list has no price or another one.",
        ),
        Field(
            key="output_usd_mtok",
            kind=Money(),
            into="output_nusd_mtok",
            doc="Dollars per million tokens out, likewise.",
        ),
    ),
)

ENGINE_FIELDS = (
    Field(
        key="engine",
        kind=choice(*ENGINES),
        into="engine.kind",
        default="llama.cpp",
        doc="`llama.cpp` is embedded and needs nothing else; `vllm`, `sglang`, `transformers` and "
        "`ollama` must be installed; `command` starts any OpenAI-compatible server.",
    ),
    Field(
        key="path",
        kind=FilePath(or_hub=True),
        into="engine.path",
        doc="The model file (a GGUF for `llama.cpp`) or directory; for the other engines also a model "
        "id of the hub.",
    ),
    Field(
        key="command",
        kind=Listed(of=Text(), words="a list of texts", least=1),
        into="engine.command",
        doc="For `command`: program and arguments; `{port}`, `{host}`, `{path}` and `{name}` are filled "
        "in. For the other installed engines: what to start instead of the engine's usual program.",
    ),
    Field(
        key="args",
        kind=Listed(of=Text(), words="a list of texts"),
        into="engine.args",
        doc="Arguments added to those poorwill gives the engine.",
    ),
    Field(
        key="env",
        kind=Table(of=Text(), words="a table of texts"),
        into="engine.env",
        merges=True,
        doc="Environment variables for the engine.",
    ),
    Field(
        key="options",
        kind=Table(of=Scalar(), words="a table"),
        into="engine.options",
        merges=True,
        doc="Options of the engine itself: `gpu_layers = 8` is given to it as `--gpu-layers 8`.",
    ),
    Field(
        key="ready_path",
        kind=Text(pattern=r"/\S*", words="a path that begins with /"),
        into="engine.ready_path",
        doc="What to ask for to learn that the engine is ready; the engine's own where not given.",
    ),
    Field(
        key="port",
        kind=Whole(most=65_535),
        into="engine.port",
        doc="The engine's port on loopback; 0: poorwill chooses a free one and keeps it.",
    ),
    Field(
        key="engine_model",
        kind=Text(),
        into="engine.engine_model",
        doc="The name the engine knows the model by, where it differs from NAME: requests reach it under "
        "that name.",
    ),
    Field(
        key="context",
        kind=Whole(least=1, most=2**24),
        into="engine.context",
        doc="The longest context, in tokens.",
    ),
)

WAKE_FIELDS = (
    Field(
        key="max_concurrency",
        kind=Whole(most=1_000_000),
        into="replica.max_concurrency",
        doc="Requests the engine gets at once; 0 is unlimited.",
    ),
    Field(
        key="wake_budget_s",
        kind=Seconds(),
        into="replica.wake.budget_us",
        doc="The hard bound on a wake, from the first held request to readiness. Then held requests "
        "get 504, and the wake goes on.",
    ),
    Field(
        key="wake_cap_s",
        kind=Seconds(),
        into="replica.wake.cap_us",
        doc="When a wake that outlived its budget is torn down.",
    ),
    Field(
        key="wake_backoff_s",
        kind=Seconds(zero=True),
        into="replica.wake.backoff_us",
        doc="Pause after a failed wake; doubles with each failure in a row.",
    ),
    Field(
        key="wake_backoff_max_s",
        kind=Seconds(zero=True),
        into="replica.wake.backoff_max_us",
        doc="The longest such pause.",
    ),
    Field(
        key="stable_s",
        kind=Seconds(zero=True),
        into="replica.wake.stable_us",
        doc="An engine that dies sooner than this after a wake counts as a failed wake.",
    ),
    Field(
        key="phase_limits_s",
        kind=Table(of=Seconds(), words="a table of phase and seconds", keys=Phase),
        into="replica.wake.phase_limits_us",
        merges=True,
        doc="How long single phases of a wake may take; a phase that takes longer fails the wake.",
    ),
    Field(
        key="hold",
        kind=HOLD,
        into="replica.hold",
        merges=True,
        doc="Bounds of the hold queue; beyond them a request gets 429 with Retry-After.",
    ),
)

PARK_FIELDS = (
    Field(
        key="ladder",
        kind=Listed(of=Word(Tier), words="a list of tiers", least=1),
        into="replica.park.ladder",
        doc="The tiers a replica goes down as it stays idle, from shallow to deep, ending in `cold`. "
        "A tier that does not work on this machine is skipped, and poorwill says so. A model with a "
        "`cloud` has `hibernated` and `cold`, one without all the others.",
    ),
    Field(
        key="policy",
        kind=POLICY,
        doc="When an idle replica is parked, and how deep.",
    ),
    Field(
        key="floor",
        kind=FLOOR,
        doc="When the replica must be ready whether or not anybody asks: always, or in windows of the week.",
    ),
    Field(
        key="drain_s",
        kind=Seconds(zero=True),
        into="replica.park.drain_us",
        doc="How long a park waits for requests in flight.",
    ),
    Field(
        key="park_limit_s",
        kind=Seconds(),
        into="replica.park.limit_us",
        doc="A park that takes longer has failed.",
    ),
    Field(
        key="memory",
        kind=Size(),
        into="memory_bytes",
        doc="What the replica needs while ready, for `[fleet] memory`; 0 is unknown.",
    ),
    Field(
        key="priority",
        kind=Whole(least=-1_000_000, most=1_000_000),
        doc="Who gives way when memory or disk runs short: the lower priority is parked, or loses its "
        "snapshot, first.",
    ),
    Field(
        key="hosted",
        kind=HOSTED,
        doc="The hosted API that the model is compared with in the bill, and the bridge to it, if wanted.",
    ),
    Field(
        key="cloud",
        kind=CLOUD,
        doc="The rented machine that the model's engine is on, where it is not this one: poorwill starts "
        "nothing there, has its provider hibernate the machine and restore it. docs/hibernated.md says more.",
    ),
)

MODEL = Group(makes=ModelSettings, fields=(*ENGINE_FIELDS, *WAKE_FIELDS, *PARK_FIELDS))
