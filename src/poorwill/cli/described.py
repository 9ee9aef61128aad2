"""The options that describe a model and a machine to predict from, for every verb that predicts."""

import argparse
import os
from collections.abc import Mapping
from types import MappingProxyType

from poorwill.cli.target import DEFAULT_FILE, fleet_path, read_fleet
from poorwill.cli.verb import Streams
from poorwill.compose.host import HOST_WAKES, KnownHost, known_host
from poorwill.compose.places import ledger_path
from poorwill.core.engine_times import ENGINE_TIMES, USUAL_HOST, CompileCache
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError
from poorwill.core.loaders import GB, LOADERS, Storage
from poorwill.core.prediction import Machine, Start
from poorwill.ledger.schema import reading
from poorwill.ledger.wakes import finished_wakes

BUS_GB_S: Mapping[str, float] = MappingProxyType({"3": 12.0, "4": 24.0, "5": 52.0})
"""What a PCIe generation moves to one accelerator over sixteen lanes, as measured, not as specified."""

_MORE_THAN_ZERO = (
    *("params", "bits", "weights_gb", "layers", "streams", "tp", "disk_gb_s", "link_gbit"),
    "host_factor",
)


_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        **dict.fromkeys(("params", "weights_gb", "layers", "loader", "streams", "host_factor")),
        **dict.fromkeys(("disk_gb_s", "link_gbit")),
        **{"bits": 16.0, "engine": "vllm", "tp": 1, "compile_cache": "hit", "eager": False},
        **{"storage": "nvme", "pcie": "4", "provision_s": 0.0},
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
    group.add_argument("--params", type=_number, metavar="N", help="parameters: 70e9")
    group.add_argument(
        "--bits", type=_number, default=16.0, metavar="N", help="bits a parameter (default: 16)"
    )
    group.add_argument(
        "--weights-gb", type=_number, metavar="GB", help="size, where not params x bits"
    )
    group.add_argument("--layers", type=int, metavar="N", help="default: guessed from --params")
    group.add_argument("--engine", choices=[*ENGINE_TIMES], default="vllm", help="default: vllm")
    group.add_argument("--loader", choices=[*LOADERS], help="default: the engine's own")
    group.add_argument("--streams", type=int, metavar="N", help="concurrent reads of the loader")
    group.add_argument(
        "--tp", type=int, default=1, metavar="N", help="accelerators the model is spread over"
    )
    group.add_argument(
        "--compile-cache",
        choices=[*CompileCache],
        default="hit",
        help="what the start finds (default: hit)",
    )
    group.add_argument(
        "--eager",
        action="store_true",
        help="neither compilation nor graph capture (vLLM's --enforce-eager)",
    )
    group.add_argument(
        "--storage",
        choices=[*Storage],
        default="nvme",
        help="where the weights are (default: nvme)",
    )
    group.add_argument(
        "--disk-gb-s", type=_number, metavar="GB/S", help="its bandwidth as this host measures it"
    )
    group.add_argument(
        "--link-gbit", type=_number, metavar="GBIT/S", help="download first, over this"
    )
    group.add_argument("--pcie", choices=[*BUS_GB_S], default="4", help="generation (default: 4)")
    group.add_argument(
        "--host-factor",
        type=_number,
        metavar="X",
        help="how slow the host's CPU is: 1 is a current server's (default: as the fleet's own starts tell, "
        f"else {USUAL_HOST})",
    )
    group.add_argument(
        "--provision-s", type=_number, default=0.0, metavar="S", help="until the machine is there"
    )


def described_start(options: argparse.Namespace) -> Start:
    """Return the start the options describe. Raises OperatorFault where a figure is impossible."""
    for name in _MORE_THAN_ZERO:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise _fault(f"--{name.replace('_', '-')} must be more than 0", "leave it out")
    return Start(
        parameters=options.params,
        bits=options.bits,
        bytes=None if options.weights_gb is None else round(options.weights_gb * GB),
        layers=options.layers,
        engine=options.engine,
        loader=options.loader or "",
        streams=options.streams,
        ranks=options.tp,
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
        bus=BUS_GB_S[options.pcie] * GB,
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
