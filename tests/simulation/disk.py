"""The ledger of a simulated fleet: the real schema and the real rows in real SQLite, without the thread.

It keeps the writer's promises (`poorwill.ledger.writing.writer`): entries are applied in order, `record`
answers after COMMIT, `post` is committed within half a second, and while the disk is full nothing is lost.
What was posted is in fact committed only when somebody could tell: with the next record, a look, or a kill.
In most lives (`late`) that holds for what was recorded too: it is promised at its time, and written, in one
transaction with all that was promised since, before anybody looks and before a kill cuts the log.
What a kill leaves is what was committed; the tail of the log that nobody was promised may be cut.
"""

import asyncio
import functools
import os
import random
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from poorwill.core.entries import Entry
from poorwill.core.errors import OperatorFault
from poorwill.ledger.history.recovery import Recovered, recovered
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import connect_writer, migrate, reading, unusable
from poorwill.ledger.writing.entries import Applier

from .account import RATE, Account
from .loop import START_US, VirtualClock

T = TypeVar("T")

COMMIT_S = 0.003
POST_S = 0.5


@functools.cache
def new_ledger() -> bytes:
    """Return the file of a ledger in which nothing has happened yet."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/ledger.sqlite"
        with closing(connect_writer(path)) as db:
            migrate(db, path)
            db.execute("BEGIN")
            sync_rates(db, [RATE], now_us=START_US)
            db.execute("COMMIT")
        return Path(path).read_bytes()


@dataclass(slots=True, kw_only=True)
class SimulatedLedger:
    """One life's connection to the file at `path`."""

    path: str
    clock: VirtualClock
    account: Account
    """Is told of every entry that has been committed, in order."""
    random: random.Random
    late: bool = False
    full: bool = False
    dead: bool = False
    unavailable: str = ""
    db: sqlite3.Connection = field(init=False)
    _applier: Applier = field(init=False)
    _waiting: list[tuple[Sequence[Entry], asyncio.Future[None] | None, int]] = field(default_factory=list)
    _due: asyncio.TimerHandle | None = None
    _due_awaited: bool = False
    _commits: list[tuple[int, Account]] = field(default_factory=list)
    """The log's length after the last commit that somebody waited for and after each one since, with the
    account as it then stood: where the log may be cut, and what is then left."""
    _promised: list[Entry] = field(default_factory=list)
    """What somebody was told is on disk, and is written before anybody can see that it is not."""

    def __post_init__(self) -> None:
        self.db = connect_writer(self.path)
        if not self.late:  # one that is late begins on a ledger that is of this version
            migrate(self.db, self.path)
        self.db.execute("PRAGMA synchronous = OFF")  # the disk is a RAM disk, and loses power only on purpose
        self.db.execute("PRAGMA wal_autocheckpoint = 0")  # the log only grows, so that it can be cut
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._commits.append((0, self.account.copy()))
        self._applier = Applier(self.db)

    # the port LedgerWriter

    def record(self, entries: Sequence[Entry]) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tuple(entries), future, self.clock.awake_us()))
        self._commit_within(self.random.uniform(0, COMMIT_S), awaited=True)
        return future

    def post(self, entries: Sequence[Entry]) -> None:
        self._waiting.append((tuple(entries), None, self.clock.awake_us()))
        if self.full:
            self._commit_within(POST_S, awaited=False)

    def dropped_rows(self) -> int:
        return 0

    # what the rest of poorwill asks

    def recovered(self) -> Recovered:
        if self.late:  # another connection would parse the schema anew
            return recovered(self.db)
        with reading(self.path) as db:
            return recovered(db)

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        await asyncio.sleep(COMMIT_S)
        self.settle()
        with reading(self.path) as db:
            return question(db)

    # weather

    def fill(self) -> None:
        """The disk is full."""
        self.full = True
        if self._waiting:
            self._commit_within(POST_S, awaited=False)

    def settle(self) -> None:
        """Commit what has been posted, unless the disk is full."""
        self._keep_promises()
        if not self.full and self._waiting:
            self._commit()

    def recover(self) -> None:
        """The disk has room again."""
        self.full = False
        if self.unavailable:
            self._commit_within(0, awaited=True)

    def close(self) -> None:
        """Commit what is left and close the file; a ledger that was killed is closed already."""
        if not self.dead:
            self.full = False
            self._commit()
            self.db.close()
            self.dead = True

    def kill(self, directory: Path) -> None:
        """Leave what the disk holds at this instant, its log cut where nobody was promised more."""
        if self.dead:
            return  # it died after its shutdown had closed the file
        self.dead = True
        self._keep_promises()
        old_us, due = self.clock.awake_us() - POST_S * 1e6, 0
        for _, future, at_us in self._waiting:
            if future is not None or at_us > old_us:
                break
            due += 1
        if due and not self.full:
            del self._waiting[due:]
            self._commit()
        base, log = Path(self.path), Path(self.path + "-wal")
        length = log.stat().st_size if log.exists() else 0
        cut = self.random.randint(self._commits[0][0], length)
        kept, kept_log = base.read_bytes(), log.read_bytes()[:cut] if length else b""
        self.db.close()
        for old in directory.glob(base.name + "*"):
            old.unlink()
        base.write_bytes(kept)
        log.write_bytes(kept_log)
        self.account = [account for end, account in self._commits if end <= cut][-1]

    def _commit_within(self, delay_s: float, *, awaited: bool) -> None:
        loop = asyncio.get_running_loop()
        if self._due is not None:
            if self._due_awaited or not awaited:
                return
            self._due.cancel()
        self._due_awaited = awaited
        self._due = loop.call_later(delay_s, self._commit)

    def _commit(self) -> None:
        self._due = None
        if self.full:
            self._refuse()
            return
        waiting, self._waiting = self._waiting, []
        entries = [entry for some, _, _ in waiting for entry in some]
        awaited = [future for _, future, _ in waiting if future is not None]
        self.unavailable = ""
        if not awaited:  # the log may be cut before these, and then the account is what it was
            self._keep_promises()
            self.account = self.account.copy()
        self.account.add(entries)
        if awaited and self.late:
            self._promised += entries
        else:
            self._write(entries, promised=bool(awaited))
        for future in awaited:
            if not future.done():
                future.set_result(None)

    def _keep_promises(self) -> None:
        if self._promised:
            entries, self._promised = self._promised, []
            self._write(entries, promised=True)

    def _write(self, entries: Sequence[Entry], *, promised: bool) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self._applier.apply(entries)
        except BaseException:
            self._applier.forget()
            self.db.rollback()
            raise
        self.db.execute("COMMIT")
        if promised:
            self._commits.clear()
        self._commits.append((os.path.getsize(self.path + "-wal"), self.account))

    def _refuse(self) -> None:
        """Keep every entry in line and tell those who wait that it is not on disk."""
        fault: OperatorFault = unusable(self.path, "the disk is full")
        self.unavailable = "the disk is full"
        for _, future, _ in self._waiting:
            if future is not None and not future.done():
                future.set_exception(fault)
                future.exception()
        self._waiting = [(entries, None, at_us) for entries, _, at_us in self._waiting]
