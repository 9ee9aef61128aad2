"""Everything that is known of a fleet's wakes, model by model: for people and for JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from poorwill.compose.host import known_host
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.format import counted, duration, moment
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import TIER_DEPTH, ModelName, Tier
from poorwill.engines.measured.expectation import expected_wakes
from poorwill.engines.measured.storage_speed import StorageSpeed
from poorwill.policies.coldstart.advice import Advice, StartSetup, advise
from poorwill.policies.coldstart.prediction import Estimate, Learned, total
from poorwill.policies.coldstart.report.documents import (
    AdviceDocument,
    AnatomyDocument,
    ExpectedDocument,
    ModelAnatomyDocument,
    StorageDocument,
    estimate_documents,
    start_document,
    wake_documents,
)
from poorwill.policies.coldstart.report.waterfall import advice_lines, side_by_side, wake_list, waterfall
from poorwill.policies.coldstart.starts import FinishedWake, StartSummary, compare
from poorwill.telemetry.tracing import chrome_trace, endpoint_of, open_tracer

LISTED = 10
"""How many of a model's wakes are listed, with the id that shows the waterfall of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWakes:
    """One model's wakes, compared, and the next one from each tier."""

    model: ModelName
    wakes: Sequence[FinishedWake]
    starts: Sequence[StartSummary]
    advice: Sequence[Advice]
    expected: Mapping[Tier, Sequence[Estimate]]
    """The next wake from each tier: measured, or predicted if none was."""
    measured: frozenset[Tier]


def wakes_of(
    fleet: FleetSettings,
    name: ModelName,
    wakes: Sequence[FinishedWake],
    speed: StorageSpeed | None,
    *,
    env: Mapping[str, str],
) -> ModelWakes:
    """Return what is known of one model's wakes. Blocks for the headers of model files."""
    mine = [wake for wake in wakes if wake.model == name]
    model = next((model for model in fleet.models if model.name == name), None)
    starts = compare(mine)
    learned = Learned()
    for wake in mine:
        if wake.ok and wake.spans:
            learned.observe(wake.from_tier, wake.spans)
    about = StartSetup(
        ladder=model.replica.park.ladder if model else (),
        bandwidth=speed.bytes_s if speed else None,
        remote=speed.file_system if speed and speed.remote else "",
        engine=model.engine.kind if model else "",
    )
    measured = frozenset(tier for tier in Tier if learned.count(tier))
    prior = _predicted(model, fleet, wakes, env) if model else {}
    return ModelWakes(
        model=name,
        wakes=mine,
        starts=starts,
        advice=advise(starts, about),
        expected=prior | {tier: learned.expect(tier, prior.get(tier, ())) for tier in measured},
        measured=measured,
    )


def _predicted(
    model: ModelSettings, fleet: FleetSettings, wakes: Sequence[FinishedWake], env: Mapping[str, str]
) -> dict[Tier, Sequence[Estimate]]:
    """Return what each tier of the model's ladder should take, from its files and what the fleet measured."""
    host = known_host(fleet, wakes, env=env).pace(model.engine.kind)
    found = expected_wakes(model, directory=fleet.directory, env=env, host=host)
    return {tier: found[tier] for tier in model.replica.park.ladder if tier in found}


def report_lines(
    report: ModelWakes, bandwidth: float | None, *, detailed: bool, width: int | None
) -> list[str]:
    """Return one model's wakes for people; `detailed`: its last wake and the list of them as well."""
    lines = []
    if detailed and report.wakes:
        lines += [*waterfall(report.wakes[-1], bandwidth, width=width), ""]
        lines += [*wake_list(report.wakes[-LISTED:]), ""]
    lines.append(_heading(report))
    if report.wakes:
        lines += side_by_side(report.starts, bandwidth)
    for tier in sorted(report.expected, key=TIER_DEPTH.__getitem__):
        lines.append(f"  the next wake from {tier}: {_next(report, tier)}")
    return [*lines, *advice_lines(report.advice), ""]


def _heading(report: ModelWakes) -> str:
    if not report.wakes:
        return f"{report.model}: no wake has finished yet"
    failed = sum(not wake.ok for wake in report.wakes)
    told = f"{report.model}: {counted(len(report.wakes), 'wake')}"
    told += f", {failed} failed" if failed else ""
    several = any(start.count > 1 for start in report.starts)
    return told + (", median [lowest .. highest]" if several else "")


def _next(report: ModelWakes, tier: Tier) -> str:
    whole = total(report.expected[tier])
    about = f"about {duration(whole.expected_us)}"
    if whole.low_us == whole.high_us:
        return f"{about}, as the only one so far"
    between = f"{about}, between {duration(whole.low_us)} and {duration(whole.high_us)}"
    return between if tier in report.measured else f"{between} (predicted, none was measured)"


def anatomy_document(reports: Sequence[ModelWakes], speed: StorageSpeed | None) -> AnatomyDocument:
    """Return all of it for JSON."""
    return AnatomyDocument(
        storage=msgspec.convert(speed, StorageDocument | None, from_attributes=True),
        models={report.model: _model_document(report, speed) for report in reports},
    )


def _model_document(report: ModelWakes, speed: StorageSpeed | None) -> ModelAnatomyDocument:
    expected = {}
    for tier, estimates in report.expected.items():
        whole, phases = estimate_documents(estimates)
        expected[tier] = ExpectedDocument(total=whole, phases=phases, measured=tier in report.measured)
    bandwidth = speed.bytes_s if speed else None
    return ModelAnatomyDocument(
        wakes=wake_documents(report.wakes),
        starts=tuple(start_document(start, bandwidth) for start in report.starts),
        expected=expected,
        advice=msgspec.convert(report.advice, tuple[AdviceDocument, ...], from_attributes=True),
    )


def how_measured(speed: StorageSpeed) -> str:
    """Return how far to trust a measurement of the storage, and of when it is."""
    how = "past the page cache" if speed.direct else "not surely past the page cache"
    return f"{how}, {moment(speed.at_us)}"


def write_trace(path: str, wakes: Sequence[FinishedWake]) -> None:
    """Write wakes for Chrome's trace viewer. Raises OperatorFault if the file cannot be written."""
    try:
        Path(path).write_text(json.dumps(chrome_trace(wakes)), encoding="utf-8")
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot write {path}: {error.strerror}",
            hint="give a path that can be written",
        ) from error


def send_wakes(env: Mapping[str, str], wakes: Sequence[FinishedWake]) -> str:
    """Send wakes to the OpenTelemetry collector and say so. Raises OperatorFault if some are lost."""
    tracer = open_tracer(env)
    if tracer is None:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "no OpenTelemetry endpoint is configured",
            hint="set OTEL_EXPORTER_OTLP_ENDPOINT",
        )
    for wake in wakes:
        tracer.send(wake)
    lost = tracer.close()
    if lost:
        raise OperatorFault(
            ErrorCode.UPSTREAM_CONNECT,
            f"{counted(lost, 'span')} could not be sent to {endpoint_of(env)}",
            hint="is a collector listening there, for OTLP over HTTP (usually port 4318)?",
        )
    return f"sent {counted(len(wakes), 'wake')} to {endpoint_of(env)}"
