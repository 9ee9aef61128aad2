"""The kinds of single values in `fleet.toml`: how each is read, described in the schema and shown.

A kind reports what is wrong to its `Place` and returns `BAD`; it never raises. Numbers arrive as `int` or,
because the file is read with `parse_float=Decimal`, as `Decimal`: no amount passes through binary floats.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from poorwill.config.sheet import Bad, Place
from poorwill.core.money import NUSD
from poorwill.core.words import SECOND_US

Json = dict[str, object]

_MOST_SECONDS = 10 * 366 * 86_400
_MOST_DOLLARS = 10**9
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*", re.IGNORECASE)
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h|d)\s*", re.IGNORECASE)


class Kind(Protocol):
    """One kind of value."""

    @property
    def words(self) -> str:
        """What may be written, in a few words."""
        ...

    def read(self, raw: object, place: Place) -> object:
        """Return the value for core's settings, or report to `place` and return `BAD`."""
        ...

    def schema(self) -> Json:
        """Return the JSON Schema of what may be written."""
        ...

    def show(self, value: object) -> str:
        """Return a value of core's settings as it would be written in the file."""
        ...


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
    """Return a hint that names the nearest of `words`, or all of them where none is near."""
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return f"did you mean {str(near[0])!r}?" if near else "known: " + ", ".join(filter(None, words))


def quoted(text: object) -> str:
    """Return text as a TOML basic string."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(raw: object) -> Decimal | None:
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal):
        return None
    number = Decimal(raw)
    return number if number.is_finite() else None


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Any text, one of a few words, or text that matches a pattern."""

    choices: tuple[str, ...] = ()
    pattern: str = ""
    words: str = "text"
    empty: bool = True

    def read(self, raw: object, place: Place) -> str | Bad:
        """Return the text."""
        if not isinstance(raw, str):
            return place.wrong(f"must be {self._must}, not {toml_name(raw)}")
        if "\0" in raw:
            return place.wrong("must not contain a NUL character")
        if self.choices and raw not in self.choices:
            return place.wrong(f"{raw!r} is not known", nearest(raw, self.choices))
        if self.pattern and not re.fullmatch(self.pattern, raw):
            return place.wrong(f"{raw!r} is not {self.words}")
        if not raw and not self.empty:
            return place.wrong("must not be empty")
        return raw

    @property
    def _must(self) -> str:
        return "one of " + ", ".join(map(quoted, self.choices)) if self.choices else self.words

    def schema(self) -> Json:
        """Return the JSON Schema."""
        if self.choices:
            return {"enum": list(self.choices)}
        pattern: Json = {"pattern": f"^(?:{self.pattern})$"} if self.pattern else {}
        return {"type": "string", **pattern}

    def show(self, value: object) -> str:
        """Return the text in quotes."""
        return quoted(value)


ENV_NAME = Text(pattern=r"[A-Za-z_]\w*", words="the name of an environment variable")


def choice(*words: str) -> Text:
    """Return the kind that takes one of a few words."""
    return Text(choices=words, words="one of " + ", ".join(f"`{quoted(word)}`" for word in words))


@dataclass(frozen=True, slots=True)
class Word:
    """One of the words of an enumeration of core."""

    of: type[StrEnum]

    @property
    def words(self) -> str:
        """Return the words."""
        return "one of " + ", ".join(quoted(word) for word in self.of)

    def read(self, raw: object, place: Place) -> StrEnum | Bad:
        """Return the member."""
        if not isinstance(raw, str):
            return place.wrong(f"must be {self.words}, not {toml_name(raw)}")
        if raw not in tuple(self.of):
            return place.wrong(f"{raw!r} is not known", nearest(raw, tuple(self.of)))
        return self.of(raw)

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"enum": [str(word) for word in self.of]}

    def show(self, value: object) -> str:
        """Return the word in quotes."""
        return quoted(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    words: str = "true or false"

    def read(self, raw: object, place: Place) -> bool | Bad:
        """Return the truth value."""
        if isinstance(raw, bool):
            return raw
        hint = f"write {raw} without quotes" if raw in ("true", "false") else ""
        return place.wrong(f"must be true or false, not {toml_name(raw)}", hint)

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "boolean"}

    def show(self, value: object) -> str:
        """Return `true` or `false`."""
        return "true" if value else "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole number within bounds."""

    least: int = 0
    most: int = 2**53
    words: str = "a whole number"

    def read(self, raw: object, place: Place) -> int | Bad:
        """Return the number."""
        if isinstance(raw, bool) or not isinstance(raw, int):
            return place.wrong(f"must be a whole number, not {toml_name(raw)}")
        if not self.least <= raw <= self.most:
            return place.wrong(f"{raw} is out of range", f"from {self.least} to {self.most}")
        return raw

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def show(self, value: object) -> str:
        """Return the digits."""
        return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """A duration, written in seconds and kept in microseconds."""

    zero: bool = False
    words: str = "seconds"

    def read(self, raw: object, place: Place) -> int | Bad:
        """Return microseconds."""
        number = _number(raw)
        if number is None:
            match = _DURATION.fullmatch(raw) if isinstance(raw, str) else None
            hint = f"write {_in_seconds(match)}" if match else ""
            return place.wrong(f"must be a number of seconds, not {toml_name(raw)}", hint)
        if number < 0 or number > _MOST_SECONDS or (number == 0 and not self.zero):
            least = "0" if self.zero else "more than 0"
            return place.wrong(f"{raw} s is out of range", f"{least} up to {_MOST_SECONDS}")
        micros = int((number * SECOND_US).to_integral_value())
        if micros == 0 and not self.zero:
            return place.wrong(f"{raw} s is less than a microsecond")
        return micros

    def schema(self) -> Json:
        """Return the JSON Schema."""
        least = "minimum" if self.zero else "exclusiveMinimum"
        return {"type": "number", least: 0, "maximum": _MOST_SECONDS}

    def show(self, value: object) -> str:
        """Return microseconds as seconds."""
        assert isinstance(value, int)
        return _plain(Decimal(value) / SECOND_US)


def _in_seconds(match: re.Match[str]) -> str:
    unit = match[2].lower()
    factor = {"ms": Decimal("0.001"), "m": Decimal(60), "min": Decimal(60)}.get(unit)
    if factor is None:
        factor = {"h": Decimal(3600), "d": Decimal(86_400)}.get(unit, Decimal(1))
    return _plain(Decimal(match[1]) * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A size in bytes: a whole number of bytes, or text with a unit."""

    zero: bool = True
    words: str = 'bytes, or text such as `"64 MiB"`'

    def read(self, raw: object, place: Place) -> int | Bad:
        """Return bytes."""
        size = raw if isinstance(raw, int) and not isinstance(raw, bool) else None
        if isinstance(raw, str):
            match = _SIZE.fullmatch(raw)
            if not match:
                return place.wrong(f"{raw!r} is not a size", 'write bytes, or text like "64 MiB"')
            size = int(Decimal(match[1]) * _unit(match[2]))
        if size is None:
            hint = 'write bytes, or text like "64 MiB"'
            return place.wrong(f"must be a size, not {toml_name(raw)}", hint)
        if size < 0 or size > 2**60 or (size == 0 and not self.zero):
            least = "0" if self.zero else "more than 0"
            return place.wrong(f"{raw} is out of range", f"{least} up to 1 EiB")
        return size

    def schema(self) -> Json:
        """Return the JSON Schema."""
        number = {"type": "integer", "minimum": 0 if self.zero else 1, "maximum": 2**60}
        unit = "[Bb]|[KkMmGgTt][Ii]?[Bb]"
        text = {"type": "string", "pattern": rf"^\s*\d+(\.\d+)?\s*({unit})\s*$"}
        return {"anyOf": [number, text]}

    def show(self, value: object) -> str:
        """Return bytes in the largest binary unit that divides them."""
        assert isinstance(value, int)
        for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value and value % factor == 0:
                return quoted(f"{value // factor} {unit}")
        return str(value)


def _unit(unit: str) -> int:
    base = 1024 if "i" in unit.lower() else 1000
    return int(base ** "bkmgt".index(unit[0].lower()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """An amount of dollars, kept in nano-dollars; numbers and decimal text are both exact."""

    zero: bool = True
    words: str = 'dollars, as a number or as text: `0.35`, `"0.35"`'

    def read(self, raw: object, place: Place) -> int | Bad:
        """Return nano-dollars."""
        number = _number(raw)
        if isinstance(raw, str) and re.fullmatch(r"\d+(\.\d+)?", raw):
            number = Decimal(raw)
        if number is None:
            hint = "write it as 0.35, without a currency sign"
            return place.wrong(f"must be an amount of dollars, not {toml_name(raw)}", hint)
        if number < 0 or number > _MOST_DOLLARS or (number == 0 and not self.zero):
            least = "0" if self.zero else "more than 0"
            return place.wrong(f"{raw} is out of range", f"{least} up to {_MOST_DOLLARS}")
        # At most ten digits before the point and 18 after it: the product is exact in 28 digits.
        exponent = number.as_tuple().exponent
        amount = number * NUSD
        if exponent == "n" or int(exponent) < -18 or amount != amount.to_integral_value():
            return place.wrong(f"{raw} is finer than a nano-dollar", "at most nine decimals")
        return int(amount)

    def schema(self) -> Json:
        """Return the JSON Schema."""
        least = "minimum" if self.zero else "exclusiveMinimum"
        number: Json = {"type": "number", least: 0, "maximum": _MOST_DOLLARS}
        return {"anyOf": [number, {"type": "string", "pattern": r"^\d+(\.\d+)?$"}]}

    def show(self, value: object) -> str:
        """Return nano-dollars as dollars."""
        assert isinstance(value, int)
        return _plain(Decimal(value) / NUSD)


@dataclass(frozen=True, slots=True)
class Share:
    """A share between 0 and 1."""

    words: str = "a number from 0 to 1"

    def read(self, raw: object, place: Place) -> float | Bad:
        """Return the share."""
        number = _number(raw)
        if number is None or not 0 <= number <= 1:
            shown = toml_name(raw) if number is None else raw
            return place.wrong(f"must be {self.words}, not {shown}")
        return float(number)

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "number", "minimum": 0, "maximum": 1}

    def show(self, value: object) -> str:
        """Return the number."""
        return str(value)
