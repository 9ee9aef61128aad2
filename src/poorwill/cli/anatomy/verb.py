"""`poorwill anatomy`: where every second of a start or wake went, what it cost, and what would shorten it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from poorwill.cli.anatomy.predict import PREDICTION, PredictOptions, say_prediction
from poorwill.cli.anatomy.storage import how_measured
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetOption, JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.values import positive
from poorwill.cli.parsing.verb import new_verb
from poorwill.coldstart.advice import Advice, StartSetup, advise
from poorwill.coldstart.prediction import Estimate, Learned, total
from poorwill.coldstart.report.documents import (
    AdviceDocument,
    AnatomyDocument,
    ExpectedDocument,
    ModelAnatomyDocument,
    PredictionDocument,
    StorageDocument,
    WakesDocument,
    estimate_documents,
    start_document,
    wake_documents,
)
from poorwill.coldstart.report.waterfall import advice_lines, side_by_side, wake_list, waterfall
from poorwill.coldstart.starts import FinishedWake, StartSummary, compare
from poorwill.compose.clock import SystemClock
from poorwill.compose.host import known_host, storage_speed
from poorwill.compose.paths import ledger_path
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault, unknown_model
from poorwill.core.format import counted, duration, size
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import TIER_DEPTH, ModelName, Tier
from poorwill.engines.measured.expectation import expected_wakes
from poorwill.engines.measured.storage_speed import StorageSpeed
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.telemetry.tracing import chrome_trace, endpoint_of, open_tracer

LISTED = 10
"""Of a model's wakes so many are listed, with the id under which each has its own waterfall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    model: ModelName
    wakes: Sequence[FinishedWake]
    starts: Sequence[StartSummary]
    advice: Sequence[Advice]
    expected: Mapping[Tier, Sequence[Estimate]]
    """The next wake from each tier: by measured ones where there are any, else predicted."""
    measured: frozenset[Tier]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnatomyOptions:
    """What `poorwill anatomy` is told."""

    what: Annotated[
        str | None, Option("default: every model", argument=True, metavar="MODEL|WAKE", values=Values.MODELS)
    ] = None
    fleet: FleetOption = DEFAULT_FILE
    json: JsonOption = False
    last: Annotated[int, Option("compare so many wakes (default: 50)", metavar="N", read=positive)] = 50
    trace: Annotated[
        str | None, Option("write the wakes for Chrome's trace viewer", metavar="FILE", values=Values.FILES)
    ] = None
    send: Annotated[bool, Option("send the wakes to $OTEL_EXPORTER_OTLP_ENDPOINT")] = False
    measure: Annotated[bool, Option("measure the storage's bandwidth anew")] = False
    prediction: Annotated[PredictOptions, PREDICTION] = field(default_factory=PredictOptions)


async def _run(options: AnatomyOptions, streams: Streams) -> int:
    _refuse_ignored(options)
    if options.prediction.predict:
        return say_prediction(options.prediction, options.fleet, streams, as_json=options.json)
    fleet = read_fleet(options.fleet, streams.env)
    wakes = await asyncio.to_thread(_read, fleet, options.what, options.last)
    speed = await asyncio.to_thread(_speed, fleet, streams, anew=options.measure)
    if options.trace:
        _write_trace(options.trace, wakes)
        streams.tell(f"wrote {counted(len(wakes), 'wake')} to {options.trace}")
    if options.send:
        await asyncio.to_thread(_send, streams, wakes)
    one = [wake for wake in wakes if wake.wake == options.what]
    if one:
        _say_wakes(options, streams, one, speed)
        return 0
    unwoken = [model.name for model in fleet.models if options.what in (None, model.name)]
    names = dict.fromkeys([*(wake.model for wake in wakes), *unwoken])
    reports = [_report(fleet, name, wakes, speed, streams.env) for name in names]
    if options.json:
        streams.say_json(_document(reports, speed))
    else:
        _say(streams, reports, speed, detailed=options.what is not None)
    return 0


def _refuse_ignored(options: AnatomyOptions) -> None:
    """Raise RequestFault for options that have no meaning together: one of them would be ignored."""
    asked = options.prediction
    if asked.given and not asked.predict:
        what, hint = f"{asked.given[0]} is for --predict", "add --predict"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=hint)
    looks = [
        name
        for name, given in (
            (options.what, options.what),
            ("--trace", options.trace),
            ("--send", options.send),
            ("--measure", options.measure),
        )
        if given
    ]
    if asked.predict and looks:
        what = f"--predict goes by figures alone, not by {looks[0]}"
        hint = "leave one of them out; what a model's next wake should take is in poorwill anatomy MODEL"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=hint)


def _read(fleet: FleetSettings, what: str | None, last: int) -> list[FinishedWake]:
    """Return the wakes asked for. Raises RequestFault if neither a model nor a wake has that name."""
    known = {model.name for model in fleet.models}
    with reading(ledger_path(fleet)) as db:
        if what is None:
            return finished_wakes(db, last=last)
        wakes = finished_wakes(db, wake=what) or finished_wakes(db, model=what, last=last)
    if not wakes and what not in known:
        raise unknown_model(what, sorted(known))
    return wakes


def _speed(fleet: FleetSettings, streams: Streams, *, anew: bool) -> StorageSpeed | None:
    now_us = SystemClock.started().now_us()
    return storage_speed(fleet, env=streams.env, at_us=now_us, anew=anew)


def _report(
    fleet: FleetSettings,
    name: ModelName,
    wakes: Sequence[FinishedWake],
    speed: StorageSpeed | None,
    env: Mapping[str, str],
) -> _Report:
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
    return _Report(
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
    host = known_host(fleet, wakes, env=env).factor(model.engine.kind)
    found = expected_wakes(model, directory=fleet.directory, env=env, host=host)
    return {tier: found[tier] for tier in model.replica.park.ladder if tier in found}


def _say_wakes(
    options: AnatomyOptions, streams: Streams, wakes: Sequence[FinishedWake], speed: StorageSpeed | None
) -> None:
    if options.json:
        streams.say_json(WakesDocument(wakes=wake_documents(wakes)))
        return
    for wake in wakes:
        streams.say(*waterfall(wake, speed.bytes_s if speed else None, width=streams.width))


def _say(streams: Streams, reports: Sequence[_Report], speed: StorageSpeed | None, *, detailed: bool) -> None:
    for report in reports:
        if detailed and report.wakes:
            bandwidth = speed.bytes_s if speed else None
            streams.say(*waterfall(report.wakes[-1], bandwidth, width=streams.width))
            streams.say()
            streams.say(*wake_list(report.wakes[-LISTED:]))
            streams.say()
        streams.say(_heading(report))
        if report.wakes:
            streams.say(*side_by_side(report.starts, speed.bytes_s if speed else None))
        for tier in sorted(report.expected, key=TIER_DEPTH.__getitem__):
            streams.say(f"  the next wake from {tier}: {_next(report, tier)}")
        streams.say(*advice_lines(report.advice))
        streams.say()
    if speed is not None:
        rate = f"{size(speed.bytes_s)}/s, measured on {speed.path}"
        streams.say(f"floor: bytes over {rate} ({how_measured(speed)})")


def _heading(report: _Report) -> str:
    if not report.wakes:
        return f"{report.model}: no wake has finished yet"
    failed = sum(not wake.ok for wake in report.wakes)
    told = f"{report.model}: {counted(len(report.wakes), 'wake')}"
    told += f", {failed} failed" if failed else ""
    several = any(start.count > 1 for start in report.starts)
    return told + (", median [lowest .. highest]" if several else "")


def _next(report: _Report, tier: Tier) -> str:
    whole = total(report.expected[tier])
    about = f"about {duration(whole.expected_us)}"
    if whole.low_us == whole.high_us:
        return f"{about}, as the only one so far"
    between = f"{about}, between {duration(whole.low_us)} and {duration(whole.high_us)}"
    return between if tier in report.measured else f"{between} (predicted, none was measured)"


def _document(reports: Sequence[_Report], speed: StorageSpeed | None) -> AnatomyDocument:
    return AnatomyDocument(
        storage=msgspec.convert(speed, StorageDocument | None, from_attributes=True),
        models={report.model: _model_document(report, speed) for report in reports},
    )


def _model_document(report: _Report, speed: StorageSpeed | None) -> ModelAnatomyDocument:
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


def _write_trace(path: str, wakes: Sequence[FinishedWake]) -> None:
    try:
        Path(path).write_text(json.dumps(chrome_trace(wakes)), encoding="utf-8")
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot write {path}: {error.strerror}",
            hint="give a path that can be written",
        ) from error


def _send(streams: Streams, wakes: Sequence[FinishedWake]) -> None:
    tracer = open_tracer(streams.env)
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
            f"{counted(lost, 'span')} could not be sent to {endpoint_of(streams.env)}",
            hint="is a collector listening there, for OTLP over HTTP (usually port 4318)?",
        )
    streams.tell(f"sent {counted(len(wakes), 'wake')} to {endpoint_of(streams.env)}")


VERB = new_verb(
    AnatomyOptions,
    _run,
    AnatomyDocument,
    WakesDocument,
    PredictionDocument,
    epilog="With a wake's id: its waterfall. With a model: its last wake, then cold, cache-warm and parked\n"
    "starts side by side. `floor` is what had to be read, over the storage's measured bandwidth.\n"
    "poorwill anatomy --predict --params 70B --bits 16 --link-gbit 1 --disk-gb-s 5",
)
