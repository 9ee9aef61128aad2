"""What the admin listener answers. The command line prints it as it is with `--json`."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from poorwill.core.format import moment, size, table
from poorwill.core.spend import LimitDocument
from poorwill.core.words import Phase, Tier
from poorwill.policies.placement.refusals import gib


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


class DeviceHeld(Struct, frozen=True, kw_only=True):
    """What a replica has of a device."""

    replica: str
    given_bytes: int
    holds_bytes: int | None


class DeviceNow(Struct, frozen=True, kw_only=True):
    """One device: what is left of it, and who has the rest."""

    id: str
    index: int
    name: str
    bytes: int
    free_bytes: int
    foreign_bytes: int
    replicas: tuple[DeviceHeld, ...]
    unfit: str
    caution: str


class DiskNow(Struct, frozen=True, kw_only=True):
    """A file system of another host, and what it holds: `snapshots`, `weights`."""

    path: str
    holds: tuple[str, ...]
    free_bytes: int
    total_bytes: int


class HostNow(Struct, frozen=True, kw_only=True):
    """Another host: whether it answers, and what it said last of itself."""

    name: str
    answers: bool
    engines: int
    disks: tuple[DiskNow, ...]


class PullNow(Struct, frozen=True, kw_only=True):
    """A download of a model: `waiting`, `pulling`, `done`, `failed` or `stopped`."""

    name: str
    by: str
    asked_us: int
    state: str
    done_bytes: int = 0
    need_bytes: int = 0
    path: str = ""
    why: str = ""


class CaptureNow(Struct, frozen=True, kw_only=True):
    """A model whose prompts are kept until an instant; `since_us` is the oldest that is there."""

    model: str
    until_us: int
    prompts: int
    since_us: int | None


class PromptDocument(Struct, frozen=True, kw_only=True):
    """What a request asked, as far as it is kept."""

    request: str
    model: str
    at_us: int
    size_bytes: int
    text: str


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
    devices: tuple[DeviceNow, ...] = ()
    pulls: tuple[PullNow, ...] = ()
    captures: tuple[CaptureNow, ...] = ()
    hosts: tuple[HostNow, ...] = ()


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


def place_lines(answer: StatusDocument) -> list[str]:
    """Say what is left of each device, and who has the rest, and of the disks of other hosts."""
    rows: list[tuple[str, ...]] = [("HOST", "STATE", "ENGINES", "FREE")]
    for host in answer.hosts:
        free = (
            f"{size(d.free_bytes)} of {size(d.total_bytes)} for {' and '.join(d.holds)}" for d in host.disks
        )
        rows.append((host.name, "up" if host.answers else "silent", str(host.engines), ", ".join(free)))
    return [*_device_lines(answer.devices), *(["", *table(rows)] if answer.hosts else [])]


def _device_lines(devices: Sequence[DeviceNow]) -> list[str]:
    rows: list[tuple[str, ...]] = [("DEVICE", "MEMORY", "FREE", "FOREIGN", "REPLICAS")]
    for one in devices:
        sizes = (gib(count) for count in (one.bytes, one.free_bytes, one.foreign_bytes))
        held = ", ".join(f"{each.replica} {gib(each.given_bytes)}" for each in one.replicas)
        rows.append((one.id, *sizes, one.unfit or held + (f" ({one.caution})" if one.caution else "")))
    return ["", *table(rows)] if devices else []


def capture_lines(captures: Sequence[CaptureNow]) -> list[str]:
    """Say which models' prompts are kept, and until when."""
    return [f"{one.model}: prompts are kept in memory until {moment(one.until_us)}" for one in captures]
