"""`poorwill guest`: builds the virtual machine that a model is suspended in, without a container engine.

`build` makes it from the fleet's own configuration; `list` shows what there is and whether KVM works.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Struct

from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetOption, JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb, verb_family
from poorwill.compose.drivers.virtual_machines import current_guest, guest_home, guest_plan, make_golden_guest
from poorwill.config.values.written import natural, positive
from poorwill.core.errors import OperatorFault
from poorwill.core.format import size
from poorwill.core.words import Tier
from poorwill.hosts.guests.build import GuestPlan, build_guest
from poorwill.hosts.guests.directory import Guest, open_guest
from poorwill.hosts.guests.kernel import fetch_busybox, fetch_kernel
from poorwill.telemetry.log import StreamLog
from poorwill.tiers.suspended.golden import DIRECTORY
from poorwill.tiers.suspended.qemu.kvm import prove_kvm
from poorwill.tiers.suspended.qemu.program import find_hypervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestListOptions:
    """The options of `poorwill guest list`."""

    fleet: FleetOption = DEFAULT_FILE
    json: JsonOption = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestBuildOptions(GuestListOptions):
    """The options of `poorwill guest build`."""

    model: Annotated[
        str | None,
        Option(
            "as in fleet.toml (default: the fleet's only model)",
            argument=True,
            metavar="MODEL",
            values=Values.MODELS,
        ),
    ] = None
    memory_mib: Annotated[
        int, Option("default: from the model file's size", flag="--memory", metavar="MIB", read=natural)
    ] = 0
    cpus: Annotated[int, Option("processors (default: 2)", metavar="N", read=positive)] = 2
    golden: Annotated[
        bool, Option("boot it once and keep it as it is when ready: cold starts then take no boot")
    ] = False
    replace: Annotated[bool, Option("replace a guest; its snapshots are refused then")] = False


class GuestDocument(Struct, frozen=True, kw_only=True):
    """A guest; `stale` says why it is not used, empty if it is."""

    directory: str
    engine: str
    memory_mib: int
    cpus: int
    digest: str
    golden: bool = False
    facts: Mapping[str, str]
    stale: str = ""


class GuestsDocument(Struct, frozen=True, kw_only=True):
    """The guests of a fleet by model, and how they are executed."""

    guests: Mapping[str, GuestDocument]
    execution: str


async def _build_guest(options: GuestBuildOptions, streams: Streams) -> int:
    settings = read_fleet(options.fleet, streams.env)
    model = settings.model_named(options.model)
    plan = guest_plan(settings, model, memory_mib=options.memory_mib, cpus=options.cpus)
    guest = await asyncio.to_thread(_build, plan, streams, replacing=options.replace)
    if options.golden:
        log = StreamLog(stream=streams.stderr, level="warning")
        await make_golden_guest(settings, model, guest, env=streams.env, log=log, tell=streams.tell)
    if options.json:
        streams.say_json(_document(guest))
        return 0
    streams.say(f"built {guest.directory}: {_described(guest)}")
    if Tier.SUSPENDED not in model.replica.park.ladder:
        streams.say('next: put "suspended" into the model\'s ladder, before "cold"')
    return 0


def _build(plan: GuestPlan, streams: Streams, *, replacing: bool) -> Guest:
    cache = _cache(streams.env)
    streams.tell(f"fetching a Debian kernel and busybox (kept in {cache})")
    kernel, busybox = fetch_kernel(cache), fetch_busybox(cache)
    streams.tell(f"building a guest with Linux {kernel.version} and {plan.engine}")
    return build_guest(plan, kernel=kernel, busybox=busybox, replacing=replacing)


async def _list(options: GuestListOptions, streams: Streams) -> int:
    settings = read_fleet(options.fleet, streams.env)
    guests, stale = {}, {}
    for model in settings.models:
        try:
            guests[model.name] = open_guest(guest_home(settings, model.name))
            current_guest(settings, model)
        except OperatorFault as fault:
            if model.name in guests:
                stale[model.name] = str(fault)
    why = "no guest to try it with"
    if guests:
        _, why = await prove_kvm(await find_hypervisor(), next(iter(guests.values())))
    if options.json:
        listed = {str(name): _document(guest, stale.get(name, "")) for name, guest in guests.items()}
        streams.say_json(GuestsDocument(guests=listed, execution=why))
        return 0
    for name, guest in guests.items():
        streams.say(f"{name}: {_described(guest)}")
        if name in stale:
            streams.say(f"  not used: {stale[name]}")
    streams.say(f"execution: {why}")
    return 0


def _described(guest: Guest) -> str:
    files = Path(guest.kernel).stat().st_size + Path(guest.initrd).stat().st_size
    golden = ", golden image" if _has_golden(guest) else ""
    return (
        f"{guest.engine}, Linux {guest.facts.get('kernel', '?')}, {size(files)}, "
        f"{guest.memory_mib} MiB of memory, {guest.cpus} processors{golden}"
    )


def _document(guest: Guest, stale: str = "") -> GuestDocument:
    found = msgspec.convert(guest, GuestDocument, from_attributes=True)
    return msgspec.structs.replace(found, golden=_has_golden(guest), stale=stale)


def _has_golden(guest: Guest) -> bool:
    return Path(guest.directory, DIRECTORY).is_dir()


def _cache(env: Mapping[str, str]) -> Path:
    home = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "/var/tmp"), ".cache"))
    return Path(home, "poorwill", "guest")


VERB = verb_family(
    {
        "build": ("build a model's guest", new_verb(GuestBuildOptions, _build_guest, GuestDocument)),
        "list": (
            "list the guests, and say whether KVM works",
            new_verb(GuestListOptions, _list, GuestsDocument),
        ),
    },
    epilog="example: poorwill guest build llama-8b --golden",
)
