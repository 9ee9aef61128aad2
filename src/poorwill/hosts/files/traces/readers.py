"""Reads traces that people have: published ones, logs of servers and gateways, tables of their own.

What a time means is told apart by plausibility and said; rows that make no sense are named, never guessed.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.format import counted, moment
from poorwill.core.problems import ConfigFault, Problem
from poorwill.hosts.files.records import open_table
from poorwill.hosts.files.traces.instants import TimeColumn, TimeMeaning, duration_us
from poorwill.hosts.files.traces.layouts import Columns, ColumnUse, Role, find_columns
from poorwill.hosts.files.traces.records import Records, read_records
from poorwill.hosts.files.traces.server_logs import YEARLESS
from poorwill.hosts.files.traces.trace import UNKNOWN, Trace, new_trace

SHOWN = 20
"""Bad rows kept with their reasons; beyond them only the count grows."""
LACKING: Mapping[str, str] = MappingProxyType(
    {
        "nginx": "no line is a POST to an inference path, such as /v1/chat/completions",
        "vllm": "no line says Received request: start vLLM with --enable-log-requests",
        "llama-server": "no line says launch_slot_: processing task",
    }
)
"""Why a log may have no request."""
NO_MAPPING: Mapping[Role, ColumnUse] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReading:
    """A trace and what was wrong with its file."""

    trace: Trace
    layout: str
    notes: tuple[str, ...]
    """How the file was understood."""
    bad: tuple[Problem, ...]
    bad_count: int
    unsorted: int
    """Rows that came before an earlier arrival; they were sorted."""


class _BadRow(Exception):
    pass


def _numbers() -> "array[int]":
    return array("q")


def read_trace(
    path: str, *, refuse_bad: bool = False, columns: Mapping[Role, ColumnUse] = NO_MAPPING
) -> TraceReading:
    """Read a trace file; `columns` says what its columns mean, before what its layout says.

    Bad rows are skipped and listed, or refused all together as ConfigFault if `refuse_bad`. Raises
    OperatorFault if the file cannot be read, its layout is unknown or its times are ambiguous.
    """
    try:
        with open_table(path) as file:
            records = read_records(file)
            if records is None:
                raise OperatorFault(
                    ErrorCode.CONFIG_INVALID,
                    f"{path} is empty",
                    hint="a trace is CSV with a header row, JSON, JSON lines or a server's log",
                )
            found = find_columns(path, records.shape, records.columns, columns)
            table = _Table.of(found, records)
            table.take_all(records)
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot read {path}: {error.strerror or error}",
            hint="give CSV, JSON, JSON lines or a server's log, plain or compressed with gzip or zstd",
        ) from error
    return table.reading(path, found, refuse_bad=refuse_bad)


@dataclass(slots=True, kw_only=True)
class _Table:
    """The columns of a trace as they are read."""

    roles: Mapping[Role, str]
    service_unit: str
    decimal_comma: bool
    arrivals: TimeColumn
    ends: TimeColumn
    end_of: "array[int]" = field(default_factory=_numbers)
    """For each value of `ends`: which request it ends."""
    services: "array[int]" = field(default_factory=_numbers)
    prompts: "array[int]" = field(default_factory=_numbers)
    outputs: "array[int]" = field(default_factory=_numbers)
    models: list[str] = field(default_factory=list)
    lines: "array[int]" = field(default_factory=_numbers)
    bad: list[Problem] = field(default_factory=list)
    bad_count: int = 0

    @classmethod
    def of(cls, found: Columns, records: Records) -> "_Table":
        """Return an empty table for the columns of a file."""

        def times(role: Role) -> TimeColumn:
            use = found.roles.get(role, ColumnUse(column=str(role)))
            return TimeColumn(
                name=use.column,
                unit=use.unit,
                zone=use.zone,
                stated=use.stated,
                decimal_comma=records.decimal_comma,
            )

        return cls(
            roles={role: use.column for role, use in found.roles.items()},
            service_unit=found.roles[Role.SERVICE].unit if Role.SERVICE in found.roles else "s",
            decimal_comma=records.decimal_comma,
            arrivals=times(Role.ARRIVAL),
            ends=times(Role.END),
        )

    def take_all(self, records: Records) -> None:
        """Take every record; bad ones are counted, with their reasons."""
        for line, fields in records.rows:
            try:
                if isinstance(fields, str):
                    raise _BadRow(fields)
                self._take(line, fields)
            except _BadRow as bad:
                self._refuse(line, str(bad))

    def _take(self, line: int, fields: Mapping[str, str]) -> None:
        service = self._service(fields)
        prompt, output = self._count(fields, Role.PROMPT), self._count(fields, Role.OUTPUT)
        if problem := self.arrivals.add(self._text(fields, Role.ARRIVAL)):
            raise _BadRow(problem)
        end = self._text(fields, Role.END)
        if end.strip() and not self.ends.add(end):
            self.end_of.append(len(self.lines))
        self.lines.append(line)
        self.services.append(service)
        self.prompts.append(prompt)
        self.outputs.append(output)
        self.models.append(self._text(fields, Role.MODEL))

    def _text(self, fields: Mapping[str, str], role: Role) -> str:
        name = self.roles.get(role)
        return "" if name is None else fields.get(name, "")

    def _service(self, fields: Mapping[str, str]) -> int:
        text = self._text(fields, Role.SERVICE)
        try:
            us = duration_us(text, self.service_unit, decimal_comma=self.decimal_comma)
        except ValueError:
            raise _BadRow(f"{self.roles[Role.SERVICE]} is {text!r}, not a length of time") from None
        return UNKNOWN if us is None else us

    def _count(self, fields: Mapping[str, str], role: Role) -> int:
        text = self._text(fields, role).strip()
        if not text:
            return UNKNOWN
        try:
            value = int(text) if text.isdigit() else float(text)
        except ValueError:
            value = -1
        if not 0 <= value < 2**40 or value != int(value):
            raise _BadRow(f"{self.roles[role]} is {text!r}, not a count of tokens")
        return int(value)

    def _refuse(self, line: int, reason: str) -> None:
        self.bad_count += 1
        self.bad.append(Problem(where="", what=reason, line=line))
        if len(self.bad) > 2 * SHOWN:
            self._trim()

    def _trim(self) -> None:
        self.bad.sort(key=lambda problem: problem.line or 0)
        del self.bad[SHOWN:]

    def reading(self, path: str, found: Columns, *, refuse_bad: bool) -> TraceReading:
        """Return the trace. Raises as `read_trace` does."""
        if not self.lines:
            raise self._nothing(path, found)
        meaning = self.arrivals.meaning()
        arrivals, good = self.arrivals.microseconds(meaning)
        services = np.asarray(self.services, np.int64)
        services = self._with_ends(arrivals, services)
        if found.stamped_at_end:
            arrivals = arrivals - np.maximum(services, 0)
        for index in np.flatnonzero(~good)[:SHOWN].tolist():
            value = self.arrivals.values[index]
            what = f"{self.arrivals.name} is {value:.12g}, out of range: no time like the others"
            self.bad.append(Problem(where="", what=what, line=self.lines[index]))
        self.bad_count += int((~good).sum())
        self._trim()
        if self.bad_count and refuse_bad:
            raise ConfigFault(self.bad, source=path)
        if not good.any():
            raise self._nothing(path, found)
        return self._reading(path, found, meaning, arrivals, services, good)

    def _reading(
        self,
        path: str,
        found: Columns,
        meaning: TimeMeaning,
        arrivals: NDArray[np.int64],
        services: NDArray[np.int64],
        good: NDArray[np.bool_],
    ) -> TraceReading:
        arrivals = arrivals[good]
        yearless = found.layout == "vllm" and moment(int(arrivals.min())).startswith(YEARLESS)
        origin = int(arrivals.min()) if meaning.dated else None
        trace = new_trace(
            arrival_us=arrivals if origin is None else arrivals - origin,
            service_us=services[good],
            prompt_tokens=np.asarray(self.prompts, np.int64)[good],
            output_tokens=np.asarray(self.outputs, np.int64)[good],
            models=[self.models[index] for index in np.flatnonzero(good).tolist()],
            origin_us=None if yearless else origin,
            source=PurePath(path).name,
        )
        return TraceReading(
            trace=trace,
            layout=found.layout,
            notes=tuple(self._notes(found, meaning, origin, yearless=yearless)),
            bad=tuple(self.bad),
            bad_count=self.bad_count,
            unsorted=int((np.maximum.accumulate(arrivals)[:-1] > arrivals[1:]).sum()),
        )

    def _notes(
        self, found: Columns, meaning: TimeMeaning, origin: int | None, *, yearless: bool
    ) -> list[str]:
        """Say how the file was understood, if that was not stated by its columns' names."""
        if found.layout == "poorwill" and not meaning.dated:
            return []
        notes = [f"read as {found.layout}: {meaning.words}"]
        if yearless:
            notes.append("the log's times have no year: --origin DATE says when the first request came")
        elif origin is not None:
            notes[0] += f", the first is {moment(origin)}"
        return [*notes, *([found.note] if found.note else [])]

    def _with_ends(self, arrivals: NDArray[np.int64], services: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the service times, those that are unknown taken from the requests' ends."""
        if not self.end_of:
            return services
        ends, good = self.ends.microseconds(self.ends.meaning())
        which = np.asarray(self.end_of, np.int64)
        lasted = ends - arrivals[which]
        known = good & (lasted >= 0) & (services[which] == UNKNOWN)
        services[which[known]] = lasted[known]
        return services

    def _nothing(self, path: str, found: Columns) -> OperatorFault:
        self._trim()
        return OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{path} has no usable request ({counted(self.bad_count, 'bad row')})",
            hint=str(self.bad[0]) if self.bad else LACKING.get(found.layout, "it has a header and no rows"),
        )
