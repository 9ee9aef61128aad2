"""The one thread that writes: takes what it is handed, commits it in batches, answers after COMMIT.

Rules: (1) entries are applied in the order they were handed over; (2) a batch that somebody waits for is
committed durably (`synchronous=FULL`), any other one cheaply (`schema.py` says what each survives);
(3) an entry that contradicts the ledger is refused alone and loudly, its batch goes through; (4) while the
file cannot be written, nothing is lost: entries wait in memory, in order, and are committed when the cause is
gone; `unavailable` says why, and whoever awaits a record is told that it is not durable.
"""

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from poorwill.core.entries import Entry, RequestEnded
from poorwill.core.errors import OperatorFault, PoorwillError
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.words import HOUR_US
from poorwill.ledger.acknowledged import AcknowledgedFile, count_acknowledged, note_lost_end
from poorwill.ledger.schema import (
    LedgerFault,
    blames_file,
    connect_writer,
    fault,
    migrate,
    unusable,
)
from poorwill.ledger.writing.entries import Applier, EntryRefused
from poorwill.ledger.writing.rollup import GRACE_US, roll_up

T = TypeVar("T")

BATCH_ENTRIES = 4_096
"""What one transaction takes at most; a batch this large does not wait for its time."""

POST_DELAY_S = 0.5
"""How long posted entries wait for company: well within the second that `post` promises."""

RETRY_DELAY_S = 1.0
"""Between attempts while the file cannot be written. It is tried for as long as poorwill runs: admission is
stopped meanwhile, so nothing piles up, and only an operator can say that it is hopeless."""

ROLL_UP_HOURS = 1
"""Hours that are rolled up in one transaction: at ten requests a second a fifth of a second of work."""

WAITING_ENTRIES = 500_000
"""Beyond this many waiting entries request rows are dropped, and counted; spans and wakes never are."""


@dataclass(slots=True)
class _Job:
    """What one call handed over, or a function to run with the connection."""

    entries: Sequence[Entry]
    future: "asyncio.Future[Any] | None"
    call: Callable[[sqlite3.Connection], Any] | None = None


class LedgerThread:
    """Implements `core.ports.ledger.LedgerWriter`. Made and ended by `open_ledger` alone."""

    def __init__(
        self,
        *,
        path: str,
        clock: Clock,
        log: Log,
        retry_delay_s: float = RETRY_DELAY_S,
        waiting_entries: int = WAITING_ENTRIES,
    ) -> None:
        self._path = path
        self._retry_delay_s = retry_delay_s
        self._waiting_entries = waiting_entries
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._queue: deque[_Job] = deque()
        self._waiting = 0
        self._urgent = False
        self._closing = False
        self._dropped = 0
        self._unavailable = ""
        self.lost = 0
        """Entries that `close` could not commit."""
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._db: sqlite3.Connection | None = None
        self._applier: Applier | None = None
        self._acknowledged: AcknowledgedFile | None = None
        self._file = (0, 0)
        self._roll_up_us = 0

    def __repr__(self) -> str:
        state = self._unavailable or "available"
        return f"<LedgerThread {self._path!r}, {self._waiting} entries waiting, {state}>"

    # called on the event loop

    def record(self, entries: Sequence[Entry]) -> "asyncio.Future[None]":
        """Hand entries over now; the future resolves after COMMIT (see `core.ports.ledger.LedgerWriter`).

        If it raises LEDGER_UNAVAILABLE, the entries are not durable but stay in line: they are facts, and
        are committed in their order when the file can be written again. What the caller then does or
        leaves undone is a further entry. Raises EntryRefused if an entry contradicts the ledger.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hand_over(_Job(tuple(entries), future), urgent=True)
        return future

    def post(self, entries: Sequence[Entry]) -> None:
        """Hand entries over; they are committed within a second. Never blocks on the disk, never raises."""
        if self._waiting >= self._waiting_entries:
            kept = tuple(entry for entry in entries if type(entry) is not RequestEnded)
            self._dropped += len(entries) - len(kept)
            entries = kept
        self._hand_over(_Job(tuple(entries), None), urgent=False)

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function of the connection on the writer thread, in order, in a transaction of its own.

        Cancelled: it runs all the same. Raises what the function raises, and LEDGER_UNAVAILABLE; then it
        did not run and will not.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._hand_over(_Job((), future, function), urgent=True)
        return await future

    @property
    def unavailable(self) -> str:
        """Why nothing can be committed now, or empty."""
        return self._unavailable

    def dropped_rows(self) -> int:
        """Return how many request rows were dropped since the last call, 0 while nothing can be written."""
        if self._unavailable:
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped

    def start(self) -> None:
        """Open and migrate the file, then start the thread. Raises OperatorFault."""
        self._connect()
        self._thread.start()

    def close(self) -> None:
        """Commit what is left, end the thread, close the file. Blocks; call it off the event loop."""
        with self._turn:
            self._closing = True
            self._turn.notify()
        self._thread.join()

    def _hand_over(self, job: _Job, *, urgent: bool) -> None:
        with self._lock:
            self._queue.append(job)
            self._waiting += len(job.entries)
            if urgent or self._waiting >= BATCH_ENTRIES:
                self._urgent = True
                self._turn.notify()
            elif len(self._queue) == 1:
                self._turn.notify()

    # called on the writer thread

    def _run(self) -> None:
        try:
            while self._wait():
                self._drain()
        except BaseException as error:  # a bug: say so and leave nobody waiting
            self._closing = True
            self._put_back([], unusable(self._path, f"its writer failed: {error!r}"))
            raise
        finally:
            self._disconnect()

    def _wait(self) -> bool:
        """Wait for work; False if the ledger is to close and nothing more can be done."""
        with self._turn:
            if self._unavailable:
                self._turn.wait_for(lambda: self._closing, timeout=self._retry_delay_s)
                return bool(self._queue) or not self._closing
            self._turn.wait_for(lambda: self._queue or self._closing)
            if not self._urgent and not self._closing:
                self._turn.wait_for(lambda: self._urgent or self._closing, timeout=POST_DELAY_S)
            return bool(self._queue) or not self._closing

    def _drain(self) -> None:
        """Commit everything in the queue, batch by batch, until it is empty or the file refuses."""
        while jobs := self._take():
            try:
                self._commit(jobs)
            except OperatorFault as fault:
                self._put_back(jobs, fault)
                return
        if self._unavailable:
            if self._probe():
                self._recovered()
        elif self._clock.now_us() >= self._roll_up_us:
            self._roll_up()

    def _take(self) -> list[_Job]:
        with self._turn:
            jobs: list[_Job] = []
            entries = 0
            while self._queue and entries < BATCH_ENTRIES:
                if self._queue[0].call is not None and jobs:
                    break
                job = self._queue.popleft()
                jobs.append(job)
                entries += len(job.entries)
                if job.call is not None:
                    break
            self._waiting -= entries
            if not self._queue:
                self._urgent = False
            return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        """Commit a batch; if an entry of it is refused, commit its jobs one by one.

        Raises OperatorFault if the file refuses; then `jobs` are those not committed.
        """
        try:
            outcomes = self._transact(jobs)
        except OperatorFault:
            raise
        except Exception as error:
            if len(jobs) == 1:
                self._refuse(jobs[0], error)
                return
            for number, job in enumerate(jobs):
                try:
                    self._commit([job])
                except OperatorFault:
                    # Those committed so far are answered; only the rest goes back into the queue.
                    del jobs[:number]
                    raise
            return
        if self._unavailable:
            self._recovered()
        _answer(outcomes)

    def _transact(self, jobs: list[_Job]) -> list[tuple["asyncio.Future[Any] | None", Any]]:
        db, applier = self._connected()
        awaited = any(job.future is not None for job in jobs)
        db.execute(f"PRAGMA synchronous = {'FULL' if awaited else 'NORMAL'}")
        outcomes: list[tuple[asyncio.Future[Any] | None, Any]] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            applier.apply([entry for job in jobs for entry in job.entries])
            for job in jobs:
                value = job.call(db) if job.call is not None else None
                outcomes.append((job.future, value))
            count = count_acknowledged(db) if awaited else 0
            db.execute("COMMIT")
        except BaseException as error:
            applier.forget()
            if db.in_transaction:
                db.rollback()
            if isinstance(error, sqlite3.Error) and blames_file(error):
                raise fault(self._path, error) from error
            raise
        if count and self._acknowledged is not None:
            self._acknowledged.write(count)
        return outcomes

    def _refuse(self, job: _Job, error: Exception) -> None:
        if job.call is None:
            self._log.error(
                "the ledger refused an entry: this is a bug",
                entries=repr(job.entries),
                why=str(error),
            )
            if not isinstance(error, PoorwillError):
                error = EntryRefused(job.entries[-1], str(error))
        _answer([(job.future, error)])

    def _put_back(self, jobs: list[_Job], fault: OperatorFault) -> None:
        """The file refused: keep the entries in line, tell those who wait, and be unavailable."""
        why = fault.why if isinstance(fault, LedgerFault) else fault.message
        if not self._unavailable:
            self._log.error("the ledger cannot be written", path=self._path, why=why)
        self._unavailable = why
        with self._turn:
            waiting = [*jobs, *self._queue]
            self._queue.clear()
            for job in waiting:
                if job.entries and job.call is None:
                    self._queue.append(_Job(job.entries, None))
            self._waiting = sum(len(job.entries) for job in self._queue)
            self._urgent = False
            if self._closing:
                self.lost, self._waiting = self.lost + self._waiting, 0
                self._queue.clear()
                self._log.error("the ledger closes with entries unwritten", entries=self.lost, why=why)
        _answer([(job.future, fault) for job in waiting])

    def _probe(self) -> bool:
        """Return whether the file can be written again, by writing to it."""
        try:
            self._transact([_Job((), None)])
        except OperatorFault:
            return False
        return True

    def _roll_up(self) -> None:
        """Write down the shares of finished hours, some at a time, so that nobody waits for long."""

        def work(db: sqlite3.Connection) -> bool:
            return roll_up(db, hours=ROLL_UP_HOURS)

        try:
            ((_, done),) = self._transact([_Job((), None, work)])
        except OperatorFault as fault:
            self._put_back([], fault)
            return
        if done:
            self._roll_up_us = (self._clock.now_us() // HOUR_US + 1) * HOUR_US + 2 * GRACE_US

    def _recovered(self) -> None:
        was, self._unavailable = self._unavailable, ""
        self._log.info("the ledger can be written again", path=self._path, was=was)

    # the file

    def _connect(self) -> None:
        db = connect_writer(self._path)
        try:
            migrate(db, self._path)
            if lost := note_lost_end(db, self._path, at_us=self._clock.now_us()):
                self._log.error(lost, hint="was an old copy put back, or the -wal file deleted?")
            self._file = _identity(self._path)
        except BaseException:
            db.close()
            raise
        self._db, self._applier = db, Applier(db)
        self._acknowledged = AcknowledgedFile(self._path)

    def _connected(self) -> tuple[sqlite3.Connection, Applier]:
        """Return the connection, made anew if the file was bad or is another one.

        SQLite goes on writing into a file that was deleted under it; this notices. Raises OperatorFault.
        """
        if self._unavailable or _identity(self._path) != self._file:
            self._disconnect()
        if self._db is None or self._applier is None:
            if not os.path.exists(self._path):
                raise unusable(self._path, "the file was moved or deleted; put it back")
            self._connect()
        assert self._db is not None and self._applier is not None
        return self._db, self._applier

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._acknowledged is not None:
            self._acknowledged.close()
        self._db = self._applier = self._acknowledged = None


def _identity(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (-1, -1)
    return (stat.st_dev, stat.st_ino)


def _answer(outcomes: list[tuple["asyncio.Future[Any] | None", Any]]) -> None:
    """Resolve futures on their own event loops, one call for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for future, outcome in outcomes:
        if future is None:
            continue
        loops.setdefault(future.get_loop(), []).append((future, outcome))
    for loop, mine in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(outcomes: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, outcome in outcomes:
        if future.done():  # its caller has left; the entries are committed all the same
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
            future.exception()  # marks it as seen: an abandoned record is no unhandled error
        else:
            future.set_result(outcome)
