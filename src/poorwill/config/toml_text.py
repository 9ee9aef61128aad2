"""Parses the text of a TOML file into values and lines; reports all syntax errors, not only the first.

A line that cannot be parsed is blanked and the rest is parsed again, so that mistakes further down are
reported in the same run. A table header that cannot be parsed becomes a table with a name that no document
has, so that the keys below it are not taken for another table's.
"""

import ast
import re
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from poorwill.config.key_lines import KeyLines, locate
from poorwill.core.problems import Problem

_TUPLE = re.compile(r"\((?:'[^']*',? ?)+\)")
_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_SPANS = re.compile(r"unclosed|unterminated|nested too deeply")
_MOST_ERRORS = 20
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){100}""")
"""A dotted key so deep that `tomllib`, which is quadratic in it, would take minutes."""
LOST = "\x7flost"
"""Prefix of the names of tables whose header could not be parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed file: its values, the lines of its keys, and its syntax errors."""

    table: dict[str, Any]
    lines: KeyLines
    faults: tuple[Problem, ...] = ()


def parse(text: str) -> Document:
    """Parse a text. Never raises, whatever the text contains."""
    deep = _DEEP_KEY.search(text)
    if deep is not None:
        line = text.count("\n", 0, deep.start()) + 1
        fault = Problem(where="a key", what="is nested too deeply", line=line)
        return Document(table={}, lines=KeyLines({}), faults=(fault,))
    rows = text.replace("\r\n", "\n").split("\n")
    faults: list[Problem] = []
    last = 0
    while True:
        try:
            whole = "\n".join(rows)
            table = tomllib.loads(whole, parse_float=Decimal)
            break
        except (ValueError, ArithmeticError, RecursionError) as error:
            fault, line = _fault(error, rows)
            if line > last:
                faults.append(fault)
            # Blanking one line does not remove an error that spans lines; it would only cause others.
            if line <= last or _SPANS.search(fault.what) or len(faults) == _MOST_ERRORS:
                return Document(table={}, lines=KeyLines({}), faults=tuple(faults))
            rows[line - 1] = _blank(rows[line - 1], line)
            last = line
    return Document(table=table, lines=locate(whole), faults=tuple(faults))


def _fault(error: Exception, rows: list[str]) -> tuple[Problem, int]:
    message = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    match = _AT.search(message)
    line = int(match[1]) if match and match[1] else len(rows)
    what = _AT.sub("", message) or "cannot be parsed"
    # `tomllib` shows the name of a table as a Python tuple.
    what = _TUPLE.sub(lambda found: ".".join(ast.literal_eval(found[0])), what)
    column = f"column {match[2]}" if match and match[2] else "the end of the file"
    row = rows[line - 1].strip()
    return Problem(where=column, what=what[0].lower() + what[1:], hint=_hint(row), line=line), line


def _hint(row: str) -> str:
    value = row.partition("=")[2].strip()
    if re.match(r"(True|False|None|yes|no|on|off)\b", value):
        return "TOML writes true and false in lower case"
    if re.match(r"\d+(\.\d+)?\s*[A-Za-z]+", value):
        return "numbers have no unit; put text in quotes"
    if re.match(r"[A-Za-z~/$]", value):
        return "put text in quotes"
    return ""


def _blank(row: str, line: int) -> str:
    header = re.match(r"\s*(\[\[?)", row)
    if header and "=" not in row:
        return f'["{LOST} {line}"]'.replace("\x7f", "\\u007f")
    return ""
