"""`poorwill anatomy`: where every second of a start or wake went, what it cost, and what would shorten it."""

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poorwill.cli.anatomy.as_json import (
    advice_json,
    comparison_json,
    estimates_json,
    speed_json,
    wake_json,
)
from poorwill.cli.anatomy.predict import add_predict_options, given_prediction, say_prediction
from poorwill.cli.anatomy.waterfall import (
    advice_lines,
    how_measured,
    seconds,
    side_by_side,
    wake_list,
    waterfall,
)
from poorwill.cli.parsing.target import add_fleet_option, add_json_option, read_fleet
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.coldstart.advice import Advice, StartSetup, advise
from poorwill.coldstart.prediction import Estimate, Learned, total
from poorwill.coldstart.starts import FinishedWake, StartSummary, compare
from poorwill.compose.clock import SystemClock
from poorwill.compose.host import known_host, storage_speed
from poorwill.compose.paths import ledger_path
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.format import counted
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


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", metavar="MODEL|WAKE", help="default: every model")
    add_fleet_option(parser)
    add_json_option(parser)
    parser.add_argument(
        "--last", type=_count, default=50, metavar="N", help="compare so many wakes (default: 50)"
    )
    parser.add_argument("--trace", metavar="FILE", help="write the wakes for Chrome's trace viewer")
    parser.add_argument("--send", action="store_true", help="send the wakes to $OTEL_EXPORTER_OTLP_ENDPOINT")
    parser.add_argument("--measure", action="store_true", help="measure the storage's bandwidth anew")
    add_predict_options(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count of wakes: 1 or more")
    return int(text)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    _refuse_ignored(options)
    if options.predict:
        return say_prediction(options, streams)
    fleet = read_fleet(options, streams)
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


def _refuse_ignored(options: argparse.Namespace) -> None:
    """Raise RequestFault for options that have no meaning together: one of them would be ignored."""
    figures = given_prediction(options)
    if figures and not options.predict:
        what, hint = f"{figures[0]} is for --predict", "add --predict"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=hint)
    looks = [name for name in ("trace", "send", "measure") if getattr(options, name)]
    if options.predict and (options.what or looks):
        ignored = options.what or f"--{looks[0]}"
        what = f"--predict goes by figures alone, not by {ignored}"
        hint = "leave one of them out; what a model's next wake should take is in poorwill anatomy MODEL"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=hint)


def _read(fleet: FleetSettings, what: str | None, last: int) -> list[FinishedWake]:
    """Return the wakes asked for. Raises OperatorFault where neither a model nor a wake has that name."""
    known = {model.name for model in fleet.models}
    with reading(ledger_path(fleet)) as db:
        if what is None:
            return finished_wakes(db, last=last)
        wakes = finished_wakes(db, wake=what) or finished_wakes(db, model=what, last=last)
    if not wakes and what not in known:
        raise OperatorFault(
            ErrorCode.MODEL_NOT_FOUND,
            f"no model and no wake is named {what!r}",
            hint="models: " + ", ".join(sorted(known)) + "; poorwill anatomy MODEL lists its wakes",
        )
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
    model: ModelSettings,
    fleet: FleetSettings,
    wakes: Sequence[FinishedWake],
    env: Mapping[str, str],
) -> dict[Tier, Sequence[Estimate]]:
    """Return what each tier of the model's ladder should take, from its files and what the fleet measured."""
    host = known_host(fleet, wakes, env=env).factor(model.engine.kind)
    found = expected_wakes(model, directory=fleet.directory, env=env, host=host)
    return {tier: found[tier] for tier in model.replica.park.ladder if tier in found}


def _say_wakes(
    options: argparse.Namespace,
    streams: Streams,
    wakes: Sequence[FinishedWake],
    speed: StorageSpeed | None,
) -> None:
    if options.json:
        streams.say_json({"wakes": [wake_json(wake) for wake in wakes]})
        return
    for wake in wakes:
        for line in waterfall(wake, speed.bytes_s if speed else None, width=streams.width):
            streams.say(line)


def _say(streams: Streams, reports: Sequence[_Report], speed: StorageSpeed | None, *, detailed: bool) -> None:
    for report in reports:
        if detailed and report.wakes:
            bandwidth = speed.bytes_s if speed else None
            for line in waterfall(report.wakes[-1], bandwidth, width=streams.width):
                streams.say(line)
            streams.say()
            for line in wake_list(report.wakes[-LISTED:]):
                streams.say(line)
            streams.say()
        streams.say(_heading(report))
        if report.wakes:
            for line in side_by_side(report.starts, speed.bytes_s if speed else None):
                streams.say(line)
        for tier in sorted(report.expected, key=TIER_DEPTH.__getitem__):
            streams.say(f"  the next wake from {tier}: {_next(report, tier)}")
        for line in advice_lines(report.advice):
            streams.say(line)
        streams.say()
    if speed is not None:
        rate = f"{speed.bytes_s / 1e9:.2f} GB/s, measured on {speed.path}"
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
    about = f"about {seconds(whole.expected_us)}"
    if whole.low_us == whole.high_us:
        return f"{about}, as the only one so far"
    between = f"{about}, between {seconds(whole.low_us)} and {seconds(whole.high_us)}"
    return between if tier in report.measured else f"{between} (predicted, none was measured)"


def _document(reports: Sequence[_Report], speed: StorageSpeed | None) -> dict[str, object]:
    bandwidth = speed.bytes_s if speed else None
    return {
        "storage": speed_json(speed),
        "models": {
            report.model: {
                "wakes": [wake_json(wake) for wake in report.wakes],
                "starts": [comparison_json(start, bandwidth) for start in report.starts],
                "expected": {
                    str(tier): estimates_json(estimates) | {"measured": tier in report.measured}
                    for tier, estimates in report.expected.items()
                },
                "advice": [advice_json(advice) for advice in report.advice],
            }
            for report in reports
        },
    }


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


VERB = Verb(
    name="anatomy",
    help="show where the time of a start or wake went, what it cost, and what would shorten it",
    options=_options,
    run=_run,
    epilog="With a wake's id: its waterfall. With a model: its last wake, then cold, cache-warm and parked\n"
    "starts side by side. `floor` is what had to be read over the storage's measured bandwidth.\n"
    "poorwill anatomy --predict --params 70e9 --bits 16 --link-gbit 1 --disk-gb-s 5",
)
