"""Readers of single values of `fleet.toml`: numbers, texts, durations, sizes and amounts.

A reader reports what is wrong at a `Location` and returns `BAD`; it never raises. Numbers arrive as `int` or,
because the file is read with `parse_float=Decimal`, as `Decimal`: no amount passes through binary floats.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Protocol

from poorwill.config.problems import Location
from poorwill.core.format import duration_us
from poorwill.core.money import NUSD
from poorwill.core.settings.notation import Bounds
from poorwill.core.words import SECOND_US

Json = dict[str, object]

_MOST_SECONDS = 10 * 366 * 86_400
_MOST_DOLLARS = 10**9
_MOST_BYTES = 2**60
_SIZE = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*", re.IGNORECASE)
_DURATION = r"^\s*((\d+\.?\d*|\.\d+)\s*(us|ms|s|min|m|h|d)?\s*)+$"
_AMOUNT = re.compile(r"\s*\$?\s*(\d{1,3}(?:,\d{3}){1,9}(?:\.\d{1,40})?|\d{1,40}(?:\.\d{1,40})?)\s*", re.ASCII)


MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}"


class ValueReader(Protocol):
    """Reads one value, describes it in the schema, and shows it."""

    @property
    def words(self) -> str:
        """What may be written, in a few words."""
        ...

    @property
    def schema(self) -> Json:
        """The JSON Schema of what may be written."""
        ...

    def read(self, raw: object, at: Location) -> object:
        """Return the value for the settings, or report it and return `BAD`."""
        ...

    def show(self, value: object) -> str:
        """Return a value of the settings as it would be written in the file."""
        ...


class BadValue(Exception):
    """A value that cannot be used: what is wrong with it, and a hint."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def toml_name(raw: object) -> str:
    """Return what TOML calls the type of a value, for messages."""
    names: Sequence[tuple[type, str]] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (Decimal, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a table"),
        (datetime, "a date and time"),
        (date, "a date"),
        (time, "a time of day"),
    )
    return next(name for kind, name in names if isinstance(raw, kind))


def nearest(word: str, words: Sequence[str]) -> str:
    """Return a hint that names the nearest of `words`, or all of them if none is near."""
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return f"did you mean {str(near[0])!r}?" if near else "known: " + ", ".join(filter(None, words))


def quoted(text: object) -> str:
    """Return text as a TOML basic string."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarReader:
    """Reads a value that holds no other values."""

    words: str
    parse: Callable[[object], object]
    """Returns the value for the settings. Raises BadValue."""
    schema: Json
    shown: Callable[[object], str] = quoted

    def read(self, raw: object, at: Location) -> object:
        """Return the value, or report it."""
        try:
            return self.parse(raw)
        except BadValue as bad:
            return at.wrong(bad.what, bad.hint)

    def show(self, value: object) -> str:
        """Return a value as the file has it."""
        return self.shown(value)


def texts(words: str = "text", *, pattern: str = "", least: int = 0) -> ScalarReader:
    """Return the reader of any text, or of text that matches a pattern as a whole."""

    def parse(raw: object) -> str:
        text = text_of(raw, words)
        if "\0" in text:
            raise BadValue("must not contain a NUL character")
        if pattern and not re.fullmatch(pattern, text):
            raise BadValue(f"{text!r} is not {words}")
        if len(text) < least:
            raise BadValue("must not be empty")
        return text

    schema: Json = {"type": "string", **({"pattern": f"^(?:{pattern})$"} if pattern else {})}
    return ScalarReader(words=words, parse=parse, schema=schema)


def text_of(raw: object, words: str) -> str:
    """Return a text as it is. Raises BadValue for every other type."""
    if not isinstance(raw, str):
        raise BadValue(f"must be {words}, not {toml_name(raw)}")
    return raw


def choices(known: Sequence[str]) -> ScalarReader:
    """Return the reader of one of a few words."""
    words = "one of " + ", ".join(f"`{quoted(word)}`" for word in known)

    def parse(raw: object) -> str:
        text = text_of(raw, words.replace("`", ""))
        if text not in known:
            raise BadValue(f"{text!r} is not known", nearest(text, known))
        return known[known.index(text)]

    return ScalarReader(words=words, parse=parse, schema={"enum": [str(word) for word in known]})


def flags() -> ScalarReader:
    """Return the reader of true and false."""

    def parse(raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        hint = f"write {raw} without quotes" if raw in ("true", "false") else ""
        raise BadValue(f"must be true or false, not {toml_name(raw)}", hint)

    return ScalarReader(
        words="true or false", parse=parse, schema={"type": "boolean"}, shown=lambda value: str(value).lower()
    )


def wholes(bounds: Bounds) -> ScalarReader:
    """Return the reader of whole numbers."""
    least = bounds.least or 0
    most = 2**53 if bounds.most is None else bounds.most

    def parse(raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise BadValue(f"must be a whole number, not {toml_name(raw)}")
        if not least <= raw <= most:
            raise BadValue(f"{raw} is out of range", f"from {least} to {most}")
        return raw

    schema: Json = {"type": "integer", "minimum": least, "maximum": most}
    return ScalarReader(words="a whole number", parse=parse, schema=schema, shown=str)


def seconds(bounds: Bounds) -> ScalarReader:
    """Return the reader of durations: seconds in the file, microseconds in the settings."""
    zero = bounds.least == 0

    def parse(raw: object) -> int:
        number = _seconds_of(raw[:64]) if isinstance(raw, str) else _number(raw)
        if number is None:
            hint = 'write seconds, or text such as "5m" or "1h 30m"'
            raise BadValue(f"must be a number of seconds, not {toml_name(raw)}", hint)
        _check_range(number, _MOST_SECONDS, zero=zero, shown=f"{raw} s")
        micros = int((number * SECOND_US).to_integral_value())
        if micros == 0 and not zero:
            raise BadValue(f"{raw} s is less than a microsecond")
        return micros

    number: Json = {"type": "number", "minimum" if zero else "exclusiveMinimum": 0, "maximum": _MOST_SECONDS}
    return ScalarReader(
        words='seconds, or text such as `"5m"`',
        parse=parse,
        schema={"anyOf": [number, {"type": "string", "pattern": _DURATION}]},
        shown=lambda us: _in_units(us, SECOND_US),
    )


def _seconds_of(text: str) -> Decimal | None:
    try:
        return Decimal(duration_us(text)) / SECOND_US
    except ValueError:
        return None


def sizes(bounds: Bounds) -> ScalarReader:
    """Return the reader of sizes: a whole number of bytes, or text with a unit."""
    zero = not bounds.least
    form = 'write bytes, or text like "64 MiB"'

    def parse(raw: object) -> int:
        match = _SIZE.fullmatch(raw) if isinstance(raw, str) else None
        if match:
            base = 1024 if "i" in match[2].lower() else 1000
            size = int(Decimal(match[1]) * base ** "bkmgt".index(match[2][0].lower()))
        elif isinstance(raw, str):
            raise BadValue(f"{raw!r} is not a size", form)
        elif isinstance(raw, bool) or not isinstance(raw, int):
            raise BadValue(f"must be a size, not {toml_name(raw)}", form)
        else:
            size = raw
        _check_range(size, _MOST_BYTES, zero=zero, shown=f"{raw}", most_shown="1 EiB")
        return size

    number: Json = {"type": "integer", "minimum": 0 if zero else 1, "maximum": _MOST_BYTES}
    unit = "[Bb]|[KkMmGgTt][Ii]?[Bb]"
    text: Json = {"type": "string", "pattern": rf"^\s*\d+(\.\d+)?\s*({unit})\s*$"}
    words = 'bytes, or text such as `"64 MiB"`'
    return ScalarReader(words=words, parse=parse, schema={"anyOf": [number, text]}, shown=_show_size)


def _show_size(value: object) -> str:
    assert isinstance(value, int)
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value and value % factor == 0:
            return quoted(f"{value // factor} {unit}")
    return str(value)


def dollars() -> ScalarReader:
    """Return the reader of amounts: dollars in the file, nano-dollars in the settings, always exact."""

    def parse(raw: object) -> int:
        match = _AMOUNT.fullmatch(raw) if isinstance(raw, str) else None
        number = Decimal(match[1].replace(",", "")) if match else _number(raw)
        if number is None:
            shown = repr(raw[:40]) if isinstance(raw, str) else toml_name(raw)
            raise BadValue(f"must be an amount of dollars, not {shown}", 'write 0.35, or "$0.35"')
        _check_range(number, _MOST_DOLLARS, zero=True, shown=f"{raw}")
        # At most ten digits before the point and 18 after it: the product is exact in 28 digits.
        exponent = number.as_tuple().exponent
        amount = number * NUSD
        if not isinstance(exponent, int) or exponent < -18 or amount != amount.to_integral_value():
            raise BadValue(f"{raw} is finer than a nano-dollar", "at most nine decimals")
        return int(amount)

    number: Json = {"type": "number", "minimum": 0, "maximum": _MOST_DOLLARS}
    schema: Json = {"anyOf": [number, {"type": "string", "pattern": r"^\s*\$?\s*\d[\d,]*(\.\d+)?\s*$"}]}
    words = 'dollars, as a number or as text: `0.35`, `"$0.35"`'
    return ScalarReader(words=words, parse=parse, schema=schema, shown=partial(_in_units, unit=NUSD))


def shares() -> ScalarReader:
    """Return the reader of shares between 0 and 1."""
    words = "a number from 0 to 1"

    def parse(raw: object) -> float:
        number = _number(raw)
        if number is None or not 0 <= number <= 1:
            raise BadValue(f"must be {words}, not {toml_name(raw) if number is None else raw}")
        return float(number)

    schema: Json = {"type": "number", "minimum": 0, "maximum": 1}
    return ScalarReader(words=words, parse=parse, schema=schema, shown=str)


def engine_options() -> ScalarReader:
    """Return the reader of what an engine's own option may be: text, a number or a truth value."""
    words = "text, a number, or true or false"

    def parse(raw: object) -> str | bool | int | float:
        if isinstance(raw, str | bool | int):
            return raw
        if not isinstance(raw, Decimal):
            raise BadValue(f"must be {words}, not {toml_name(raw)}")
        return float(raw)

    def shown(value: object) -> str:
        return quoted(value) if isinstance(value, str) else str(value).lower()

    return ScalarReader(
        words=words, parse=parse, schema={"type": ["string", "number", "boolean"]}, shown=shown
    )


def json_values() -> ScalarReader:
    """Return the reader of any value that JSON has as well."""

    def parse(raw: object) -> object:
        if isinstance(raw, Decimal):
            return float(raw)
        if isinstance(raw, dict):
            return {key: parse(value) for key, value in raw.items()}
        if isinstance(raw, list):
            return [parse(value) for value in raw]
        if not isinstance(raw, str | bool | int):
            raise BadValue(f"must be a value that JSON has as well, not {toml_name(raw)}")
        return raw

    return ScalarReader(words="any value", parse=parse, schema={}, shown=str)


def in_seconds(duration_us: int) -> str:
    """Return a duration as messages about the file say it: in the file's own unit."""
    return f"{duration_us / SECOND_US:g} s"


def _check_range(
    number: Decimal | int, most: int, *, zero: bool, shown: str, most_shown: str | None = None
) -> None:
    if number < 0 or number > most or (number == 0 and not zero):
        least = "0" if zero else "more than 0"
        raise BadValue(f"{shown} is out of range", f"{least} up to {most_shown or most}")


def _number(raw: object) -> Decimal | None:
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal):
        return None
    number = Decimal(raw)
    return number if number.is_finite() else None


def _in_units(value: object, unit: int) -> str:
    assert isinstance(value, int)
    return _plain(Decimal(value) / unit)


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
