"""`poorwill anatomy --predict`: how long a start would take, from a few figures, without a fleet."""

import argparse

from poorwill.cli.anatomy_json import estimates_json
from poorwill.cli.anatomy_text import counted, estimate_lines
from poorwill.cli.described import add_figures, described_machine, described_start, fleet_host
from poorwill.cli.verb import Streams
from poorwill.compose.host import KnownHost
from poorwill.core.engine_times import ENGINE_TIMES
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.loaders import GB
from poorwill.core.prediction import Start, predict_start


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    """Declare the figures a prediction takes."""
    group = parser.add_argument_group("prediction")
    group.add_argument("--predict", action="store_true", help="predict a start; needs --params")
    add_figures(group)


def say_prediction(options: argparse.Namespace, streams: Streams) -> int:
    """Print the prediction. Raises OperatorFault where a figure is missing or impossible."""
    if options.params is None:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "--predict needs --params, the number of parameters",
            hint="--params 70e9",
        )
    start, known = described_start(options), fleet_host(options, streams)
    evidence = ENGINE_TIMES[start.engine].evidence
    estimates = predict_start(start, described_machine(options, known))
    if options.json:
        streams.say_json(estimates_json(estimates) | {"evidence": evidence})
        return 0
    for line in _told(options, start, known):
        streams.tell(line)
    billions = start.parameters / 1e9
    streams.say(f"{start.engine}, {billions:g}B parameters, {start.weight_bytes / GB:.4g} GB:")
    for line in estimate_lines(estimates):
        streams.say(line)
    streams.say(f"how far {start.engine}'s own phases were checked: {evidence}")
    return 0


def _told(options: argparse.Namespace, start: Start, known: KnownHost) -> list[str]:
    """Return what the fleet's measurements put in place of assumptions."""
    told, factors = [], known.factors.get(start.engine, ())
    if factors and options.host_factor is None:
        starts = counted(len(factors), "start")
        told.append(f"host factor {known.factor(start.engine):.2f}, from {starts} of this fleet")
    if known.speed is not None and options.disk_gb_s is None:
        told.append(f"storage {known.speed.bytes_s / GB:.2f} GB/s, as measured for this fleet")
    return told
