"""`poorwill anatomy --predict`: how long a start would take, from a few figures, without a fleet."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

from poorwill.cli.anatomy_json import estimates_json
from poorwill.cli.anatomy_text import estimate_lines
from poorwill.cli.target import fleet_path, read_fleet
from poorwill.cli.verb import Streams
from poorwill.compose import ledger_path
from poorwill.core.anatomy import totals
from poorwill.core.engine_times import ENGINE_TIMES, USUAL_HOST, CompileCache
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError
from poorwill.core.loaders import GB, LOADERS, Storage
from poorwill.core.prediction import Machine, Start, host_factor, predict_start
from poorwill.core.words import Tier
from poorwill.engines.expectation import known_start
from poorwill.engines.storage_speed import kept_speed
from poorwill.ledger.schema import reading
from poorwill.ledger.wakes import finished_wakes

BUS_GB_S: Mapping[str, float] = MappingProxyType({"3": 12.0, "4": 24.0, "5": 52.0})
"""What a PCIe generation moves to one accelerator over sixteen lanes, as measured, not as specified."""


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    """Declare the figures a prediction takes."""
    group = parser.add_argument_group("prediction")
    group.add_argument("--predict", action="store_true", help="predict a start; needs --params")
    group.add_argument("--params", type=float, metavar="N", help="parameters: 70e9")
    group.add_argument("--bits", type=float, default=16.0, help="bits a parameter (default 16)")
    group.add_argument(
        "--weights-gb", type=float, metavar="GB", help="bytes, where not params x bits"
    )
    group.add_argument("--layers", type=int, help="default: guessed from --params")
    group.add_argument("--engine", choices=[*ENGINE_TIMES], default="vllm", help="default: vllm")
    group.add_argument("--loader", choices=[*LOADERS], help="default: the engine's own")
    group.add_argument("--streams", type=int, help="concurrent reads of the loader")
    group.add_argument("--tp", type=int, default=1, help="accelerators the model is spread over")
    group.add_argument(
        "--compile-cache", choices=[*CompileCache], default="hit", help="what the start finds"
    )
    group.add_argument(
        "--storage", choices=[*Storage], default="nvme", help="where the weights are"
    )
    group.add_argument("--disk-gb-s", type=float, metavar="GB/S", help="as this host measures it")
    group.add_argument(
        "--link-gbit", type=float, metavar="GBIT/S", help="download first, over this"
    )
    group.add_argument("--pcie", choices=[*BUS_GB_S], default="4", help="generation (default 4)")
    group.add_argument(
        "--host-factor",
        type=float,
        help="how slow the host's CPU is: 1 is a current server's (default: as the fleet's own starts tell, "
        f"else {USUAL_HOST})",
    )
    group.add_argument("--provision-s", type=float, default=0.0, help="until the machine is there")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """What a fleet has measured of its machine, for whatever the command line does not say."""

    host: float = USUAL_HOST
    bandwidth: float | None = None
    told: Sequence[str] = ()


def _learned(options: argparse.Namespace, streams: Streams) -> _Learned:
    """Return what the fleet named by --fleet has measured; nothing where there is no fleet.

    A prediction needs none, so a fleet that cannot be read is no error.
    """
    if not os.path.exists(fleet_path(options)):
        return _Learned()
    try:
        fleet = read_fleet(options, streams)
        with reading(ledger_path(fleet)) as db:
            wakes = [wake for wake in finished_wakes(db) if wake.ok and wake.from_tier is Tier.COLD]
    except PoorwillError:
        return _Learned()
    starts = {model.name: known_start(model, env=streams.env) for model in fleet.models}
    factors = [
        host_factor(start, totals(wake.spans))
        for wake in wakes
        if (start := starts.get(wake.model)) is not None
    ]
    speed = kept_speed(fleet.directory)
    told = []
    if factors:
        told.append(f"host factor {median(factors):.2f}, from {len(factors)} starts of this fleet")
    if speed is not None:
        told.append(f"storage {speed.bytes_s / GB:.2f} GB/s, as measured for this fleet")
    return _Learned(
        host=median(factors) if factors else USUAL_HOST,
        bandwidth=speed.bytes_s if speed else None,
        told=told,
    )


def say_prediction(options: argparse.Namespace, streams: Streams) -> int:
    """Print the prediction. Raises OperatorFault where a figure is missing or impossible."""
    learned = _learned(options, streams)
    start, machine = _start(options), _machine(options, learned)
    estimates = predict_start(start, machine)
    if options.json:
        streams.say_json(estimates_json(estimates))
        return 0
    for line in learned.told:
        streams.tell(line)
    billions = start.parameters / 1e9
    streams.say(f"{start.engine}, {billions:g}B parameters, {start.weight_bytes / GB:.4g} GB:")
    for line in estimate_lines(estimates):
        streams.say(line)
    return 0


def _start(options: argparse.Namespace) -> Start:
    if options.params is None or not options.params > 0:
        raise _fault("--predict needs --params, the number of parameters", "--params 70e9")
    for name in ("bits", "weights_gb", "layers", "streams", "tp", "disk_gb_s", "link_gbit"):
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
    )


def _machine(options: argparse.Namespace, learned: _Learned) -> Machine:
    host = learned.host if options.host_factor is None else options.host_factor
    if not host > 0 or options.provision_s < 0:
        raise _fault("--host-factor must be more than 0 and --provision-s not less", "leave it out")
    return Machine(
        storage=Storage(options.storage),
        bandwidth=learned.bandwidth if options.disk_gb_s is None else options.disk_gb_s * GB,
        link=None if options.link_gbit is None else options.link_gbit * 1e9 / 8,
        bus=BUS_GB_S[options.pcie] * GB,
        host=host,
        provision_us=round(options.provision_s * 1_000_000),
    )


def _fault(message: str, hint: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, message, hint=hint)
