"""Whom each wake woke for, by key: counted as request rows and ends of wakes arrive, in either order.

A request may have waited for several wakes (a snapshot failed, a cold start followed) and may have been held
before its wake began, so its own row names one wake at most. The wake's list of those it woke for is
what counts; a request that the row names besides is added. Only requests that were there before the wake
ended are meant: ids are the clients' to choose and may come again.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from poorwill.core.entries import RequestEnded
from poorwill.ledger.writing.names import text_number

T = TypeVar("T")

REMEMBERED_REQUESTS = 100_000
"""Ids remembered at a time: of those that a wake woke and that have not ended, and of those that were held
and have ended."""

_COUNT = (
    "INSERT INTO wake_keys VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests"
)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A wake that has ended."""

    wake: int
    ended_us: int


class Woken:
    """Counts requests for wakes. A batch that is rolled back is forgotten whole: it is applied anew."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._awaited: dict[str, dict[str, _Awaited]] = {}
        self._over: dict[str, RequestEnded] = {}
        self._counts: dict[tuple[int, int], int] = defaultdict(int)
        self._undo: list[Callable[[], object]] = []
        """What takes back what was remembered since `begin`, the last one first."""

    def begin(self) -> None:
        """Begin a transaction: the one before was committed, or forgotten."""
        self._undo.clear()

    def request_ended(self, entry: RequestEnded, key: int, wake: int | None) -> int | None:
        """Count a request for the wakes it waited for, and return the one that its row names.

        That is `wake`, if it names one: a wake interrupted by a kill has no other list of its requests.
        """
        found = {} if wake is None else {wake: None}
        for awaited in self._awaited.get(entry.request, {}).values():
            if entry.arrived_us <= awaited.ended_us:
                found[awaited.wake] = None
        for number in found:
            self._counts[number, key] += 1
        if entry.leased_us != entry.arrived_us:  # it was held, and a wake begun for it may go on
            self._remember(self._over, entry.request, entry)
        return next(reversed(found), None) if wake is None else wake

    def wake_ended(self, name: str, wake: int, ended_us: int, served: Sequence[str]) -> None:
        """Remember whom a wake woke for, and count those of them that ended before it.

        They gave up, or another replica served them."""
        for request in served:
            known = self._awaited.get(request, {})
            self._remember(self._awaited, request, {**known, name: _Awaited(wake, ended_us)})
            gone = self._over.get(request)
            if gone is not None and gone.arrived_us <= ended_us and gone.wake != name:
                self._counts[wake, text_number(self._db, gone.key)] += 1

    def flush(self) -> None:
        """Write what was counted."""
        if self._counts:
            self._db.executemany(_COUNT, [(*where, n) for where, n in self._counts.items()])
            self._counts.clear()

    def forget(self) -> None:
        """Drop what was counted and remembered since `begin`, after a rollback."""
        self._counts.clear()
        for take_back in reversed(self._undo):
            take_back()
        self._undo.clear()

    def _remember(self, memory: dict[str, T], name: str, what: T) -> None:
        before = memory.pop(name, None)
        if before is None:
            self._undo.append(partial(memory.pop, name, None))
        else:
            self._undo.append(partial(memory.__setitem__, name, before))
        memory[name] = what
        if len(memory) > REMEMBERED_REQUESTS:
            del memory[next(iter(memory))]
