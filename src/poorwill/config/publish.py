"""Publishes the field table: as JSON Schema for editors, and as docs/configuration.md for people."""

from collections.abc import Sequence

from poorwill.config.kinds import Json, Kind, Word
from poorwill.config.sections import SECTIONS, Section
from poorwill.config.tables import Field, Group, Listed, Table


def schema() -> Json:
    """Return the JSON Schema (draft 7, which TOML editors read) of `fleet.toml`."""
    tables: Json = {}
    for section in SECTIONS:
        table = section.group.schema() | {"description": section.doc}
        if section.header.startswith("[["):
            table = {"type": "array", "items": table}
        elif section.header.endswith(".NAME]"):
            table = {"type": "object", "additionalProperties": table}
        tables[section.title] = table
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "poorwill's fleet.toml",
        "type": "object",
        "properties": tables,
        "required": ["models"],
        "additionalProperties": False,
    }


def document() -> str:
    """Return docs/configuration.md."""
    parts = [
        "# fleet.toml",
        "",
        "Made from poorwill's own table of keys by `poorwill check --manual`; do not edit it by hand.",
        "",
        "`poorwill init` writes an example, `poorwill check` lists everything that is wrong with a",
        "file, and `poorwill check --schema` prints a JSON Schema for editors.",
        "",
        "Durations end in `_s` and are seconds; amounts have `usd` in their name and are dollars, exact",
        'to the nano-dollar; sizes are bytes, or text such as `"64 MiB"`. Relative paths count from the',
        "directory of the file.",
        "",
    ]
    for section in SECTIONS:
        parts += _section(section)
    return "\n".join(parts)


def _section(section: Section) -> list[str]:
    lines = [f"## `{section.header}`", "", section.doc, ""]
    if section.title == "defaults":
        return lines
    lines += _table(section.group)
    for one in section.group.fields:
        inner = _inner(one.kind)
        if inner is not None:
            lines += [f"### `{one.key}`", "", one.doc, "", *_forms(one), *_table(inner)]
            for deeper in inner.fields:
                below = _inner(deeper.kind)
                if below is not None:
                    lines += [f"Each of `{deeper.key}`:", "", *_table(below)]
    return lines


def _inner(kind: Kind) -> Group | None:
    if isinstance(kind, Listed):
        kind = kind.of
    return kind if isinstance(kind, Group) else None


def _forms(one: Field) -> list[str]:
    if not isinstance(one.kind, Group) or not one.kind.shorts:
        return []
    keys = " or ".join(f"`{key}`" for key in one.kind.shorts.values())
    return [f"Either a bare value, which stands for {keys}, or a table:", ""]


def _table(group: Group) -> list[str]:
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for one in group.fields:
        cells = (f"`{one.key}`", _words(one.kind), _default(group, one), one.doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _words(kind: Kind) -> str:
    names: Sequence[str] = ()
    if isinstance(kind, Table) and kind.keys is not None:
        names = tuple(kind.keys)
    elif isinstance(kind, Listed) and isinstance(kind.of, Word):
        names = tuple(kind.of.of)
    return kind.words + (": " + ", ".join(f"`{name}`" for name in names) if names else "")


def _default(group: Group, one: Field) -> str:
    if one.required:
        return "required"
    value = group.default(one)
    if value is None or value == "" or value == () or value == {} or _inner(one.kind):
        return _short_default(one.kind, value)
    return f"`{one.kind.show(value)}`"


def _short_default(kind: Kind, value: object) -> str:
    """Return the default of a table where a bare value says it; else its keys tell theirs themselves."""
    if isinstance(kind, Group) and kind.shorts and value is not None:
        return f"`{kind.show(value)}`"
    return ""
