"""`poorwill anatomy --predict`: how long a start or wake would take, from a few figures, without a fleet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

from poorwill.cli.parsing.options import Group, Option
from poorwill.cli.parsing.prediction_options import PredictionOptions, fleet_host
from poorwill.cli.parsing.streams import Streams
from poorwill.compose.host import KnownHost
from poorwill.config.values.written import more_than_zero
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.format import counted, size
from poorwill.core.words import Tier
from poorwill.policies.coldstart.engine_times import ENGINE_TIMES
from poorwill.policies.coldstart.loaders import GB
from poorwill.policies.coldstart.prediction import Estimate, Machine, Start, predict_start, predict_wake
from poorwill.policies.coldstart.report.documents import PredictionDocument, estimate_documents
from poorwill.policies.coldstart.report.waterfall import estimate_lines

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


PREDICTION = Group(
    "prediction",
    "How long a start would take, phase by phase, with an interval, from figures alone. Only --params is "
    "needed; each figure more makes it better, above all --storage and --disk-gb-s.",
)


def _level(text: str) -> int:
    if text not in ("1", "2"):
        raise ValueError(f"{text!r} is neither 1 nor 2")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """The options of `poorwill anatomy --predict`."""

    predict: Annotated[bool, Option("predict a start, or a wake (--tier)")] = False
    figures: PredictionOptions = field(default_factory=PredictionOptions)
    tier: Annotated[
        Tier,
        Option(
            "wake from there: asleep (in the engine's own sleep), frozen (its process in a snapshot), "
            "suspended (its machine in one); cold: a start (default: cold)",
            choices=(Tier.ASLEEP, Tier.FROZEN, Tier.SUSPENDED, Tier.COLD),
        ),
    ] = Tier.COLD
    sleep_level: Annotated[
        int,
        Option(
            "asleep with the weights in memory (1), or without: loaded again (2) (default: 1)",
            metavar="1|2",
            read=_level,
        ),
    ] = 1
    image_gb: Annotated[
        float | None,
        Option(
            "what a snapshot or a sleeping engine holds (default: the weights)",
            metavar="GB",
            read=more_than_zero,
        ),
    ] = None

    @property
    def given(self) -> list[str]:
        """Return the options that say something else than their defaults."""
        given = self.figures.given
        given += ["--tier"] if self.tier != Tier.COLD else []
        given += ["--sleep-level"] if self.sleep_level != 1 else []
        return given + (["--image-gb"] if self.image_gb is not None else [])


def say_prediction(options: PredictOptions, fleet: str, streams: Streams, *, as_json: bool) -> int:
    """Print the prediction. Raises OperatorFault if a figure is missing, impossible or without effect."""
    figures = options.figures
    start = figures.start()
    _refuse_idle(options)
    known = fleet_host(fleet, streams.env)
    evidence = _CHECKED.get(options.tier, ENGINE_TIMES[start.engine].evidence)
    estimates = _predicted(options, start, figures.machine(known))
    if as_json:
        whole, phases = estimate_documents(estimates)
        streams.say_json(
            PredictionDocument(
                tier=options.tier,
                engine=start.engine,
                weight_bytes=start.weight_bytes,
                total=whole,
                phases=phases,
                evidence=evidence,
            )
        )
        return 0
    for line in _from_fleet(figures, start, known):
        streams.tell(line)
    billions = start.parameters / 1e9
    from_tier = "" if options.tier is Tier.COLD else f", a wake from {options.tier}"
    streams.say(f"{start.engine}, {billions:g}B parameters, {size(start.weight_bytes)}{from_tier}:")
    streams.say(*estimate_lines(estimates))
    whose = f"{start.engine}'s own phases were" if options.tier is Tier.COLD else "this was"
    streams.say(f"how far {whose} checked: {evidence}")
    return 0


def _refuse_idle(options: PredictOptions) -> None:
    """Raise OperatorFault for a figure that has no part in what is to be predicted."""
    tier, level = options.tier, options.sleep_level
    if level == 2 and tier is not Tier.ASLEEP:
        raise _idle("--sleep-level", "--tier asleep")
    if tier is Tier.COLD:
        if options.image_gb is not None:
            raise _idle("--image-gb", "--tier asleep, frozen or suspended")
        return
    used = _USED[tier, level]
    unused = [name for name in options.figures.given if name not in used]
    if options.image_gb is not None and "--image-gb" not in used:
        unused.append("--image-gb")
    if unused:
        raise _idle(unused[0], "another --tier" if level == 1 else "another --sleep-level")


def _predicted(options: PredictOptions, start: Start, machine: Machine) -> Sequence[Estimate]:
    tier = options.tier
    if tier is Tier.COLD:
        return predict_start(start, machine)
    image = start.weight_bytes if options.image_gb is None else options.image_gb * GB
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


def _from_fleet(figures: PredictionOptions, start: Start, known: KnownHost) -> list[str]:
    """Return what the fleet's measurements put in place of assumptions."""
    lines, factors = [], known.factors.get(start.engine, ())
    if factors and figures.host_factor is None:
        starts = counted(len(factors), "start")
        lines.append(f"host factor {known.factor(start.engine):.2f}, from {starts} of this fleet")
    if known.speed is not None and figures.disk_gb_s is None:
        lines.append(f"storage {size(known.speed.bytes_s)}/s, as measured for this fleet")
    return lines
