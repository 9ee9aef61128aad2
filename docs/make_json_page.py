"""Writes docs/json.md: every document that `--json` prints, from the structs themselves.

python docs/make_json_page.py
"""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

import msgspec

from poorwill.cli.parsing.failure import Failure
from poorwill.cli.parsing.verbs import every_verb

PAGE = Path(__file__).with_name("json.md")

HEAD = """\
# What `--json` prints

Made from the program by `docs/make_json_page.py`; a test holds it to that.

Every verb that reports takes `--json` and then prints exactly one JSON document on stdout, whatever happens.
If it fails, that is `{"error": ...}` (the last one of this page), and the exit status is not 0. Progress and
logs go to stderr as ever.

A name tells its unit: `_us` microseconds (whole numbers; instants count from 1970, UTC), `_s` seconds,
`_nusd` nano-dollars (billionths of the `currency` beside it, if there is one), `_bytes` bytes; `_h`, `_s` or
`_month` behind `nusd` is a rate, `_per_s` is a second's. Shares go from 0 to 1. Instants without a unit are
ISO 8601. Fields may be added; none is renamed, and none changes its meaning, without a word in the changelog.
"""


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    told: set[type] = set()
    for path, verb in every_verb():
        if not verb.prints:
            continue
        lines.append(f"\n## `poorwill {' '.join(path)} --json`\n")
        for number, kind in enumerate(verb.prints):
            lines += ["or:\n"] if number else []
            lines += document(kind, told)
    lines += ["\n## Any verb that fails\n", *document(Failure, told)]
    return "\n".join(lines).rstrip() + "\n"


def document(kind: type, told: set[type]) -> Iterator[str]:
    """Return one struct, and those it holds that the page has not told of."""
    told.add(kind)
    yield f"**{kind.__name__}**: {' '.join((inspect.getdoc(kind) or '').split())}\n"
    yield "| field | type |"
    yield "| --- | --- |"
    hints = get_type_hints(kind)
    inner: list[type] = []
    for field in msgspec.structs.fields(kind):
        yield f"| `{field.encode_name}` | {words(hints[field.name], inner)} |"
    yield ""
    for one in inner:
        if one not in told:
            yield from document(one, told)


def words(hint: object, inner: list[type]) -> str:
    """Return a type in words; structs in it are added to `inner`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join("null" if one is NoneType else words(one, inner) for one in args)
    if origin in (tuple, list):
        return f"list of {words(args[0], inner)}"
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {words(args[1], inner)}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        if hint not in inner:
            inner.append(hint)
        return f"{hint.__name__}"
    plain = {int: "whole number", float: "number", bool: "true or false", str: "text", object: "anything"}
    return plain.get(hint, "text") if isinstance(hint, type) else str(hint)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
