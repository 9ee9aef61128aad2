"""Records of a file, whatever its shape: CSV with any separator, JSON lines, a JSON document, a server's log.

Every record is a flat mapping of column names to texts. A nested JSON member is named by its path:
`usage.prompt_tokens`.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TextIO, TypeAlias, cast

from poorwill.hosts.files.records import csv_rows, json_values, lines_of
from poorwill.hosts.files.traces.server_logs import LOG_KINDS, LogRecords

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Record = tuple[int, Mapping[str, str] | str]
"""A line number, and the fields found there or why there are none."""

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
    lines = lines_of(file)
    first = next((line for line in lines if line.strip()), "")
    if not first:
        return None
    if first.lstrip()[0] in "{[" and not first.lstrip().startswith("[20"):
        rows = _flat_rows(json_values(first, lines))
        sample = list(islice(rows, SAMPLE))
        names = dict.fromkeys(name for _, fields in sample if not isinstance(fields, str) for name in fields)
        if not names and sample:
            raise OSError(errno.EINVAL, str(sample[0][1] or "no members"))
        return Records(shape="json", columns=list(names), rows=chain(sample, rows))
    head = [first, *islice(lines, SAMPLE)]
    for kind in LOG_KINDS:
        if any(kind.recognises(line) for line in head):
            log = LogRecords(kind)
            return Records(shape=kind.name, columns=kind.columns, rows=log.rows(chain(head, lines)))
    table = csv_rows(first, chain(head[1:], lines))
    return Records(shape="csv", columns=table.columns, rows=table.rows, decimal_comma=table.separator != ",")


def _flat_rows(values: Iterable[tuple[int, object, str]]) -> Iterator[Record]:
    for line, value, problem in values:
        if problem:
            yield line, problem
            continue
        for one in _wrapped(cast(Json, value)):
            if not isinstance(one, dict):
                yield line, "not a JSON object"
            elif isinstance(turns := _member(one, "conversations", "messages"), list):
                yield from ((line, turn) for turn in _requests_of(one, turns))
            else:
                yield line, _flat(one)


def _wrapped(value: Json) -> Iterable[Json]:
    """Return the records of a JSON value: the list that it wraps, or itself."""
    wrapped = _member(value, *WRAPPERS) if isinstance(value, dict) else None
    return wrapped if isinstance(wrapped, list) else [value]


def _requests_of(conversation: dict[str, Json], turns: Sequence[Json]) -> Iterator[Mapping[str, str]]:
    """Yield one request for each turn of a person in a conversation, dated by the turn itself.

    A conversation whose turns have no times is one request, dated by its own.
    """
    outer = _flat(conversation)
    dated = [turn for turn in turns if isinstance(turn, dict) and _time_of(turn)]
    if not dated:
        yield outer
    for turn in dated:
        if str(_member(turn, "from", "role")).lower() in ("human", "user"):
            yield {**outer, **_flat(turn), "timestamp": _time_of(turn)}


def _time_of(turn: Mapping[str, Json]) -> str:
    at = _member(turn, "timestamp", "time", "created_at", "createtime", "create_time")
    return str(at) if isinstance(at, str | int | float) else ""


def _member(value: Mapping[str, Json], *names: str) -> Json:
    """Return the first member of these names, in any letter case, that is not null."""
    known = {name.casefold(): item for name, item in value.items() if item is not None}
    return next((known[name] for name in names if name in known), None)


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
