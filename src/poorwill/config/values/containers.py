"""Readers of values that hold other values: lists, free tables, and tables of declared keys.

A `KeyTable` reads a TOML table into a flat mapping of keys; `assemble` makes the settings object of it. They
are two steps because values from `[defaults]` are laid under a model's own in between.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import Any, cast

from poorwill.config.meanings import Meanings
from poorwill.config.problems import BAD, Bad, Location
from poorwill.config.values.scalars import Json, ValueReader, nearest, toml_name

_UNIT = re.compile(r"_(ms|us|sec|secs|seconds|min|minutes|h|hours|bytes|mb|gb|usd|usd_h)$")

REQUIRED = object()
"""Stands for the default of a key that has none."""

KeyValues = dict[str, object]
"""Values by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReader:
    """Reads a list of values of one kind."""

    of: ValueReader
    least: int = 0

    @property
    def words(self) -> str:
        """What may be written."""
        plural = {"text": "texts", "a table": "tables"}.get(self.of.words)
        return f"a list of {plural}" if plural else f"a list, each {self.of.words}"

    @property
    def schema(self) -> Json:
        """The JSON Schema."""
        return {"type": "array", "items": self.of.schema, "minItems": self.least}

    def read(self, raw: object, at: Location) -> tuple[object, ...] | Bad:
        """Return the values; every bad one is reported."""
        if not isinstance(raw, list):
            return at.wrong(f"must be a list, not {toml_name(raw)}", "write [ ... ]")
        values = tuple(self.of.read(item, at / index) for index, item in enumerate(raw))
        if len(values) < self.least:
            return at.wrong("must not be empty" if self.least == 1 else f"must have at least {self.least}")
        return BAD if at.found.is_bad(at.path) else values

    def show(self, value: object) -> str:
        """Return the list."""
        assert isinstance(value, tuple)
        return "[" + ", ".join(self.of.show(item) for item in value) + "]"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapReader:
    """Reads a table of values of one kind, with free keys or keys out of a list."""

    of: ValueReader
    keys: type[StrEnum] | None = None

    @property
    def words(self) -> str:
        """What may be written."""
        name = self.keys.__name__.lower() if self.keys else "name"
        listed = ": " + ", ".join(f"`{key}`" for key in self.keys) if self.keys else ""
        return f"a table of {name} and {self.of.words}{listed}"

    @property
    def schema(self) -> Json:
        """The JSON Schema."""
        if not self.keys:
            return {"type": "object", "additionalProperties": self.of.schema}
        known = {str(key): self.of.schema for key in self.keys}
        return {"type": "object", "properties": known, "additionalProperties": False}

    def read(self, raw: object, at: Location) -> Mapping[str, object] | Bad:
        """Return the table; every bad key and value is reported."""
        if not isinstance(raw, dict):
            return at.wrong(f"must be a table, not {toml_name(raw)}", "write { key = value }")
        values: KeyValues = {}
        for key, item in raw.items():
            if self.keys and key not in tuple(self.keys):
                (at / key).wrong("unknown key", nearest(key, tuple(self.keys)))
            else:
                values[self.keys(key) if self.keys else key] = self.of.read(item, at / key)
        return BAD if at.found.is_bad(at.path) else values

    def show(self, value: object) -> str:
        """Return the inline table."""
        assert isinstance(value, Mapping)
        pairs = ", ".join(f"{key} = {self.of.show(item)}" for key, item in value.items())
        return "{ " + pairs + " }" if pairs else "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredKey:
    """One key of a table: its value, its meaning, and the attribute that it sets."""

    name: str
    reader: ValueReader
    owner: type
    """The settings class that has the attribute."""
    into: tuple[str, ...]
    """The attributes to go down by, from the table's settings object."""
    meanings: Meanings
    default: object
    """As a value of the settings; `REQUIRED` if there is none."""
    merges: bool
    """Whether a table under `[defaults]` is completed, not replaced, by the model's own."""
    bare: bool
    """Whether a bare value stands for the whole table."""

    @property
    def meaning(self) -> str:
        """What the key is for."""
        return self.meanings.of(self.owner, self.into[-1])

    def read(self, raw: object, at: Location) -> object:
        """Read the value; of a table that merges, the values by key."""
        if self.merges and isinstance(self.reader, KeyTable):
            return self.reader.values(raw, at)
        return self.reader.read(raw, at)

    def setting(self, value: object) -> object:
        """Return what was read as the value of the attribute."""
        if self.merges and isinstance(self.reader, KeyTable):
            return self.reader.assemble(cast(KeyValues, value))
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTable:
    """Reads a table of declared keys, which makes one settings object."""

    makes: type
    parts: Mapping[tuple[str, ...], type]
    """The classes of the settings objects within it whose keys stand in this table."""
    keys: Mapping[str, DeclaredKey]
    meanings: Meanings

    @property
    def meaning(self) -> str:
        """What the table is for."""
        return self.meanings.of(self.makes)

    @property
    def bare(self) -> Sequence[DeclaredKey]:
        """The keys that a bare value can stand for."""
        return [key for key in self.keys.values() if key.bare]

    @property
    def words(self) -> str:
        """What may be written."""
        return ", ".join([*(key.reader.words for key in self.bare), "or a table"]) if self.bare else "a table"

    @property
    def schema(self) -> Json:
        """The JSON Schema: what is missing here may come from elsewhere, so nothing is required."""
        keys = {key.name: {"description": key.meaning, **key.reader.schema} for key in self.keys.values()}
        table: Json = {"type": "object", "properties": keys, "additionalProperties": False}
        return {"anyOf": [*(key.reader.schema for key in self.bare), table]} if self.bare else table

    def read(self, raw: object, at: Location) -> object:
        """Return the settings object; missing keys are reported as well."""
        values = self.values(raw, at)
        if isinstance(values, Bad):
            return BAD
        for key in () if at.found.partial else self.keys.values():
            here = at / key.name
            if key.default is REQUIRED and key.name not in values and not at.found.is_bad(here.path):
                here.wrong("is missing", key.meaning)
        return BAD if at.found.is_bad(at.path) else self.assemble(values)

    def values(self, raw: object, at: Location) -> KeyValues | Bad:
        """Return the values by key. Bad values are reported and left out."""
        for key in self.bare:
            if not isinstance(raw, dict) and type(raw) in _WRITTEN_AS[type(key.default)]:
                value = key.read(raw, at)
                return BAD if isinstance(value, Bad) else {key.name: value}
        if not isinstance(raw, dict):
            return at.wrong(f"must be {self.words.replace('`', '')}, not {toml_name(raw)}")
        values: KeyValues = {}
        for name, item in raw.items():
            if name not in self.keys:
                (at / name).wrong("unknown key", at.found.belongs(name) or self._meant(name))
            elif not isinstance(value := self.keys[name].read(item, at / name), Bad):
                values[name] = value
        return values

    def _meant(self, name: str) -> str:
        stem = _UNIT.sub("", name)
        for unit in ("_s", "_usd", "_usd_h", ""):
            if stem + unit in self.keys:
                return f"did you mean {stem + unit!r}?"
        return nearest(name, tuple(self.keys))

    def assemble(self, values: KeyValues, **more: object) -> Any:
        """Return the settings object of values by key; `more` gives further attributes, dotted.

        Required keys that are missing must have been reported: they become empty text.
        """
        flat = {tuple(name.split(".")): value for name, value in more.items()}
        for key in self.keys.values():
            if key.name in values:
                flat[key.into] = key.setting(values[key.name])
            elif key.default is REQUIRED:
                flat[key.into] = ""
        for path in sorted(self.parts, key=len, reverse=True):
            own = {into[-1]: flat.pop(into) for into in list(flat) if into[:-1] == path}
            flat[path] = self.parts[path](**own)
        return self.makes(**{into[0]: value for into, value in flat.items()})

    def laid_over(self, under: KeyValues, over: KeyValues) -> KeyValues:
        """Return the values of `over` completed by those of `under`; tables that merge, key by key."""
        merged = {**under, **over}
        for name, key in self.keys.items():
            below, above = under.get(name), over.get(name)
            if key.merges and isinstance(below, dict) and isinstance(above, dict):
                merged[name] = {**below, **above}
        return merged

    def show(self, value: object) -> str:
        """Return an inline table of what differs from the defaults; a bare value if that will do."""
        found = {name: reduce(getattr, key.into, value) for name, key in self.keys.items()}
        given = {name: key for name, key in self.keys.items() if found[name] != key.default}
        for key in self.bare:
            if set(given) <= {key.name}:
                return key.reader.show(found[key.name])
        return "{ " + ", ".join(f"{n} = {key.reader.show(found[n])}" for n, key in given.items()) + " }"


_WRITTEN_AS: Mapping[type, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), tuple: (list,)}
"""The types of TOML that a bare value is recognised by, by the type of its default."""
