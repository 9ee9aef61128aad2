"""Derives the tables and keys of `fleet.toml` from the settings of core, and their meaning from its text.

`core.settings` is the only list of keys there is. What a key is called and how its value is written follows
from its attribute's name and type, as `core.settings.notation` says.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from poorwill.config.meanings import Meanings
from poorwill.config.values.addresses import FileReader, engine_urls, listen_addresses
from poorwill.config.values.containers import REQUIRED, DeclaredKey, KeyTable, ListReader, MapReader
from poorwill.config.values.dates import dates, days_of_week, time_zones, times_of_day
from poorwill.config.values.scalars import (
    ValueReader,
    choices,
    dollars,
    engine_options,
    flags,
    json_values,
    seconds,
    shares,
    sizes,
    texts,
    wholes,
)
from poorwill.core.settings import (
    Address,
    DeviceSettings,
    FleetSettings,
    GatewaySettings,
    HostsSettings,
    ModelSettings,
    RateSettings,
    SpendSettings,
    StatementSettings,
)
from poorwill.core.settings.notation import Bounds, FileKey, Mark, Matching

_READERS: Mapping[Mark, Callable[[], ValueReader]] = {
    Mark.FILE: lambda: FileReader(or_hub=False),
    Mark.FILE_OR_HUB: lambda: FileReader(or_hub=True),
    Mark.ENGINE_URL: engine_urls,
    Mark.DATE: dates,
    Mark.TIME_OF_DAY: times_of_day,
    Mark.WEEKDAYS: days_of_week,
    Mark.TIME_ZONE: time_zones,
    Mark.JSON: json_values,
}

_DEFAULTS = (
    "Any key of `[models.NAME]`, for every model that does not set it itself. The tables {merging} are "
    "completed key by key, everything else is replaced."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTable:
    """One table of the file."""

    name: str
    header: str
    keys: KeyTable

    @property
    def meaning(self) -> str:
        """What the table is for."""
        if self.name != "defaults":
            return self.keys.meaning
        merging = [f"`{key.name}`" for key in self.keys.keys.values() if key.merges]
        return _DEFAULTS.format(merging=f"{', '.join(merging[:-1])} and {merging[-1]}")


def file_tables() -> Mapping[str, FileTable]:
    """Return the tables of `fleet.toml` by name, in the order of the documentation."""
    meanings = Meanings()
    model = key_table(ModelSettings, meanings)
    tables = (
        FileTable(name="models", header="[models.NAME]", keys=model),
        FileTable(name="defaults", header="[defaults]", keys=model),
        FileTable(name="fleet", header="[fleet]", keys=key_table(FleetSettings, meanings)),
        FileTable(name="gateway", header="[gateway]", keys=key_table(GatewaySettings, meanings)),
        FileTable(name="devices", header="[[devices]]", keys=key_table(DeviceSettings, meanings)),
        FileTable(name="hosts", header="[hosts]", keys=key_table(HostsSettings, meanings)),
        FileTable(name="rates", header="[[rates]]", keys=key_table(RateSettings, meanings)),
        FileTable(name="spend", header="[spend]", keys=key_table(SpendSettings, meanings)),
        FileTable(name="statement", header="[statement]", keys=key_table(StatementSettings, meanings)),
    )
    return {table.name: table for table in tables}


def key_table(makes: type, meanings: Meanings) -> KeyTable:
    """Return the table of keys that a settings class declares."""
    parts: dict[tuple[str, ...], type] = {}
    keys = {key.name: key for key in _declared(makes, (), parts, meanings)}
    return KeyTable(makes=makes, parts=parts, keys=keys, meanings=meanings)


def _declared(
    makes: type, path: tuple[str, ...], parts: dict[tuple[str, ...], type], meanings: Meanings
) -> Iterator[DeclaredKey]:
    hints = get_type_hints(makes, include_extras=True)
    for one in fields(makes):
        hint, marks = _unwrapped(hints[one.name])
        if Mark.SPREAD in marks:
            parts[(*path, one.name)] = hint
            yield from _declared(hint, (*path, one.name), parts, meanings)
        elif Mark.NOT_A_KEY not in marks:
            yield DeclaredKey(
                name=next((mark.name for mark in marks if isinstance(mark, FileKey)), _key_of(one.name)),
                reader=_reader(hint, marks, one.name, meanings),
                owner=makes,
                meanings=meanings,
                into=(*path, one.name),
                default=_default(one),
                merges=Mark.MERGES in marks,
                bare=Mark.BARE in marks,
            )


def _key_of(attribute: str) -> str:
    """Return the key of an attribute: without a unit, or with the one that the file uses."""
    return re.sub("_us$", "_s", attribute.removesuffix("_bytes")).replace("nusd", "usd")


def _default(one: "Field[Any]") -> object:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return REQUIRED if one.default is MISSING else one.default


def _unwrapped(hint: Any) -> tuple[Any, Sequence[object]]:
    """Return a type without marks, `None` and `NewType`, and its marks, the outermost first."""
    marks: list[object] = []
    while True:
        if get_origin(hint) is Annotated:
            marks = [*marks, *reversed(hint.__metadata__)]
            hint = hint.__origin__
        elif get_origin(hint) in (Union, UnionType) and type(None) in get_args(hint):
            (hint,) = (one for one in get_args(hint) if one is not type(None))
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        else:
            return hint, marks


def _reader(hint: Any, marks: Sequence[object], attribute: str, meanings: Meanings) -> ValueReader:
    """Return the reader of values of a type; a container's unit is that of its values."""
    bounds = next((mark for mark in marks if isinstance(mark, Bounds)), Bounds())
    special = next((mark for mark in marks if isinstance(mark, Mark) and mark in _READERS), None)
    if special is not None:
        return _READERS[special]()
    if is_dataclass(hint) and isinstance(hint, type):
        return key_table(hint, meanings)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return ListReader(of=_reader(*_unwrapped(inner[0]), attribute, meanings), least=bounds.least or 0)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        keys = inner[0] if issubclass(inner[0], StrEnum) else None
        return MapReader(of=_reader(*_unwrapped(inner[1]), attribute, meanings), keys=keys)
    if origin in (Union, UnionType) and not set(inner) - {str, int, float, bool}:
        return engine_options()
    return _scalar_reader(hint, marks, bounds, attribute)


def _scalar_reader(hint: Any, marks: Sequence[object], bounds: Bounds, attribute: str) -> ValueReader:
    words = _words(hint)
    if words is not None:
        return choices(words)
    matching = next((mark for mark in marks if isinstance(mark, Matching)), None)
    if matching is not None:
        return texts(matching.words, pattern=matching.regex)
    units: Mapping[str, Callable[[], ValueReader]] = {
        "us": lambda: seconds(bounds),
        "nusd": dollars,
        "bytes": lambda: sizes(bounds),
    }
    if hint is int:
        unit = next((part for part in attribute.split("_") if part in units), None)
        return units[unit]() if unit else wholes(bounds)
    simple: Mapping[Any, Callable[[], ValueReader]] = {
        str: lambda: texts(least=bounds.least or 0),
        bool: flags,
        float: shares,
        Address: listen_addresses,
    }
    return simple[hint]()


def _words(hint: Any) -> Sequence[str] | None:
    """Return the words that a type lists, None if it lists none."""
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return tuple(hint)
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return tuple(word for one in get_args(hint) for word in _words(one) or ())
    return None
