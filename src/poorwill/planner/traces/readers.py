"""Reads traces as they are published. One layout per header; rows that make no sense are named, not guessed.

Layouts: poorwill's own CSV (`arrival_s`, optional `service_s`, `prompt_tokens`, `output_tokens`, `model`);
Azure LLM inference traces (`TIMESTAMP,ContextTokens,GeneratedTokens`); BurstGPT in both forms; Mooncake
(one JSON object a line, `timestamp` in milliseconds). Any of them gzipped.
"""

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import TextIO

from poorwill.core.errors import ConfigFault, ErrorCode, OperatorFault, Problem
from poorwill.core.format import counted
from poorwill.core.words import SECOND_US
from poorwill.planner.traces.trace import UNKNOWN, Trace, new_trace

SHOWN = 20
"""Bad rows kept with their reasons; beyond them only the count grows."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_S = 1e9
"""Longest time from a trace's origin, about 31 years: beyond it an arrival is a mistake in units."""


@dataclass(slots=True)
class Row:
    """One request as read; instants are microseconds, relative or since the epoch as the layout says."""

    arrival_us: int
    service_us: int = UNKNOWN
    prompt_tokens: int = UNKNOWN
    output_tokens: int = UNKNOWN
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReading:
    """A trace and what was wrong with its file."""

    trace: Trace
    layout: str
    bad: tuple[Problem, ...]
    bad_count: int
    unsorted: int
    """Rows that came before an earlier arrival; they were sorted."""


@dataclass(frozen=True, slots=True)
class TraceLayout:
    """How one kind of file names its columns."""

    name: str
    needs: frozenset[str]
    read: Callable[[Mapping[str, str]], Row]
    dated: bool = False


class _BadRow(Exception):
    pass


def read_trace(path: str, *, refuse_bad: bool = False) -> TraceReading:
    """Read a trace file.

    Bad rows are skipped and listed, or refused all together as ConfigFault where `refuse_bad`. Raises
    OperatorFault where the file cannot be read or its layout is unknown.
    """
    try:
        with _text(path) as file:
            return _read(file, path, refuse_bad=refuse_bad)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot read {path}: {reason}",
            hint="give a CSV or JSON-lines file, plain or gzipped",
        ) from error


def _text(path: str) -> TextIO:
    with open(path, "rb") as probe:
        gzipped = probe.read(2) == b"\x1f\x8b"
    if gzipped:
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _read(file: TextIO, path: str, *, refuse_bad: bool) -> TraceReading:
    first = file.readline()
    if not first:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{path} is empty",
            hint="a trace has a header row, or one JSON object a line",
        )
    if first.lstrip().startswith("{"):
        name, dated, rows = "mooncake", False, _json_rows(first, file)
    else:
        layout, header = _layout_of(first, path)
        name, dated, rows = layout.name, layout.dated, _csv_rows(layout, header, file)
    good = _Good()
    for line, row in rows:
        good.take(line, row, dated=dated)
    if good.bad_count and refuse_bad:
        raise ConfigFault(good.bad, source=path)
    if not good.arrivals:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{path} has no usable request ({counted(good.bad_count, 'bad row')})",
            hint=str(good.bad[0]) if good.bad else "the file is empty below its header",
        )
    return good.reading(path, name, dated=dated)


@dataclass(slots=True)
class _Good:
    """Columns of the rows that are in order, and the others' reasons."""

    arrivals: list[int] = field(default_factory=list)
    services: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    bad: list[Problem] = field(default_factory=list)
    bad_count: int = 0
    unsorted: int = 0
    latest_us: int = -1

    def take(self, line: int, row: Row | str, *, dated: bool) -> None:
        if isinstance(row, Row) and not dated and row.arrival_us < 0:
            row = "the arrival is before the trace's origin"
        if isinstance(row, str):
            self.bad_count += 1
            if len(self.bad) < SHOWN:
                self.bad.append(Problem(where="", what=row, line=line))
            return
        if self.arrivals and row.arrival_us < self.latest_us:
            self.unsorted += 1
        self.latest_us = max(self.latest_us, row.arrival_us)
        self.arrivals.append(row.arrival_us)
        self.services.append(row.service_us)
        self.prompts.append(row.prompt_tokens)
        self.outputs.append(row.output_tokens)
        self.models.append(row.model)

    def reading(self, path: str, layout: str, *, dated: bool) -> TraceReading:
        origin = min(self.arrivals) if dated else None
        if origin is not None:
            self.arrivals = [arrival - origin for arrival in self.arrivals]
        trace = new_trace(
            arrival_us=self.arrivals,
            service_us=self.services,
            prompt_tokens=self.prompts,
            output_tokens=self.outputs,
            models=self.models,
            origin_us=origin,
            source=PurePath(path).name,
        )
        return TraceReading(
            trace=trace,
            layout=layout,
            bad=tuple(self.bad),
            bad_count=self.bad_count,
            unsorted=self.unsorted,
        )


def _layout_of(first: str, path: str) -> tuple[TraceLayout, Sequence[str]]:
    header = [name.strip() for name in next(csv.reader([first]), [])]
    for layout in _LAYOUTS:
        if layout.needs <= set(header):
            return layout, header
    known = "; ".join(f"{layout.name}: {', '.join(sorted(layout.needs))}" for layout in _LAYOUTS)
    raise OperatorFault(
        ErrorCode.CONFIG_INVALID,
        f"{path}: unknown layout, header {first.strip()[:200]!r}",
        hint=f"columns needed: {known}; or one JSON object a line with `timestamp`",
    )


def _csv_rows(
    layout: TraceLayout, header: Sequence[str], file: Iterable[str]
) -> Iterator[tuple[int, Row | str]]:
    reader = csv.reader(file)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num + 1, f"not CSV: {error}"
            continue
        line = reader.line_num + 1
        if not fields:
            continue
        if len(fields) != len(header):
            yield line, f"{len(fields)} fields, the header has {len(header)}"
            continue
        yield line, _row_or_reason(layout.read, dict(zip(header, fields, strict=True)))


def _json_rows(first: str, file: Iterable[str]) -> Iterator[tuple[int, Row | str]]:
    for line, text in enumerate(_chain(first, file), start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except ValueError as error:
            yield line, f"not JSON: {error}"
            continue
        if not isinstance(value, dict):
            yield line, "not a JSON object"
            continue
        yield line, _row_or_reason(_mooncake, {key: str(item) for key, item in value.items()})


def _chain(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _row_or_reason(read: Callable[[Mapping[str, str]], Row], fields: Mapping[str, str]) -> Row | str:
    try:
        return read(fields)
    except _BadRow as bad:
        return str(bad)


def _own(fields: Mapping[str, str]) -> Row:
    return Row(
        arrival_us=_micros(fields, "arrival_s", SECOND_US),
        service_us=_micros(fields, "service_s", SECOND_US, optional=True),
        prompt_tokens=_count(fields, "prompt_tokens"),
        output_tokens=_count(fields, "output_tokens"),
        model=fields.get("model", ""),
    )


def _azure(fields: Mapping[str, str]) -> Row:
    return Row(
        arrival_us=_instant(fields, "TIMESTAMP"),
        prompt_tokens=_count(fields, "ContextTokens"),
        output_tokens=_count(fields, "GeneratedTokens"),
    )


def _burstgpt(fields: Mapping[str, str]) -> Row:
    return Row(
        arrival_us=_micros(fields, "Timestamp", SECOND_US),
        service_us=_micros(fields, "Elapsed time", SECOND_US, optional=True),
        prompt_tokens=_count(fields, "Request tokens"),
        output_tokens=_count(fields, "Response tokens"),
        model=fields["Model"],
    )


def _mooncake(fields: Mapping[str, str]) -> Row:
    return Row(
        arrival_us=_micros(fields, "timestamp", SECOND_US // 1000),
        prompt_tokens=_count(fields, "input_length"),
        output_tokens=_count(fields, "output_length"),
    )


_LAYOUTS = (
    TraceLayout("poorwill", frozenset({"arrival_s"}), _own),
    TraceLayout("azure", frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"}), _azure, dated=True),
    TraceLayout(
        "burstgpt",
        frozenset({"Timestamp", "Model", "Request tokens", "Response tokens"}),
        _burstgpt,
    ),
)


def _micros(fields: Mapping[str, str], name: str, unit_us: int, *, optional: bool = False) -> int:
    text = fields.get(name, "").strip()
    if not text and optional:
        return UNKNOWN
    try:
        value = float(text)
    except ValueError:
        raise _BadRow(f"{name} is {text!r}, not a number") from None
    if not math.isfinite(value) or abs(value) * unit_us > MAX_S * SECOND_US:
        raise _BadRow(f"{name} is {text!r}, out of range")
    if optional and value < 0:
        raise _BadRow(f"{name} is negative: {text}")
    return round(value * unit_us)


def _count(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "").strip()
    if not text:
        return UNKNOWN
    try:
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise _BadRow(f"{name} is {text!r}, not a number") from None
    if not 0 <= value < 2**40 or value != int(value):
        raise _BadRow(f"{name} is {text!r}, not a count of tokens")
    return int(value)


def _instant(fields: Mapping[str, str], name: str) -> int:
    text = fields[name].strip()
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise _BadRow(f"{name} is {text!r}, not a date and time") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - EPOCH) // timedelta(microseconds=1)
