"""Publishes the keys of `fleet.toml`: as JSON Schema for editors, and as docs/configuration.md for people."""

from poorwill.config.file_keys import FileTable, file_tables
from poorwill.config.values.containers import REQUIRED, DeclaredKey, KeyTable, ListReader
from poorwill.config.values.scalars import Json, ValueReader


def schema() -> Json:
    """Return the JSON Schema (draft 7, which TOML editors read) of `fleet.toml`."""
    tables: Json = {}
    for one in file_tables().values():
        table = one.keys.schema | {"description": one.meaning}
        if one.header.startswith("[["):
            table = {"type": "array", "items": table}
        elif one.header.endswith(".NAME]"):
            table = {"type": "object", "additionalProperties": table}
        tables[one.name] = table
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
        "Made from poorwill's own list of keys by `poorwill check --manual`; do not edit it by hand.",
        "",
        "`poorwill init` writes an example, `poorwill check` lists everything that is wrong with a",
        "file, and `poorwill check --schema` prints a JSON Schema for editors.",
        "",
        "Durations end in `_s` and are seconds; amounts have `usd` in their name and are dollars, exact",
        'to the nano-dollar; sizes are bytes, or text such as `"64 MiB"`. Relative paths count from the',
        "directory of the file.",
        "",
    ]
    for table in file_tables().values():
        parts += _table_of_file(table)
    return "\n".join(parts)


def _table_of_file(table: FileTable) -> list[str]:
    lines = [f"## `{table.header}`", "", table.meaning, ""]
    if table.name == "defaults":
        return lines
    lines += _rows(table.keys)
    for key in table.keys.keys.values():
        inner = _inner(key.reader)
        if inner is not None:
            lines += [f"### `{key.name}`", "", key.meaning, "", *_forms(inner), *_rows(inner)]
            for deeper in inner.keys.values():
                below = _inner(deeper.reader)
                if below is not None:
                    lines += [f"Each of `{deeper.name}`:", "", *_rows(below)]
    return lines


def _inner(reader: ValueReader) -> KeyTable | None:
    if isinstance(reader, ListReader):
        reader = reader.of
    return reader if isinstance(reader, KeyTable) else None


def _forms(table: KeyTable) -> list[str]:
    keys = " or ".join(f"`{key.name}`" for key in table.bare)
    return [f"Either a bare value, which stands for {keys}, or a table:", ""] if keys else []


def _rows(table: KeyTable) -> list[str]:
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key in table.keys.values():
        cells = (f"`{key.name}`", key.reader.words, _default(key), key.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _default(key: DeclaredKey) -> str:
    """Return a default as the file would have it; that of a table only if a bare value says it."""
    if key.default is REQUIRED:
        return "required"
    inner = _inner(key.reader)
    if key.default in (None, "", (), {}) or (inner is not None and not inner.bare):
        return ""
    return f"`{key.reader.show(key.default)}`"
