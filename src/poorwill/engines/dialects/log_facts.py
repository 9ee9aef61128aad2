"""What one log line can tell, and how a table of patterns reads it. Pure: no file, no clock.

Lines come from programs nobody here controls. So a pattern matches anywhere in the line, prefixes and colours
are taken off first, and a line that fits nothing yields no fact, never an error.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from poorwill.core.words import Phase

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MARKER = re.compile(r"^poorwill-engine (?P<phase>[a-z_]+) boot_us=(?P<stamp>\d{1,16})$")
"""What poorwill's own engine programs print; the stamp is CLOCK_BOOTTIME in microseconds."""


_MOST_US = 1e15
"""Thirty years: what is said to take longer is no duration, and too large for the ledger maybe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFact:
    """A line says that a phase begins now, or (with `took_us`) that it has just ended."""

    phase: Phase
    took_us: int | None = None
    detail: str = ""
    boot_us: int | None = None
    """When, on CLOCK_BOOTTIME, if the line says so."""
    since_us: int | None = None
    """When, counted from the engine's own start, if the line says so."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of line. Named groups: `s` seconds it took, `ms` likewise in milliseconds, `d` a detail."""

    regex: re.Pattern[str]
    phase: Phase
    detail: str = ""
    then: Phase | None = None
    """The phase that begins where this one has ended."""


Dialect = Callable[[str], Sequence[LogFact]]
"""Reads one line, without its newline."""


def began(phase: Phase, regex: str, detail: str = "") -> Pattern:
    """Return a pattern for a line that opens a phase."""
    return Pattern(re.compile(regex), phase, detail)


def took(phase: Phase, regex: str, detail: str = "", *, then: Phase | None = None) -> Pattern:
    """Return a pattern for a line that tells how long a phase took, at its end."""
    return Pattern(re.compile(regex), phase, detail, then)


def plain(line: str) -> str:
    """Return the line without colours and white space at its ends."""
    return _COLOUR.sub("", line).strip()


def marker(line: str) -> tuple[LogFact, ...]:
    """Read a marker line of poorwill's own engine programs."""
    match = MARKER.match(line)
    if match is None or match["phase"] not in tuple(map(str, Phase)):
        return ()
    return (LogFact(phase=Phase(match["phase"]), boot_us=int(match["stamp"])),)


def search(table: Sequence[Pattern], text: str, *, since_us: int | None = None) -> tuple[LogFact, ...]:
    """Return the facts of the first pattern that matches."""
    for pattern in table:
        match = pattern.regex.search(text)
        if match is not None:
            return tuple(_facts(pattern, match, since_us))
    return ()


def _facts(pattern: Pattern, match: re.Match[str], since_us: int | None) -> Sequence[LogFact]:
    groups = match.groupdict()
    detail = " ".join(part for part in (pattern.detail, groups.get("d") or "") if part)
    took_us = micros(groups)
    facts = [LogFact(phase=pattern.phase, took_us=took_us, detail=detail, since_us=since_us)]
    if pattern.then is not None:
        facts.append(LogFact(phase=pattern.then, since_us=since_us))
    return facts


def micros(groups: Mapping[str, str | None]) -> int | None:
    """Return how long it took, by the group `s` or `ms`; None if neither is a duration."""
    for name, unit in (("s", 1e6), ("ms", 1e3)):
        text = groups.get(name)
        if text and (took := float(text) * unit) < _MOST_US:
            return round(took)
    return None
