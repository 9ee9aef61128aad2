"""The kinds of values that say when: dates rates take effect, hours, days of the week, time zones."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from poorwill.config.kinds import Json, nearest, quoted, toml_name
from poorwill.config.sheet import Bad, Place
from poorwill.core.words import SECOND_US

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """A date or a date and time, ISO 8601; without an offset it is UTC. Kept in microseconds since 1970."""

    words: str = "a date or date and time (UTC unless it says otherwise)"

    def read(self, raw: object, place: Place) -> int | Bad:
        """Return microseconds since the Unix epoch."""
        moment = raw
        if isinstance(raw, str):
            try:
                moment = datetime.fromisoformat(raw)
            except ValueError:
                return place.wrong(f"{raw!r} is not an ISO date", "write it as 2026-11-01")
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        if not isinstance(moment, datetime):
            return place.wrong(f"must be a date, not {toml_name(raw)}", "write it as 2026-11-01")
        since = moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH
        micros = (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds
        return micros if micros >= 0 else place.wrong(f"{raw} is before 1970")

    def schema(self) -> Json:
        """Return the JSON Schema: editors see TOML dates as text."""
        return {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}"}

    def show(self, value: object) -> str:
        """Return the date."""
        assert isinstance(value, int)
        return datetime.fromtimestamp(value / SECOND_US, UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Hour:
    """A time of day, `"08:30"` or a TOML local time, kept in minutes after midnight."""

    words: str = 'a time of day: `"08:30"`'

    def read(self, raw: object, place: Place) -> int | Bad:
        """Return minutes after midnight, from 0 to 1439."""
        if isinstance(raw, time):
            if raw.second or raw.microsecond:
                return place.wrong(f"{raw} is finer than a minute")
            return raw.hour * 60 + raw.minute
        match = _CLOCK.fullmatch(raw) if isinstance(raw, str) else None
        if match is None:
            shown = repr(raw) if isinstance(raw, str) else toml_name(raw)
            return place.wrong(f"{shown} is not a time of day", 'write it as "08:30"')
        minutes = int(match[1]) * 60 + int(match[2])
        if minutes > 1440:
            return place.wrong(f"{raw!r} is not a time of day", "the last one is 24:00")
        return minutes % 1440

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "string", "pattern": r"^([01]?\d|2[0-4]):[0-5]\d(:00)?$"}

    def show(self, value: object) -> str:
        """Return hours and minutes."""
        assert isinstance(value, int)
        return quoted(f"{value // 60:02}:{value % 60:02}")


@dataclass(frozen=True, slots=True)
class Days:
    """Days of the week: a list of names, or text with names and ranges (`"mon-fri"`). 0 is Monday."""

    words: str = 'days: `"mon-fri"`, `"sat, sun"`, `["mon", "wed"]`'

    def read(self, raw: object, place: Place) -> tuple[int, ...] | Bad:
        """Return the days in order, each once."""
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            return place.wrong(f"must be days of the week, not {toml_name(raw)}", 'e.g. "mon-fri"')
        days: set[int] = set()
        for part in parts:
            ends = [end.strip().lower()[:3] for end in part.split("-")]
            unknown = next((end for end in ends if end not in DAYS), None)
            if unknown is not None or len(ends) > 2:
                return place.wrong(f"{part.strip()!r} is not a day of the week", nearest(ends[0], DAYS))
            first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
            days.update((first + step) % 7 for step in range((last - first) % 7 + 1))
        return tuple(sorted(days)) if days else place.wrong("must name at least one day")

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

    def show(self, value: object) -> str:
        """Return the days as text."""
        assert isinstance(value, tuple)
        if value == tuple(range(7)):
            return quoted("mon-sun")
        return quoted(", ".join(DAYS[day] for day in value))


@dataclass(frozen=True, slots=True)
class Zone:
    """The name of a time zone of the IANA data base."""

    words: str = 'a time zone: `"Europe/Berlin"`'

    def read(self, raw: object, place: Place) -> str | Bad:
        """Return the name, after looking it up."""
        if not isinstance(raw, str):
            return place.wrong(f"must be the name of a time zone, not {toml_name(raw)}")
        if raw == "UTC":
            return raw
        try:
            ZoneInfo(raw)
        except (OSError, ValueError, KeyError):
            hint = 'names look like "Europe/Berlin"; the system needs tzdata'
            return place.wrong(f"{raw!r} is not a time zone known here", hint)
        return raw

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "string"}

    def show(self, value: object) -> str:
        """Return the name in quotes."""
        return quoted(value)
