"""`poorwill anatomy --predict`: how long a start or wake would take, from a few figures, without a fleet."""

import argparse
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from poorwill.cli.anatomy.as_json import estimates_json
from poorwill.cli.anatomy.waterfall import estimate_lines
from poorwill.cli.parsing.model_options import (
    add_figures,
    described_machine,
    described_start,
    fleet_host,
    given_figures,
)
from poorwill.cli.parsing.verb import Streams
from poorwill.coldstart.engine_times import ENGINE_TIMES
from poorwill.coldstart.loaders import GB
from poorwill.coldstart.prediction import Estimate, Machine, Start, predict_start, predict_wake
from poorwill.compose.host import KnownHost
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.format import counted
from poorwill.core.words import Tier

_ALWAYS = frozenset(
    {
        *("--params", "--active-params", "--bits", "--weights-gb", "--layers", "--engine"),
        *("--tp", "--pp", "--ep", "--gpu", "--pcie", "--host-factor"),
    }
)
"""The figures that say what the model and its machine are. The others are about how it starts."""

_USED: Mapping[tuple[Tier, int], frozenset[str]] = MappingProxyType(
    {
        (Tier.ASLEEP, 1): _ALWAYS | {"--image-gb"},
        (Tier.ASLEEP, 2): _ALWAYS | {"--loader", "--streams", "--storage", "--disk-gb-s"},
        (Tier.FROZEN, 1): _ALWAYS | {"--disk-gb-s", "--image-gb"},
        (Tier.SUSPENDED, 1): _ALWAYS | {"--disk-gb-s", "--image-gb"},
    }
)
"""The figures that may be given for a wake from each tier; for a start all but `--image-gb`."""


_CHECKED: Mapping[Tier, str] = MappingProxyType(
    {
        Tier.ASLEEP: "half of 16 published wakes of vLLM within 35 %",
        Tier.FROZEN: "six published restores of an accelerator's memory within 20 %; the rest on CPU engines",
        Tier.SUSPENDED: "on CPU engines, never with an accelerator",
    }
)
"""How far a wake from each tier was checked; what a start was checked against is the engine's own."""


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    """Declare the figures a prediction takes."""
    group = parser.add_argument_group(
        "prediction",
        "How long a start would take, phase by phase, with an interval, from figures alone. Only --params is "
        "needed; each figure more makes it better, above all --storage and --disk-gb-s.",
    )
    group.add_argument("--predict", action="store_true", help="predict a start, or a wake (--tier)")
    add_figures(group)
    group.add_argument(
        "--tier",
        choices=[str(tier) for tier in (Tier.ASLEEP, Tier.FROZEN, Tier.SUSPENDED, Tier.COLD)],
        default=str(Tier.COLD),
        help="wake from there: asleep (in the engine's own sleep), frozen (its process in a snapshot), "
        "suspended (its machine in one); cold: a start (default: cold)",
    )
    group.add_argument(
        "--sleep-level",
        type=int,
        choices=(1, 2),
        default=1,
        help="asleep with the weights in memory (1), or without: they are loaded anew (2) (default: 1)",
    )
    group.add_argument(
        "--image-gb",
        type=float,
        metavar="GB",
        help="what a snapshot or a sleeping engine holds (default: the weights)",
    )


def given_prediction(options: argparse.Namespace) -> list[str]:
    """Return the options about a prediction that say something else than their defaults."""
    given = given_figures(options)
    given += ["--tier"] if options.tier != Tier.COLD else []
    given += ["--sleep-level"] if options.sleep_level != 1 else []
    return given + (["--image-gb"] if options.image_gb is not None else [])


def say_prediction(options: argparse.Namespace, streams: Streams) -> int:
    """Print the prediction. Raises OperatorFault where a figure is missing, impossible or without effect."""
    if options.params is None:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "--predict needs --params, the number of parameters",
            hint="--params 70e9",
        )
    _refuse_idle(options)
    start, known = described_start(options), fleet_host(options, streams)
    evidence = _CHECKED.get(Tier(options.tier), ENGINE_TIMES[start.engine].evidence)
    estimates = _predicted(options, start, described_machine(options, known))
    if options.json:
        told = {"tier": options.tier, "engine": start.engine, "weight_bytes": start.weight_bytes}
        streams.say_json(told | estimates_json(estimates) | {"evidence": evidence})
        return 0
    for line in _told(options, start, known):
        streams.tell(line)
    billions = start.parameters / 1e9
    whence = "" if options.tier == Tier.COLD else f", a wake from {options.tier}"
    size = f"{start.weight_bytes / GB:.4g} GB"
    streams.say(f"{start.engine}, {billions:g}B parameters, {size}{whence}:")
    for line in estimate_lines(estimates):
        streams.say(line)
    whose = f"{start.engine}'s own phases were" if options.tier == Tier.COLD else "this was"
    streams.say(f"how far {whose} checked: {evidence}")
    return 0


def _refuse_idle(options: argparse.Namespace) -> None:
    """Raise OperatorFault for a figure that has no part in what is to be predicted."""
    tier, level = Tier(options.tier), options.sleep_level
    if level == 2 and tier is not Tier.ASLEEP:
        raise _idle("--sleep-level", "--tier asleep")
    if tier is Tier.COLD:
        if options.image_gb is not None:
            raise _idle("--image-gb", "--tier asleep, frozen or suspended")
        return
    used = _USED[tier, level]
    unused = [name for name in given_figures(options) if name not in used]
    if options.image_gb is not None and "--image-gb" not in used:
        unused.append("--image-gb")
    if unused:
        raise _idle(unused[0], "another --tier" if level == 1 else "another --sleep-level")


def _predicted(options: argparse.Namespace, start: Start, machine: Machine) -> Sequence[Estimate]:
    tier = Tier(options.tier)
    if tier is Tier.COLD:
        return predict_start(start, machine)
    image = start.weight_bytes if options.image_gb is None else options.image_gb * GB
    if not image > 0:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, "--image-gb must be more than 0", hint="leave it out")
    return predict_wake(
        tier,
        image_bytes=image,
        machine=machine,
        device_bytes=min(image, start.device_bytes),
        ranks=start.ranks,
        reload=start if options.sleep_level == 2 else None,
    )


def _idle(name: str, wanted: str) -> OperatorFault:
    return OperatorFault(
        ErrorCode.CONFIG_INVALID,
        f"{name} has no part in this prediction",
        hint=f"leave it out, or ask for {wanted}",
    )


def _told(options: argparse.Namespace, start: Start, known: KnownHost) -> list[str]:
    """Return what the fleet's measurements put in place of assumptions."""
    told, factors = [], known.factors.get(start.engine, ())
    if factors and options.host_factor is None:
        starts = counted(len(factors), "start")
        told.append(f"host factor {known.factor(start.engine):.2f}, from {starts} of this fleet")
    if known.speed is not None and options.disk_gb_s is None:
        told.append(f"storage {known.speed.bytes_s / GB:.2f} GB/s, as measured for this fleet")
    return told
