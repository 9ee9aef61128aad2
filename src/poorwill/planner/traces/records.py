"""Records of a file, whatever its shape: CSV with any separator, JSON lines, a JSON document, a server's log.

Every record is a flat mapping of column names to texts. A nested JSON member is named by its path:
`usage.prompt_tokens`.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TextIO, TypeAlias

from poorwill.planner.traces.server_logs import LOG_KINDS, LogRecords

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Record = tuple[int, Mapping[str, str] | str]
"""A line number, and the fields found there or why there are none."""

SEPARATORS = ",;\t|"
SAMPLE = 50
"""So many records, or lines of a log, are looked at to tell what a file is."""
WRAPPERS = ("data", "logs", "requests", "rows", "items", "results")
"""Members of a JSON document that hold the list of records."""
DEEPEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """A file's records, read as they are asked for."""

    shape: str
    """`csv`, `json`, or the kind of a server's log."""
    columns: Sequence[str]
    rows: Iterator[Record]
    decimal_comma: bool = False
    """Whether numbers may be written as `1,5`: only in files whose fields are separated by something else."""


def read_records(file: TextIO) -> Records | None:
    """Return the file's records, None for an empty file."""
    first = file.readline()
    while first and not first.strip():
        first = file.readline()
    if not first:
        return None
    if first.lstrip()[0] in "{[" and not first.lstrip().startswith("[20"):
        return _json_records(first, file)
    head = [first, *islice(file, SAMPLE)]
    for kind in LOG_KINDS:
        if any(kind.recognises(line) for line in head):
            log = LogRecords(kind)
            return Records(shape=kind.name, columns=kind.columns, rows=log.rows(chain(head, file)))
    return _csv_records(head, file)


def _csv_records(head: Sequence[str], file: TextIO) -> Records:
    separator = max(SEPARATORS, key=head[0].count)
    csv.field_size_limit(2**31 - 1)  # a column may hold a whole prompt
    reader = csv.reader(chain(head, file), delimiter=separator)
    header = [name.strip() for name in next(reader, [])]

    def rows() -> Iterator[Record]:
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"not CSV: {error}"
                continue
            if not fields:
                continue
            if len(fields) != len(header):
                yield reader.line_num, f"{len(fields)} fields, the header has {len(header)}"
            else:
                yield reader.line_num, dict(zip(header, fields, strict=True))

    return Records(shape="csv", columns=header, rows=rows(), decimal_comma=separator != ",")


def _json_records(first: str, file: TextIO) -> Records:
    values = _json_lines(first, file) if _parsed(first)[1] == "" else None
    if values is None:  # one document over several lines
        value, problem = _parsed(first + file.read())
        values = iter([(1, value, problem)])
    rows = _flat_rows(values)
    head = list(islice(rows, SAMPLE))
    columns = dict.fromkeys(name for _, fields in head if not isinstance(fields, str) for name in fields)
    return Records(shape="json", columns=list(columns), rows=chain(head, rows))


def _json_lines(first: str, file: Iterable[str]) -> Iterator[tuple[int, Json, str]]:
    for number, text in enumerate(chain([first], file), start=1):
        if text.strip():
            value, problem = _parsed(text)
            yield number, value, problem


def _parsed(text: str) -> tuple[Json, str]:
    """Return a JSON value, and what is wrong with the text; empty if nothing is."""
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return value, ""


def _flat_rows(values: Iterable[tuple[int, Json, str]]) -> Iterator[Record]:
    for line, value, problem in values:
        if problem:
            yield line, problem
            continue
        for one in _members(value):
            if not isinstance(one, dict):
                yield line, "not a JSON object"
            elif isinstance(turns := one.get("conversations", one.get("messages")), list):
                yield from ((line, turn) for turn in _requests_of(one, turns))
            else:
                yield line, _flat(one)


def _members(value: Json) -> Iterable[Json]:
    """Return the records of a JSON value: its list, the list that it wraps, or itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        wrapped = next((value[name] for name in WRAPPERS if isinstance(value.get(name), list)), None)
        if isinstance(wrapped, list):
            return wrapped
    return [value]


def _requests_of(conversation: dict[str, Json], turns: Sequence[Json]) -> Iterator[Mapping[str, str]]:
    """Yield one request for each turn of a person in a conversation, dated by the turn itself.

    A conversation whose turns have no times is one request, dated by its own.
    """
    outer = _flat(conversation)
    dated = [turn for turn in turns if isinstance(turn, dict) and _time_of(turn)]
    if not dated:
        yield outer
    for turn in dated:
        if str(turn.get("from", turn.get("role", ""))).lower() in ("human", "user"):
            yield {**outer, **_flat(turn), "timestamp": _time_of(turn)}


def _time_of(turn: Mapping[str, Json]) -> str:
    for name in ("timestamp", "time", "created_at", "createTime", "create_time"):
        if isinstance(value := turn.get(name), str | int | float):
            return str(value)
    return ""


def _flat(value: Mapping[str, Json], prefix: str = "", depth: int = 0) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            if depth < DEEPEST:
                flat |= _flat(item, f"{prefix}{name}.", depth + 1)
        elif isinstance(item, list):
            flat[prefix + name] = "[]"  # that it is there tells layouts apart
        else:
            flat[prefix + name] = "" if item is None else str(item)
    return flat
