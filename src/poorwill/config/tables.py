"""The kinds of values that hold other values: lists, free tables, and groups of declared fields.

A `Group` reads a TOML table into a flat `Values` mapping; `assemble` makes the settings object of it. In
between, values from `[defaults]` can be laid under a model's own, which is why reading and assembling are
two steps. Defaults are those of core's dataclasses; they are written nowhere else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from functools import reduce
from types import MappingProxyType
from typing import Any, cast, get_type_hints

from poorwill.config.kinds import Json, Kind, nearest, quoted, toml_name
from poorwill.config.sheet import BAD, Bad, Place

_UNIT = re.compile(r"_(ms|us|sec|secs|seconds|min|minutes|h|hours|bytes|mb|gb|usd|usd_h)$")

Into = tuple[str, ...]
Values = dict[str, object]
"""Field key to value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A list of values of one kind."""

    of: Kind
    words: str = ""
    least: int = 0

    def read(self, raw: object, place: Place) -> tuple[object, ...] | Bad:
        """Return the values; every bad one is reported."""
        if not isinstance(raw, list):
            return place.wrong(f"must be a list, not {toml_name(raw)}", "write [ ... ]")
        values = tuple(self.of.read(item, place / index) for index, item in enumerate(raw))
        if len(values) < self.least:
            least = "must not be empty" if self.least == 1 else f"must have at least {self.least}"
            return place.wrong(least)
        return BAD if place.sheet.is_bad(place.path) else values

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "array", "items": self.of.schema(), "minItems": self.least}

    def show(self, value: object) -> str:
        """Return the list."""
        assert isinstance(value, tuple)
        return "[" + ", ".join(self.of.show(item) for item in value) + "]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of values of one kind, with free keys or keys out of a list."""

    of: Kind
    words: str
    keys: type[StrEnum] | None = None

    def read(self, raw: object, place: Place) -> Mapping[str, object] | Bad:
        """Return the table; every bad key and value is reported."""
        if not isinstance(raw, dict):
            return place.wrong(f"must be a table, not {toml_name(raw)}", "write { key = value }")
        values: Values = {}
        for key, item in raw.items():
            if self.keys and key not in tuple(self.keys):
                (place / key).wrong("unknown key", nearest(key, tuple(self.keys)))
            else:
                name = self.keys(key) if self.keys else key
                values[name] = self.of.read(item, place / key)
        return BAD if place.sheet.is_bad(place.path) else values

    def schema(self) -> Json:
        """Return the JSON Schema."""
        if not self.keys:
            return {"type": "object", "additionalProperties": self.of.schema()}
        known = {str(key): self.of.schema() for key in self.keys}
        return {"type": "object", "properties": known, "additionalProperties": False}

    def show(self, value: object) -> str:
        """Return the inline table."""
        assert isinstance(value, Mapping)
        pairs = ", ".join(f"{key} = {self.of.show(item)}" for key, item in value.items())
        return "{ " + pairs + " }" if pairs else "{}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """Any text, number or truth value: what an engine's own option may be."""

    words: str = "text, a number, or true or false"

    def read(self, raw: object, place: Place) -> object:
        """Return the value; a decimal becomes a float."""
        if isinstance(raw, str | bool | int):
            return raw
        if isinstance(raw, list | dict) or not hasattr(raw, "as_tuple"):
            return place.wrong(f"must be {self.words}, not {toml_name(raw)}")
        return float(str(raw))

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": ["string", "number", "boolean"]}

    def show(self, value: object) -> str:
        """Return the value as TOML."""
        if isinstance(value, bool):
            return str(value).lower()
        return quoted(value) if isinstance(value, str) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a table: its kind, what it is for, and where its value goes in the settings object."""

    key: str
    kind: Kind
    doc: str
    into: str = ""
    """Attribute of the settings object, dotted for a nested one; the key itself where empty. Two
    attributes with `+` between them share a pair."""
    default: object = None
    """Only where core's settings have none."""
    required: bool = False
    merges: bool = False
    """Whether a table under `[defaults]` is completed, not replaced, by the model's own."""

    @property
    def attributes(self) -> Sequence[Into]:
        """Return the attributes that the value fills."""
        return [tuple(part.split(".")) for part in (self.into or self.key).split("+")]

    def part(self, raw: object, place: Place) -> object:
        """Read the value; of a table that merges, the values by key."""
        if self.merges and isinstance(self.kind, Group):
            return self.kind.values(raw, place)
        return self.kind.read(raw, place)

    def placed(self, value: object) -> Mapping[Into, object]:
        """Return the attributes with their values."""
        if self.merges and isinstance(self.kind, Group):
            value = self.kind.assemble(cast(Values, value))
        into = self.attributes
        if len(into) == 1:
            return {into[0]: value}
        return dict(zip(into, cast(tuple[object, ...], value), strict=True))

    def taken(self, settings: object) -> object:
        """Return the field's value in a settings object: the opposite of `placed`."""
        found = tuple(reduce(getattr, into, settings) for into in self.attributes)
        return found[0] if len(found) == 1 else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A table of declared fields, which makes one settings object."""

    makes: Callable[..., Any]
    fields: tuple[Field, ...]
    words: str = "a table"
    shorts: Mapping[type, str] = field(default_factory=lambda: MappingProxyType({}))
    """What a bare value of a type stands for: the key it would have in the table."""

    def __getitem__(self, key: str) -> Field:
        return next(one for one in self.fields if one.key == key)

    def read(self, raw: object, place: Place) -> Any:
        """Return the settings object; missing keys are reported as well."""
        values = self.values(raw, place)
        if isinstance(values, Bad):
            return BAD
        self.complete(values, place)
        return BAD if place.sheet.is_bad(place.path) else self.assemble(values)

    def values(self, raw: object, place: Place) -> Values | Bad:
        """Return the values by key. Bad values are reported and left out."""
        short = self.shorts.get(type(raw))
        if short is not None:
            value = self[short].kind.read(raw, place)
            return BAD if value is BAD else {short: value}
        if not isinstance(raw, dict):
            return place.wrong(f"must be {self.words}, not {toml_name(raw)}")
        values: Values = {}
        for key, item in raw.items():
            known = next((one for one in self.fields if one.key == key), None)
            if known is None:
                (place / key).wrong("unknown key", place.sheet.belongs(key) or self._meant(key))
            elif (value := known.part(item, place / key)) is not BAD:
                values[key] = value
        return values

    def _meant(self, key: str) -> str:
        keys = [one.key for one in self.fields]
        stem = _UNIT.sub("", key)
        for unit in ("_s", "_usd", "_usd_h", ""):
            if stem + unit in keys:
                return f"did you mean {stem + unit!r}?"
        return nearest(key, keys)

    def complete(self, values: Values, place: Place) -> None:
        """Report the required keys that the values lack, unless they were there and bad."""
        for one in self.fields if not place.sheet.partial else ():
            here = place / one.key
            if one.required and one.key not in values and not place.sheet.is_bad(here.path):
                here.wrong("is missing", one.doc)

    def assemble(self, values: Values, **more: object) -> Any:
        """Return the settings object of values by key; `more` gives further attributes.

        Required keys that are missing must have been reported: they become empty text.
        """
        flat: dict[Into, object] = {tuple(name.split(".")): value for name, value in more.items()}
        for one in self.fields:
            if one.key in values:
                flat |= one.placed(values[one.key])
            elif one.required or one.default is not None:
                flat |= one.placed("" if one.default is None else one.default)
        return _nested(self.makes, flat)

    def laid_over(self, under: Values, over: Values) -> Values:
        """Return the values of `over` completed by those of `under`; tables that merge, key by key."""
        merged = {**under, **over}
        for one in self.fields:
            below, above = under.get(one.key), over.get(one.key)
            if one.merges and isinstance(below, dict) and isinstance(above, dict):
                merged[one.key] = {**below, **above}
        return merged

    def default(self, one: Field) -> object:
        """Return a field's default as a value of core's settings; None where it has none."""
        if one.default is not None or one.required:
            return one.default
        found = tuple(_default(self.makes, into) for into in one.attributes)
        return found[0] if len(found) == 1 else found

    def schema(self) -> Json:
        """Return the JSON Schema: what is missing here may come from elsewhere, so nothing is required."""
        table: Json = {
            "type": "object",
            "properties": {one.key: self.described(one) for one in self.fields},
            "additionalProperties": False,
        }
        if not self.shorts:
            return table
        return {"anyOf": [*(self[key].kind.schema() for key in self.shorts.values()), table]}

    def described(self, one: Field) -> Json:
        """Return a field's JSON Schema with its description."""
        return {"description": one.doc, **one.kind.schema()}

    def show(self, value: object) -> str:
        """Return an inline table of what differs from the defaults; as a bare value where that will do."""
        given = {
            one.key: one.kind.show(found)
            for one in self.fields
            if (found := one.taken(value)) != self.default(one)
        }
        for key in self.shorts.values():
            if set(given) <= {key}:
                return self[key].kind.show(self[key].taken(value))
        return "{ " + ", ".join(f"{key} = {text}" for key, text in given.items()) + " }"


def _nested(makes: Callable[..., Any], flat: Mapping[Into, object]) -> Any:
    own = {into[0]: value for into, value in flat.items() if len(into) == 1}
    deeper: dict[str, dict[Into, object]] = {}
    for into, value in flat.items():
        if len(into) > 1:
            deeper.setdefault(into[0], {})[into[1:]] = value
    hints = get_type_hints(makes)
    return makes(**own, **{name: _nested(hints[name], part) for name, part in deeper.items()})


def _default(makes: Any, into: Into) -> object:
    if len(into) > 1:
        return _default(get_type_hints(makes)[into[0]], into[1:])
    one = next(one for one in fields(makes) if one.name == into[0])
    if one.default_factory is not MISSING:
        return one.default_factory()
    return None if one.default is MISSING else one.default
