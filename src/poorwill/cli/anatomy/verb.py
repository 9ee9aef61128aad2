"""`poorwill anatomy`: where every second of a start or wake went, what it cost, and what would shorten it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from poorwill.cli.anatomy.predict import PREDICTION, PredictOptions, say_prediction
from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.ledger import LedgerOptions
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.clock import SystemClock
from poorwill.compose.host import storage_speed
from poorwill.compose.paths import ledger_path
from poorwill.compose.wake_reports import (
    ModelWakes,
    anatomy_document,
    how_measured,
    report_lines,
    send_wakes,
    wakes_of,
    write_trace,
)
from poorwill.config.values.written import positive
from poorwill.core.errors import ErrorCode, RequestFault, unknown_model
from poorwill.core.format import counted, size
from poorwill.core.settings import FleetSettings
from poorwill.engines.measured.storage_speed import StorageSpeed
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.policies.coldstart.report.documents import (
    AnatomyDocument,
    PredictionDocument,
    WakesDocument,
    wake_documents,
)
from poorwill.policies.coldstart.report.waterfall import waterfall
from poorwill.policies.coldstart.starts import FinishedWake


@dataclass(frozen=True, slots=True, kw_only=True)
class AnatomyOptions:
    """The options of `poorwill anatomy`."""

    what: Annotated[
        str | None, Option("default: every model", argument=True, metavar="MODEL|WAKE", values=Values.MODELS)
    ] = None
    ledger: LedgerOptions = field(default_factory=LedgerOptions)
    json: JsonOption = False
    last: Annotated[int, Option("compare so many wakes (default: 50)", metavar="N", read=positive)] = 50
    trace: Annotated[
        str | None, Option("write the wakes for Chrome's trace viewer", metavar="FILE", values=Values.FILES)
    ] = None
    send: Annotated[bool, Option("send the wakes to $OTEL_EXPORTER_OTLP_ENDPOINT")] = False
    measure: Annotated[bool, Option("measure the storage's bandwidth again")] = False
    prediction: Annotated[PredictOptions, PREDICTION] = field(default_factory=PredictOptions)


async def _run(options: AnatomyOptions, streams: Streams) -> int:
    _refuse_ignored(options)
    if options.prediction.predict:
        return say_prediction(options.prediction, options.ledger.fleet, streams, as_json=options.json)
    if copy := (await options.ledger.here(streams.env)).ledger:  # nothing is known here of its fleet
        past = await asyncio.to_thread(_read, copy, (), options.what, options.last)
        _say_wakes(options, streams, list({wake.model: wake for wake in past}.values()), None)
        return 0
    fleet = read_fleet(options.ledger.fleet, streams.env)
    known = [model.name for model in fleet.models]
    wakes = await asyncio.to_thread(_read, ledger_path(fleet), known, options.what, options.last)
    speed = await asyncio.to_thread(_speed, fleet, streams, anew=options.measure)
    if options.trace:
        write_trace(options.trace, wakes)
        streams.tell(f"wrote {counted(len(wakes), 'wake')} to {options.trace}")
    if options.send:
        streams.tell(await asyncio.to_thread(send_wakes, streams.env, wakes))
    one = [wake for wake in wakes if wake.wake == options.what]
    if one:
        _say_wakes(options, streams, one, speed)
        return 0
    unwoken = [name for name in known if options.what in (None, name)]
    names = dict.fromkeys([*(wake.model for wake in wakes), *unwoken])
    reports = [wakes_of(fleet, name, wakes, speed, env=streams.env) for name in names]
    if options.json:
        streams.say_json(anatomy_document(reports, speed))
    else:
        _say(streams, reports, speed, detailed=options.what is not None)
    return 0


def _refuse_ignored(options: AnatomyOptions) -> None:
    """Raise RequestFault for options that have no meaning together: one of them would be ignored."""
    asked = options.prediction
    if asked.given and not asked.predict:
        what, hint = f"{asked.given[0]} is for --predict", "add --predict"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=hint)
    others = {"--trace": options.trace, "--send": options.send, "--measure": options.measure}
    looks = [*filter(None, [options.what]), *(name for name, given in others.items() if given)]
    if asked.predict and looks:
        what = f"--predict goes by figures alone, not by {looks[0]}"
        hint = "leave one of them out; what a model's next wake should take is in poorwill anatomy MODEL"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=hint)


def _read(path: str, known: Sequence[str], what: str | None, last: int) -> list[FinishedWake]:
    """Return the wakes asked for. Raises RequestFault if neither a model nor a wake has that name."""
    with reading(path) as db:
        if what is None:
            return finished_wakes(db, last=last)
        wakes = finished_wakes(db, wake=what) or finished_wakes(db, model=what, last=last)
    if not wakes and what not in known:
        raise unknown_model(what, sorted(known))
    return wakes


def _speed(fleet: FleetSettings, streams: Streams, *, anew: bool) -> StorageSpeed | None:
    now_us = SystemClock.started().now_us()
    return storage_speed(fleet, env=streams.env, at_us=now_us, anew=anew)


def _say_wakes(
    options: AnatomyOptions, streams: Streams, wakes: Sequence[FinishedWake], speed: StorageSpeed | None
) -> None:
    if options.json:
        streams.say_json(WakesDocument(wakes=wake_documents(wakes)))
        return
    for wake in wakes:
        streams.say(*waterfall(wake, speed.bytes_s if speed else None, width=streams.width))


def _say(
    streams: Streams, reports: Sequence[ModelWakes], speed: StorageSpeed | None, *, detailed: bool
) -> None:
    bandwidth = speed.bytes_s if speed else None
    for report in reports:
        streams.say(*report_lines(report, bandwidth, detailed=detailed, width=streams.width))
    if speed is not None:
        rate = f"{size(speed.bytes_s)}/s, measured on {speed.path}"
        streams.say(f"reading alone: bytes over {rate} ({how_measured(speed)})")


VERB = new_verb(
    AnatomyOptions,
    _run,
    AnatomyDocument,
    WakesDocument,
    PredictionDocument,
    epilog="With a wake's id: its waterfall. With a model: its last wake, then cold, cache-warm and parked\n"
    "starts side by side. `reading alone`: what had to be read, over the storage's measured bandwidth.\n"
    "poorwill anatomy --predict --params 70B --bits 16 --link-gbit 1 --disk-gb-s 5",
)
