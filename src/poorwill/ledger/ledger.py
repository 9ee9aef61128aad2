"""`open_ledger`: the ledger as the rest of poorwill sees it, opened and closed as one `async with`."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from poorwill.core.entries import Entry
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.ledger.history.recovery import Recovered, recovered
from poorwill.ledger.schema import reading
from poorwill.ledger.writing.writer import RETRY_DELAY_S, WAITING_ENTRIES, LedgerThread

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """An open ledger: the port `LedgerWriter`. Questions are asked on connections of their own."""

    path: str
    clock: Clock
    thread: LedgerThread

    def record(self, entries: Sequence[Entry]) -> Awaitable[None]:
        """Hand entries over now; the awaitable resolves after COMMIT (`LedgerThread.record`)."""
        return self.thread.record(entries)

    def post(self, entries: Sequence[Entry]) -> None:
        """Hand entries over; committed within a second. Never blocks, never raises."""
        self.thread.post(entries)

    @property
    def unavailable(self) -> str:
        """Why nothing can be committed now, or empty."""
        return self.thread.unavailable

    def dropped_rows(self) -> int:
        """Return how many request rows were dropped for want of memory (`LedgerThread.dropped_rows`)."""
        return self.thread.dropped_rows()

    def recovered(self) -> Recovered:
        """Return what a starting poorwill must know. Blocks for milliseconds; call it at start."""
        with reading(self.path) as db:
            return recovered(db)

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask a question on a read-only connection, off the event loop.

        It sees everything that was committed when it began. Cancelled: it ends by itself, unheard.
        """

        def ask() -> T:
            with reading(self.path) as db:
                return question(db)

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def open_ledger(
    path: str,
    *,
    clock: Clock,
    log: Log,
    retry_delay_s: float = RETRY_DELAY_S,
    waiting_entries: int = WAITING_ENTRIES,
) -> AsyncIterator[Ledger]:
    """Open a ledger, making or migrating the file, for the length of an `async with`.

    Raises OperatorFault(LEDGER_UNAVAILABLE) if the file is damaged, not a ledger, or a newer poorwill's.
    Leaving it commits what was handed over and closes the file, also when cancelled.
    """
    thread = LedgerThread(
        path=path,
        clock=clock,
        log=log,
        retry_delay_s=retry_delay_s,
        waiting_entries=waiting_entries,
    )
    thread.start()
    try:
        yield Ledger(path=path, clock=clock, thread=thread)
    finally:
        await _to_the_end(asyncio.get_running_loop().run_in_executor(None, thread.close))


async def _to_the_end(closing: "asyncio.Future[None]") -> None:
    """Wait for a future however often the waiting is cancelled; then pass the cancellation on."""
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError as error:
            cancelled = error
    closing.result()
    if cancelled is not None:
        raise cancelled


def last_instant_us(path: str) -> int:
    """Return the latest instant of any entry in a ledger, 0 if there is none yet.

    The clock of the next run must not start before it. Raises OperatorFault as `open_ledger` does.
    """
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return 0
    with reading(path, older=True) as db:
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'alive'").fetchone():
            return 0
        return int(db.execute("SELECT last_us FROM alive").fetchone()[0])
