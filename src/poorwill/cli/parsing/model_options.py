"""The options that describe a model and a machine to predict from, for every verb that predicts."""

import argparse
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from poorwill.cli.parsing.target import DEFAULT_FILE, fleet_path, read_fleet
from poorwill.cli.parsing.verb import Streams
from poorwill.coldstart.engine_times import ENGINE_TIMES, USUAL_HOST, CompileCache
from poorwill.coldstart.loaders import GB, LOADERS, PCIE_OF, PCIE_RATE, USUAL_BANDWIDTH, Storage
from poorwill.coldstart.prediction import Machine, Start
from poorwill.compose.host import HOST_WAKES, KnownHost, known_host
from poorwill.compose.paths import ledger_path
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading

_MORE_THAN_ZERO = (
    *("params", "active_params", "bits", "weights_gb", "layers", "streams", "tp", "pp"),
    *("disk_gb_s", "link_gbit", "host_factor"),
)

_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        **dict.fromkeys(("params", "active_params", "weights_gb", "layers", "loader", "streams")),
        **dict.fromkeys(("disk_gb_s", "link_gbit", "gpu", "pcie", "host_factor")),
        **{"bits": 16.0, "engine": "vllm", "tp": 1, "pp": 1, "ep": False},
        **{"compile_cache": "hit", "eager": False, "storage": "nvme", "provision_s": 0.0},
    }
)
"""Every figure, and what it is where it was not given."""


def given_figures(options: argparse.Namespace) -> list[str]:
    """Return the options among the figures that say something else than their defaults."""
    return [
        "--" + name.replace("_", "-")
        for name, default in _DEFAULTS.items()
        if getattr(options, name) != default
    ]


def add_figures(group: argparse._ArgumentGroup) -> None:
    """Declare the figures a prediction takes."""
    add = group.add_argument
    add("--params", type=_number, metavar="N", help="parameters: 70e9")
    add(
        "--active-params",
        type=_number,
        metavar="N",
        help="those that take part in a token, of a mixture of experts: 22e9 (default: all)",
    )
    add("--bits", type=_number, default=16.0, metavar="N", help="bits a parameter (default: 16)")
    add("--weights-gb", type=_number, metavar="GB", help="size, where not params x bits")
    add("--layers", type=int, metavar="N", help="default: guessed from the active parameters")
    _add_engine(add)
    _add_machine(add)


def _add_engine(add: Callable[..., object]) -> None:
    add("--engine", choices=[*ENGINE_TIMES], default="vllm", help="default: vllm")
    add(
        "--loader",
        choices=[*LOADERS],
        help="default: the engine's own. runai reads the whole model for each accelerator, "
        "runai-distributed shares it out and exchanges it, runai-sharded reads each one's own files",
    )
    add("--streams", type=int, metavar="N", help="concurrent reads of the loader, where set")
    add("--tp", type=int, default=1, metavar="N", help="accelerators each layer is cut over")
    add("--pp", type=int, default=1, metavar="N", help="pipeline stages, each on --tp accelerators")
    add(
        "--ep",
        action="store_true",
        help="each accelerator holds whole experts (vLLM's --enable-expert-parallel)",
    )
    add(
        "--compile-cache",
        choices=[*CompileCache],
        default="hit",
        help="what the start finds of an earlier compilation; none: it does not compile (default: hit)",
    )
    add(
        "--eager",
        action="store_true",
        help="neither compilation nor graph capture (vLLM's --enforce-eager)",
    )


def _add_machine(add: Callable[..., object]) -> None:
    add(
        "--storage",
        choices=[*Storage],
        default="nvme",
        help="where the weights are: cache (page cache or tmpfs: a warm start), nvme (a local drive), block "
        "(a cloud's network drive), network (a shared file system), object (S3 and its like) (default: nvme)",
    )
    usual = ", ".join(f"{kind} {rate / GB:g}" for kind, rate in USUAL_BANDWIDTH.items())
    add(
        "--disk-gb-s",
        type=_number,
        metavar="GB/S",
        help="its bandwidth as this host measures it: of a network drive the least of the drive and the "
        f"host's link (default: as measured for the fleet, else {usual})",
    )
    add("--link-gbit", type=_number, metavar="GBIT/S", help="download first, over this")
    add(
        "--gpu",
        type=str.lower,
        choices=[*PCIE_OF],
        metavar="NAME",
        help="for its PCIe: " + ", ".join(PCIE_OF),
    )
    add("--pcie", choices=[*PCIE_RATE], help="generation (default: the --gpu's, else 4)")
    add(
        "--host-factor",
        type=_number,
        metavar="X",
        help="how slow the host's CPU is: 1 is a current server's (default: as the fleet's own starts tell, "
        f"else {USUAL_HOST})",
    )
    add("--provision-s", type=_number, default=0.0, metavar="S", help="until the machine is there")


def described_start(options: argparse.Namespace) -> Start:
    """Return the start the options describe. Raises OperatorFault where a figure is impossible."""
    for name in _MORE_THAN_ZERO:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise _fault(f"--{name.replace('_', '-')} must be more than 0", "leave it out")
    active = options.active_params
    if active is not None and active > options.params:
        raise _fault("--active-params must not be more than --params", "leave it out")
    return Start(
        parameters=options.params,
        active=active,
        bits=options.bits,
        bytes=None if options.weights_gb is None else round(options.weights_gb * GB),
        layers=options.layers,
        engine=options.engine,
        loader=options.loader or "",
        streams=options.streams,
        ranks=options.tp * options.pp,
        stages=options.pp,
        experts_apart=options.ep,
        compile_cache=CompileCache(options.compile_cache),
        eager=options.eager,
    )


def described_machine(options: argparse.Namespace, known: KnownHost) -> Machine:
    """Return the machine the options describe; for what they leave out, what a fleet has measured."""
    if options.provision_s < 0:
        raise _fault("--provision-s must not be less than 0", "leave it out")
    measured = known.speed.bytes_s if known.speed else None
    host = known.factor(options.engine) if options.host_factor is None else options.host_factor
    return Machine(
        storage=Storage(options.storage),
        bandwidth=measured if options.disk_gb_s is None else options.disk_gb_s * GB,
        link=None if options.link_gbit is None else options.link_gbit * 1e9 / 8,
        bus=PCIE_RATE[options.pcie or PCIE_OF.get(options.gpu, "4")],
        host=host,
        provision_us=round(options.provision_s * 1_000_000),
    )


def fleet_host(options: argparse.Namespace, streams: Streams) -> KnownHost:
    """Return what the fleet named by --fleet has measured; nothing where there is no fleet.

    A prediction needs none, so a fleet that cannot be read is no error, unless it was named.
    """
    named = options.fleet != DEFAULT_FILE
    if not named and not os.path.exists(fleet_path(options)):
        return KnownHost()
    try:
        fleet = read_fleet(options, streams)
        path = ledger_path(fleet)
        wakes = []
        if os.path.exists(path):
            with reading(path) as db:
                wakes = finished_wakes(db, last=HOST_WAKES)
        return known_host(fleet, wakes, env=streams.env)
    except PoorwillError:
        if named:
            raise
        return KnownHost()


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e18:  # catches nan as well
        raise argparse.ArgumentTypeError(f"{text!r} is not a sensible number, such as 70e9")
    return value


def _fault(message: str, hint: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, message, hint=hint)
