"""Readers of values that say when: dates of rates, times of day, days of the week, time zones."""

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from poorwill.config.values.scalars import BadValue, ScalarReader, nearest, quoted, text_of, toml_name
from poorwill.core.settings.weekdays import DAY_MINUTES, WEEKDAYS, minute_of_day, weekdays_in
from poorwill.core.words import SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def dates() -> ScalarReader:
    """Return the reader of ISO 8601 dates, with a time or without; kept in microseconds since 1970."""
    example = "write it as 2026-11-01"

    def parse(raw: object) -> int:
        moment = raw
        if isinstance(raw, str):
            try:
                moment = datetime.fromisoformat(raw)
            except ValueError:
                raise BadValue(f"{raw!r} is not an ISO date", example) from None
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        if not isinstance(moment, datetime):
            raise BadValue(f"must be a date, not {toml_name(raw)}", example)
        since = moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH
        if since.days < 0:
            raise BadValue(f"{raw} is before 1970")
        return (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds

    def shown(value: object) -> str:
        assert isinstance(value, int)
        return datetime.fromtimestamp(value / SECOND_US, UTC).date().isoformat()

    return ScalarReader(
        words="a date or date and time (UTC unless it says otherwise)",
        parse=parse,
        schema={"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}"},  # editors see TOML dates as text
        shown=shown,
    )


def times_of_day() -> ScalarReader:
    """Return the reader of `"08:30"` and TOML's local times, kept in minutes from midnight, 0 to 1439."""

    def parse(raw: object) -> int:
        if isinstance(raw, time):
            if raw.second or raw.microsecond:
                raise BadValue(f"{raw} is finer than a minute")
            return raw.hour * 60 + raw.minute
        if not isinstance(raw, str):
            raise BadValue(f"{toml_name(raw)} is not a time of day", 'write it as "08:30"')
        try:
            return minute_of_day(raw) % DAY_MINUTES
        except ValueError as error:
            hint = "the last one is 24:00" if raw.startswith("24:") else 'write it as "08:30"'
            raise BadValue(str(error), hint) from None

    def shown(value: object) -> str:
        assert isinstance(value, int)
        return quoted(f"{value // 60:02}:{value % 60:02}")

    return ScalarReader(
        words='a time of day: `"08:30"`',
        parse=parse,
        schema={"type": "string", "pattern": r"^([01]?\d|2[0-4]):[0-5]\d(:00)?$"},
        shown=shown,
    )


def days_of_week() -> ScalarReader:
    """Return the reader of days: a list of names, or text with names and ranges. 0 is Monday."""

    def parse(raw: object) -> tuple[int, ...]:
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise BadValue(f"must be days of the week, not {toml_name(raw)}", 'e.g. "mon-fri"')
        days: set[int] = set()
        for part in parts:
            try:
                days |= weekdays_in(part)
            except KeyError as unknown:
                hint = nearest(str(unknown.args[0]), WEEKDAYS)
                raise BadValue(f"{part.strip()!r} is not a day of the week", hint) from None
        if not days:
            raise BadValue("must name at least one day")
        return tuple(sorted(days))

    def shown(value: object) -> str:
        assert isinstance(value, tuple)
        every = value == tuple(range(7))
        return quoted("mon-sun" if every else ", ".join(WEEKDAYS[day] for day in value))

    return ScalarReader(
        words='days: `"mon-fri"`, `"sat, sun"`, `["mon", "wed"]`',
        parse=parse,
        schema={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        shown=shown,
    )


def time_zones() -> ScalarReader:
    """Return the reader of names of time zones in the IANA database; each is looked up."""

    def parse(raw: object) -> str:
        name = text_of(raw, "the name of a time zone")
        try:
            if name != "UTC":
                ZoneInfo(name)
        except (OSError, ValueError, KeyError):
            hint = 'names look like "Europe/Berlin"; the system needs tzdata'
            raise BadValue(f"{name!r} is not a time zone known here", hint) from None
        return name

    return ScalarReader(words='a time zone: `"Europe/Berlin"`', parse=parse, schema={"type": "string"})
