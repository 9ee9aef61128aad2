"""The keys of `[fleet]`, `[gateway]`, `[[rates]]` and `[spend]`: the only list of them there is."""

from poorwill.config.kinds import ENV_NAME, Flag, Money, Seconds, Share, Size, Text, Whole, choice
from poorwill.config.places import Address, FilePath
from poorwill.config.tables import Field, Group, Listed, Table
from poorwill.config.when import Moment
from poorwill.core.settings import FleetSettings, GatewaySettings, RateSettings, SpendSettings
from poorwill.core.words import Tier

_BY_NAME = Table(of=Money(), words="a table of name and dollars")

FLEET = Group(
    makes=FleetSettings,
    fields=(
        Field(
            key="directory",
            kind=FilePath(),
            default=".",
            doc="Where ledger, snapshots, logs and the lock live.",
        ),
        Field(
            key="on_exit",
            kind=choice("park", "leave", "stop"),
            doc="What a graceful shutdown does with ready replicas: park them by snapshot, leave them "
            "running to be adopted by the next start, or stop them.",
        ),
        Field(
            key="exit_s",
            kind=Seconds(),
            into="exit_us",
            doc="How long a graceful shutdown may take.",
        ),
        Field(
            key="snapshot_quota",
            kind=Size(),
            into="snapshot_quota_bytes",
            doc="How much the snapshots may take on disk; 0: as much as there is.",
        ),
        Field(
            key="memory",
            kind=Size(),
            into="memory_bytes",
            doc="What all ready replicas may need together; 0 is unbounded.",
        ),
        Field(
            key="reap_orphans",
            kind=Flag(),
            doc="End engines and delete snapshots that poorwill made and nobody owns; else they are "
            "only reported.",
        ),
        Field(
            key="encrypt_key_env",
            kind=ENV_NAME,
            doc="The environment variable that holds the key that snapshots are encrypted with.",
        ),
        Field(
            key="guest_memory",
            kind=choice("file", "anonymous"),
            doc="Where the memory of a virtual machine is while it runs: in a file, which a park only "
            "syncs, or in no file, so that a park writes all of it (mapped-ram). Encrypted, always in "
            "no file.",
        ),
    ),
)

_LIMITS = (
    Field(
        key="max_body",
        kind=Size(zero=False),
        into="max_body_bytes",
        doc="The largest request body.",
    ),
    Field(
        key="max_header",
        kind=Size(zero=False),
        into="max_header_bytes",
        doc="The largest request head.",
    ),
    Field(
        key="max_headers",
        kind=Whole(least=1, most=10_000),
        doc="The most header fields in a request.",
    ),
    Field(
        key="head_timeout_s",
        kind=Seconds(),
        into="head_timeout_us",
        doc="How long a client may take to send the head.",
    ),
    Field(
        key="body_timeout_s",
        kind=Seconds(),
        into="body_timeout_us",
        doc="How long a client may take to send the body.",
    ),
    Field(
        key="idle_timeout_s",
        kind=Seconds(),
        into="idle_timeout_us",
        doc="How long a client's connection stays open between requests.",
    ),
    Field(
        key="upstream_timeout_s",
        kind=Seconds(),
        into="upstream_timeout_us",
        doc="How long an engine may take without sending a byte.",
    ),
)

GATEWAY = Group(
    makes=GatewaySettings,
    fields=(
        Field(key="listen", kind=Address(), into="host+port", doc="Where clients connect."),
        Field(
            key="admin",
            kind=Address(),
            into="admin_host+admin_port",
            doc="Where status, metrics, events and the dashboard are; keep it on loopback.",
        ),
        Field(
            key="heartbeat_s",
            kind=Seconds(),
            into="heartbeat_us",
            doc="How often a held client is sent something to keep its connection open.",
        ),
        Field(
            key="commit_after_s",
            kind=Seconds(zero=True),
            into="commit_after_us",
            doc="How long a held JSON answer stays silent before a 200 is committed for heartbeats.",
        ),
        Field(
            key="interim_agents",
            kind=Listed(of=Text(empty=False), words="a list of texts"),
            doc="Beginnings of User-Agent of the clients that accept 102 responses.",
        ),
        *_LIMITS,
    ),
)

RATE = Group(
    makes=RateSettings,
    fields=(
        Field(
            key="effective",
            kind=Moment(),
            into="effective_us",
            default=0,
            doc="From when the rate holds; always, where not given.",
        ),
        Field(
            key="active_usd_h",
            kind=Money(),
            into="active_nusd_h",
            required=True,
            doc="Dollars an hour while a replica is not parked.",
        ),
        Field(
            key="parked_usd_h",
            kind=Table(of=Money(), words="a table of tier and dollars", keys=Tier),
            into="parked_nusd_h",
            doc="Dollars an hour while parked, by tier. A tier not named costs nothing, but `asleep` costs "
            "the active rate: its host runs on.",
        ),
        Field(
            key="storage_usd_gb_month",
            kind=Money(),
            into="storage_nusd_gb_month",
            doc="Dollars a month for each GB of snapshot.",
        ),
        Field(
            key="increment_s",
            kind=Seconds(),
            into="increment_us",
            doc="The provider's billing increment: active time is rounded up to it.",
        ),
        Field(
            key="minimum_s",
            kind=Seconds(zero=True),
            into="minimum_us",
            doc="The least active time the provider charges for.",
        ),
        Field(
            key="currency",
            kind=Text(pattern="[A-Z]{3}", words="a currency's three letters"),
            doc="The currency of the invoice.",
        ),
        Field(key="source", kind=Text(), doc="Where the rate is from: a price list, a contract."),
        Field(key="model", kind=Text(), doc="Only for this model; for all, where not given."),
        Field(
            key="replica",
            kind=Text(),
            doc="Only for this replica, `NAME-0`; for all, where not given.",
        ),
        Field(
            key="driver",
            kind=Text(),
            doc="Only for replicas that this driver started; for all, where not given.",
        ),
    ),
)

SPEND = Group(
    makes=SpendSettings,
    fields=(
        Field(key="day_usd", kind=Money(), into="day_nusd", doc="The most for a day (UTC)."),
        Field(key="month_usd", kind=Money(), into="month_nusd", doc="The most for a month (UTC)."),
        Field(
            key="model_day_usd",
            kind=_BY_NAME,
            into="model_day_nusd",
            doc="The most for a day, by model.",
        ),
        Field(
            key="model_month_usd",
            kind=_BY_NAME,
            into="model_month_nusd",
            doc="The most for a month, by model.",
        ),
        Field(
            key="key_day_usd",
            kind=_BY_NAME,
            into="key_day_nusd",
            doc="The most for a day, by API key.",
        ),
        Field(
            key="key_month_usd",
            kind=_BY_NAME,
            into="key_month_nusd",
            doc="The most for a month, by API key.",
        ),
        Field(key="warn_share", kind=Share(), doc="From which share of a limit on there is a warning."),
    ),
)
