"""What can come next on a command line, for shells that complete it."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from poorwill.cli.parsing.fleet import DEFAULT_FILE, fleet_directory, fleet_path
from poorwill.cli.parsing.options import Declared, Values, declared
from poorwill.cli.parsing.verb import Verb
from poorwill.cli.parsing.verbs import VERBS, load_verb

FILES = ":files"
"""Offered instead of a word: the shell offers the names of files as well."""

MONTHS = 12

Offered = tuple[str, str]
"""A word, and what it means; empty if it speaks for itself."""


def offered(words: Sequence[str], env: Mapping[str, str]) -> list[Offered]:
    """Return what the last word may be, given those before it; `words` are those after `poorwill`."""
    *before, begun = words or [""]
    found = _next(before, env)
    return [
        (word, text)
        for word, text in found
        if word.startswith(begun) or (word == FILES and not begun.startswith("-"))
    ]


def _next(before: Sequence[str], env: Mapping[str, str]) -> Iterable[Offered]:
    if not before:
        return [*((name, text) for name, (_, text) in VERBS.items()), ("--help", ""), ("--version", "")]
    if before[0] not in VERBS:
        return []
    verb, rest = load_verb(before[0]), before[1:]
    while verb.below:
        if not rest or rest[0] not in verb.below:
            return [*((word, text) for word, (text, _) in verb.below.items()), ("--help", "")]
        verb, rest = verb.below[rest[0]][1], rest[1:]
    return _of_verb(verb, rest, env)


def _of_verb(verb: Verb, before: Sequence[str], env: Mapping[str, str]) -> list[Offered]:
    known = list(declared(verb.options))
    fleet = _fleet(before)
    asked = next((one for one in known if before and one.flag == before[-1] and one.takes_value), None)
    if asked is not None:
        return _values(asked, fleet, env)
    given = set(before)
    found = [(one.flag, one.option.help) for one in known if one.flag and one.flag not in given]
    for one in known:
        if one.option.argument or one.option.either:
            found += _values(one, fleet, env)
    return [*found, ("--help", "")]


def _fleet(before: Sequence[str]) -> str:
    """Return the fleet that the words name so far."""
    return next((value for flag, value in pairwise(before) if flag == "--fleet"), DEFAULT_FILE)


def _values(one: Declared, fleet: str, env: Mapping[str, str]) -> list[Offered]:
    if one.choices:
        return [(word, "") for word in one.choices]
    if one.option.values is Values.FILES:
        return [(FILES, "")]
    if one.option.values is Values.MODELS:
        return [(name, "") for name in _models(fleet)]
    if one.option.values is Values.NOTHING:
        return []
    return [(word, "") for word in _in_ledger(one.option.values, fleet, env)]


def _models(fleet: str) -> Sequence[str]:
    try:
        with open(fleet_path(fleet), "rb") as file:
            return list(tomllib.load(file).get("models", {}))
    except (OSError, ValueError, AttributeError):
        return []


def _in_ledger(offer: Values, fleet: str, env: Mapping[str, str]) -> Sequence[str]:
    """Return the names of keys, or the last months, in a fleet's ledger; nothing if it has none."""
    from poorwill.core.errors import PoorwillError  # the ledger is slow to import
    from poorwill.core.format import DAY_US
    from poorwill.ledger.dates import month_name
    from poorwill.ledger.keys import list_keys
    from poorwill.ledger.schema import LEDGER_FILE, reading

    directory = fleet_directory(fleet, env) or Path()
    try:
        with reading(str(directory / LEDGER_FILE)) as db:
            if offer is Values.KEYS:
                return [key.name for key in list_keys(db)]
            days = db.execute("SELECT DISTINCT began_us / ? FROM spans ORDER BY 1 DESC", (DAY_US,))
            return list(dict.fromkeys(month_name(day) for (day,) in days))[:MONTHS]
    except PoorwillError:
        return []
