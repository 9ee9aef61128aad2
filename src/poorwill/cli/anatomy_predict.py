"""`poorwill anatomy --predict`: how long a start would take, from a few figures, without a fleet."""

import argparse
from collections.abc import Mapping
from types import MappingProxyType

from poorwill.cli.anatomy_json import estimates_json
from poorwill.cli.anatomy_text import estimate_lines
from poorwill.cli.verb import Streams
from poorwill.core.engine_times import ENGINE_TIMES, USUAL_HOST, CompileCache
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.loaders import GB, LOADERS, Storage
from poorwill.core.prediction import Machine, Start, predict_start

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
        default=USUAL_HOST,
        help=f"how slow the host's CPU is: 1 is a current server's (default {USUAL_HOST})",
    )
    group.add_argument("--provision-s", type=float, default=0.0, help="until the machine is there")


def say_prediction(options: argparse.Namespace, streams: Streams) -> int:
    """Print the prediction. Raises OperatorFault where a figure is missing or impossible."""
    start, machine = _start(options), _machine(options)
    estimates = predict_start(start, machine)
    if options.json:
        streams.say_json(estimates_json(estimates))
        return 0
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


def _machine(options: argparse.Namespace) -> Machine:
    if not options.host_factor > 0 or options.provision_s < 0:
        raise _fault("--host-factor must be more than 0 and --provision-s not less", "leave it out")
    return Machine(
        storage=Storage(options.storage),
        bandwidth=None if options.disk_gb_s is None else options.disk_gb_s * GB,
        link=None if options.link_gbit is None else options.link_gbit * 1e9 / 8,
        bus=BUS_GB_S[options.pcie] * GB,
        host=options.host_factor,
        provision_us=round(options.provision_s * 1_000_000),
    )


def _fault(message: str, hint: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, message, hint=hint)
