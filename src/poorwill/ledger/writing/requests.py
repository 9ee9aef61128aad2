"""Request rows, many at once, with the hourly sums that are kept beside them.

The sums in `usage` are written in the same transaction as the rows they sum, so that they are never
behind; `poorwill ledger check` compares the two.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

from poorwill.core.entries import RequestEnded
from poorwill.core.tokens import NO_PARTS, TOKEN_PARTS
from poorwill.core.words import HOUR_US
from poorwill.ledger.costs.usage import SUMS
from poorwill.ledger.writing.names import text_number
from poorwill.ledger.writing.wake_demand import Woken

_COLUMNS = (
    *("request", "model", "key", "path", "outcome", "life", "wake", "arrived_us", "leased_us"),
    *("first_byte_us", "ended_us", "status", "tokens_in", "tokens_out", "bridge_nusd", "bridge"),
    *("bridge_unknown_nusd", *TOKEN_PARTS, "counted"),
)
_INSERT = f"INSERT INTO requests ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"

_SUM = (
    f"INSERT INTO usage (hour, model, key, {', '.join(SUMS)}) VALUES (?, ?, ?{', ?' * len(SUMS)})"
    f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)

_NO_PARTS = (None,) * len(TOKEN_PARTS)

REMEMBERED_TEXTS = 10_000


class RequestRows:
    """Collects request rows and writes them and their sums in one go."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._rows: list[tuple[object, ...]] = []
        self._sums: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0] * len(SUMS))
        self._woken = Woken(db)
        self._texts: dict[str, int] = {}
        self._lives: dict[str, int | None] = {}
        self._wakes: dict[str, int | None] = {}
        self._longest_us = 0

    def add(self, entry: RequestEnded) -> None:
        """Take one row; it is written by the next `flush`."""
        model, key = self._text(entry.model), self._text(entry.key)
        replica = entry.replica
        named = None if entry.wake is None else self._wake(entry.wake)
        wake = self._woken.request_ended(entry, key, named)
        self._rows.append(
            (
                entry.request,
                model,
                key,
                self._text(entry.path),
                self._text(entry.outcome),
                None if replica is None else self._life(replica),
                wake,
                entry.arrived_us,
                entry.leased_us,
                entry.first_byte_us,
                entry.ended_us,
                entry.status,
                entry.tokens_in,
                entry.tokens_out,
                entry.bridge_nusd,
                self._text(entry.bridge) if entry.bridge else None,
                entry.bridge_unknown_nusd,
                *self._parts(entry),
                1 if entry.counted else None,
            )
        )
        self._sum(entry, self._sums[entry.ended_us // HOUR_US, model, key])

    def _sum(self, entry: RequestEnded, sums: list[int]) -> None:
        """Add a row to its hour's sums, in the order of `SUMS`."""
        sums[0] += 1
        sums[1] += entry.outcome != "ok"
        sums[2] += entry.tokens_in is None and entry.tokens_out is None
        sums[3] += entry.tokens_in or 0
        sums[4] += entry.tokens_out or 0
        leased_us = entry.ended_us if entry.leased_us is None else entry.leased_us
        self._longest_us = max(self._longest_us, entry.ended_us - leased_us)
        sums[5] += leased_us - entry.arrived_us
        sums[6] += entry.bridge_nusd
        if entry.bridge:
            sums[7] += 1
            sums[8] += entry.bridge_untold
            sums[9] += entry.bridge_unknown_nusd
        if entry.parts is not NO_PARTS:
            for number, part in enumerate(TOKEN_PARTS, start=10):
                sums[number] += getattr(entry.parts, part)
        sums[-1] += entry.counted

    def _parts(self, entry: RequestEnded) -> Iterable[int | None]:
        if entry.parts is NO_PARTS:
            return _NO_PARTS
        return (getattr(entry.parts, part) or None for part in TOKEN_PARTS)

    def begin(self) -> None:
        """Begin a transaction."""
        self._woken.begin()

    def wake_ended(self, name: str, wake: int, ended_us: int, served: Sequence[str]) -> None:
        """Take notice of whom a wake woke for."""
        self._woken.wake_ended(name, wake, ended_us, served)

    def flush(self) -> None:
        """Write what was collected."""
        self._woken.flush()
        if not self._rows:
            return
        self._db.executemany(_INSERT, self._rows)
        self._db.executemany(_SUM, [(*where, *sums) for where, sums in self._sums.items()])
        self._db.execute("UPDATE progress SET longest_us = ?1 WHERE longest_us < ?1", (self._longest_us,))
        self._rows.clear()
        self._sums.clear()
        # Replicas and wakes come and go between batches; a name must not outlive what it named.
        self._lives.clear()
        self._wakes.clear()

    def forget(self) -> None:
        """Drop what was collected and every remembered row number, after a rollback."""
        self._rows.clear()
        self._sums.clear()
        self._woken.forget()
        self._texts.clear()
        self._lives.clear()
        self._wakes.clear()

    def _text(self, text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            if len(self._texts) >= REMEMBERED_TEXTS:  # paths are the client's to choose
                self._texts.clear()
            number = self._texts[text] = text_number(self._db, text)
        return number

    def _life(self, replica: str) -> int | None:
        """Return the replica's life, the last one if it has ended, None if there never was one."""
        if replica not in self._lives:
            row = self._db.execute(
                "SELECT id FROM lives WHERE replica = ? ORDER BY created_us DESC LIMIT 1",
                (replica,),
            ).fetchone()
            self._lives[replica] = int(row[0]) if row else None
        return self._lives[replica]

    def _wake(self, wake: str) -> int | None:
        if wake not in self._wakes:
            row = self._db.execute(
                "SELECT id FROM wakes WHERE wake = ? ORDER BY id DESC LIMIT 1", (wake,)
            ).fetchone()
            self._wakes[wake] = int(row[0]) if row else None
        return self._wakes[wake]
