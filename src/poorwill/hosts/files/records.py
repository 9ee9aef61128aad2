"""Reads tables that others wrote: CSV, JSON lines and JSON, plain or compressed, in bounded memory.

Tolerates what real exports have: a byte order mark, CRLF, UTF-16, other separators, blank lines, arrays
within arrays. A row that cannot be read is returned with the reason, so that a reader can list them all.
Numbers of JSON stay text: no digit is lost, and none is computed before its reader has looked at it.
"""

import csv
import errno
import gzip
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.hosts.files.opening import UnsafeFile, open_to_read

MOST_BYTES = 8 * 2**30
"""Largest table after unpacking; the largest public trace has a tenth of that."""
MOST_LINE = 16 * 2**20
"""Longest line: a row may hold a whole prompt."""
MOST_DOCUMENT = 64 * 2**20
"""Largest JSON document of several lines: it is read as a whole."""
SEPARATORS = ",;\t|"
SAMPLE = 50
"""Objects of JSON that are looked at for their columns."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""The beginning of what a spreadsheet saved as "Unicode text"."""

Row = Mapping[str, str] | str
"""The fields of a row by column, or the reason why it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRows:
    """The rows of a table, each with its line, read as they are asked for."""

    columns: Sequence[str]
    """Of JSON, those of the first objects."""
    separator: str
    """Empty for JSON. With `;` numbers usually have a decimal comma."""
    rows: Iterator[tuple[int, Row]]


@contextmanager
def open_table(path: str | Path, *, most_bytes: int = MOST_BYTES) -> Iterator[TextIO]:
    """Open a table as text, unpacked, without a byte order mark. What is no text becomes a replacement mark.

    Raises OSError, also while it is read: for what is damaged, too large, or no regular file. OperatorFault
    if it is compressed with zstd and no library for that is installed.
    """
    with open(open_to_read(path), "rb") as file:
        first = file.peek(4)[:4]
        inner: BinaryIO = file
        if first.startswith(_GZIP):
            inner = cast(BinaryIO, gzip.GzipFile(fileobj=file))
        elif first == _ZSTD:
            inner = _zstd(file, path)
        raw = io.BufferedReader(_Bounded(inner, path, most_bytes))
        encoding = "utf-16" if raw.peek(2)[:2] in _UTF_16 else "utf-8-sig"
        with io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="") as text:
            yield text


def _zstd(file: BinaryIO, path: str | Path) -> BinaryIO:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{path} is compressed with zstd, and {error.name} is not installed",
            hint="pip install backports.zstd, or decompress it: zstd -d",
        ) from error
    return cast(BinaryIO, zstd.open(file, "rb"))


class _Bounded(io.RawIOBase):
    """Reads another file up to a bound; errors of unpacking become UnsafeFile."""

    def __init__(self, inner: BinaryIO, path: str | Path, most_bytes: int) -> None:
        self._inner = inner
        self._path = path
        self._left = most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        try:
            data = self._inner.read(len(buffer))
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged(error) from error
        except Exception as error:  # each library has its own
            raise self._damaged(error) from error
        self._left -= len(data)
        if self._left < 0:
            raise UnsafeFile(self._path, "is too large", errno.EFBIG)
        buffer[: len(data)] = data
        return len(data)

    def _damaged(self, error: Exception) -> UnsafeFile:
        return UnsafeFile(self._path, f"is damaged: {error}", errno.EIO)


def lines_of(file: TextIO) -> Iterator[str]:
    """Yield the lines of an open table. Raises OSError for one that is too long."""
    while line := file.readline(MOST_LINE + 1):
        if len(line) > MOST_LINE:
            raise OSError(errno.EFBIG, f"a line has more than {MOST_LINE:,} characters")
        yield line


def read_rows(file: TextIO) -> TableRows:
    """Return the rows of an open table: JSON if it begins with `{` or `[`, else CSV."""
    lines = lines_of(file)
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip()[:1] not in ("{", "["):
        return csv_rows(first, lines)
    rows = ((at, problem or _fields(value)) for at, value, problem in json_values(first, lines))
    head = list(islice(rows, SAMPLE))
    columns = dict.fromkeys(name for _, row in head if not isinstance(row, str) for name in row)
    return TableRows(columns=list(columns), separator="", rows=chain(head, rows))


def csv_rows(first: str, rest: Iterable[str]) -> TableRows:
    """Return the table of CSV lines whose first is the header. The separator is the most frequent in it."""
    separator = max(SEPARATORS, key=first.count)
    csv.field_size_limit(MOST_LINE)
    reader = csv.reader(chain([first], rest), delimiter=separator)
    columns = [name.strip() for name in next(reader, [])]

    def rows() -> Iterator[tuple[int, Row]]:
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"not CSV: {error}"
                continue
            if not any(field.strip() for field in fields):
                continue
            if len(fields) == len(columns):
                yield reader.line_num, dict(zip(columns, fields, strict=True))
            else:
                yield reader.line_num, f"{len(fields)} fields, the header has {len(columns)}"

    return TableRows(columns=columns, separator=separator, rows=rows())


def json_values(first: str, rest: Iterable[str]) -> Iterator[tuple[int, object, str]]:
    """Yield the values of JSON lines or of one document: line, value, and what is wrong, if anything is.

    Of arrays, also those within arrays, each member is a value.
    """
    value, problem = _parsed(first)
    if problem:
        rest = iter(rest)
        second = next(rest, "")
        if second and not _parsed(second)[1]:  # lines, of which the first is bad
            rest = chain([second], rest)
        else:
            value, problem = _parsed(_whole(chain([first, second], rest)))
            rest = ()
    yield from ((1, member, problem) for member in _members(value))
    for at, line in enumerate(rest, start=2):
        if line.strip():
            value, problem = _parsed(line)
            yield from ((at, member, problem) for member in _members(value))


def _whole(lines: Iterable[str]) -> str:
    parts: list[str] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size > MOST_DOCUMENT:
            what = f"a JSON document of more than {MOST_DOCUMENT:,} characters; use one object a line"
            raise OSError(errno.EFBIG, what)
    return "".join(parts)


def _parsed(text: str) -> tuple[object, str]:
    """Return a JSON value with numbers as text, and what is wrong with it; empty if nothing is."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str), ""
    except ValueError as error:
        return None, f"not JSON: {error}"
    except RecursionError:
        return None, "not JSON: nested too deeply"


def _members(value: object) -> Iterator[object]:
    waiting = [iter([value])]
    while waiting:
        member = next(waiting[-1], waiting)
        if member is waiting:
            waiting.pop()
        elif isinstance(member, list):
            waiting.append(iter(member))
        else:
            yield member


def _fields(value: object) -> Row:
    if not isinstance(value, dict):
        return "not a JSON object"
    return {key: item if isinstance(item, str) else _plain(item) for key, item in value.items()}


def _plain(item: object) -> str:
    return "" if item is None else json.dumps(item, ensure_ascii=False)
