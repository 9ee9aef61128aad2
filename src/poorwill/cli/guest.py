"""`poorwill guest`: builds the virtual machine that a model is suspended in, without a container engine.

`build` makes it from the fleet's own configuration; `list` shows what there is and whether KVM works.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

from poorwill.cli.parsing.target import add_fleet_option, add_json_option, read_fleet
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.compose.clock import SystemClock
from poorwill.compose.virtual_machines import current_guest, guest_home, guest_plan
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ReplicaId, Tier
from poorwill.engines.kinds import make_engine
from poorwill.hosts.guests.build import GuestPlan, build_guest
from poorwill.hosts.guests.directory import Guest, open_guest
from poorwill.hosts.guests.kernel import fetch_busybox, fetch_kernel
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.telemetry.log import StreamLog
from poorwill.tiers.suspended.cold import QemuColdDriver
from poorwill.tiers.suspended.golden import DIRECTORY, make_golden
from poorwill.tiers.suspended.qemu.kvm import prove_kvm
from poorwill.tiers.suspended.qemu.program import find_hypervisor
from poorwill.tiers.suspended.qemu.runs import QemuRuns


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["build", "list"], help="what to do")
    parser.add_argument("model", nargs="?", help="the model, as in fleet.toml; for build")
    add_fleet_option(parser)
    add_json_option(parser)
    parser.add_argument(
        "--memory", type=int, default=0, metavar="MIB", help="default: from the model file's size"
    )
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="processors (default: 2)")
    parser.add_argument(
        "--golden",
        action="store_true",
        help="boot it once and keep it as it is when ready: cold starts then take no boot",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace a guest; its snapshots are refused then"
    )


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    settings = read_fleet(options, streams)
    if options.action == "list":
        if options.model is not None:
            raise RequestFault(ErrorCode.INVALID_REQUEST, "poorwill guest list takes no model")
        return await _list(settings, options, streams)
    model = _model(settings, options.model)
    plan = guest_plan(settings, model, memory_mib=options.memory, cpus=options.cpus)
    guest = await asyncio.to_thread(_build, plan, streams, replacing=options.replace)
    if options.golden:
        await _golden(settings, model, guest, streams)
    _say_built(guest, model, options, streams)
    return 0


def _model(settings: FleetSettings, name: str | None) -> ModelSettings:
    for model in settings.models:
        if model.name == name or (name is None and len(settings.models) == 1):
            return model
    names = ", ".join(model.name for model in settings.models)
    raise RequestFault(
        ErrorCode.MODEL_NOT_FOUND,
        f"which model? not {name}" if name else "which model?",
        hint=f"the fleet has {names}",
    )


def _build(plan: GuestPlan, streams: Streams, *, replacing: bool) -> Guest:
    cache = _cache(streams.env)
    streams.tell(f"fetching a Debian kernel and busybox (kept in {cache})")
    kernel, busybox = fetch_kernel(cache), fetch_busybox(cache)
    streams.tell(f"building a guest with Linux {kernel.version} and {plan.engine}")
    return build_guest(plan, kernel=kernel, busybox=busybox, replacing=replacing)


async def _golden(settings: FleetSettings, model: ModelSettings, guest: Guest, streams: Streams) -> None:
    """Boot the guest in a directory of its own beside it and keep its state."""
    clock = SystemClock.started()
    log = StreamLog(stream=streams.stderr, level="warning")
    hypervisor, why = await prove_kvm(await find_hypervisor(), guest)
    streams.tell(f"booting it once, with {why}")
    with tempfile.TemporaryDirectory(dir=guest.directory, prefix=".boot-") as scratch:
        engine = make_engine(model, directory=scratch, clock=clock, env=streams.env)
        launch = engine.launch(replica=ReplicaId("golden"), generation=1)
        runs = QemuRuns(
            hypervisor=hypervisor,
            guests={model.name: guest},
            processes=EngineProcesses(fleet=scratch, clock=clock, log=log),
            directory=Path(scratch),
            clock=clock,
            log=log,
        )
        try:
            await make_golden(runs, QemuColdDriver(runs=runs), launch, report=lambda mark: None)
        except DriverError as error:
            raise OperatorFault(
                ErrorCode.WAKE_FAILED,
                f"the guest does not boot: {error}",
                hint="give it more memory",
            ) from error


def _say_built(guest: Guest, model: ModelSettings, options: argparse.Namespace, streams: Streams) -> None:
    if options.json:
        streams.say_json(_as_json(guest))
        return
    streams.say(f"built {guest.directory}: {_described(guest)}")
    if Tier.SUSPENDED not in model.replica.park.ladder:
        streams.say('next: put "suspended" into the model\'s ladder, before "cold"')


async def _list(settings: FleetSettings, options: argparse.Namespace, streams: Streams) -> int:
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
        listed = {name: {**_as_json(guest), "stale": stale.get(name, "")} for name, guest in guests.items()}
        streams.say_json({"guests": listed, "execution": why})
        return 0
    for name, guest in guests.items():
        streams.say(f"{name}: {_described(guest)}")
        if name in stale:
            streams.say(f"  not used: {stale[name]}")
    streams.say(f"execution: {why}")
    return 0


def _described(guest: Guest) -> str:
    size = (Path(guest.kernel).stat().st_size + Path(guest.initrd).stat().st_size) / 1e6
    golden = ", golden image" if _has_golden(guest) else ""
    return (
        f"{guest.engine}, Linux {guest.facts.get('kernel', '?')}, {size:.0f} MB, "
        f"{guest.memory_mib} MiB of memory, {guest.cpus} processors{golden}"
    )


def _as_json(guest: Guest) -> Mapping[str, object]:
    return {
        "directory": guest.directory,
        "engine": guest.engine,
        "memory_mib": guest.memory_mib,
        "cpus": guest.cpus,
        "digest": guest.digest,
        "golden": _has_golden(guest),
        "facts": dict(guest.facts),
    }


def _has_golden(guest: Guest) -> bool:
    return Path(guest.directory, DIRECTORY).is_dir()


def _cache(env: Mapping[str, str]) -> Path:
    home = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "/var/tmp"), ".cache"))
    return Path(home, "poorwill", "guest")


VERB = Verb(
    name="guest",
    help="build the virtual machine that a model is suspended in",
    options=_options,
    run=_run,
    epilog="example: poorwill guest build llama-8b --golden",
)
