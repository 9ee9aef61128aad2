"""Care for the file: a consistent copy while serving, and dropping old request rows without losing a cent."""

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.words import HOUR_US
from poorwill.ledger.checksums import differing
from poorwill.ledger.costs.attribution import progress
from poorwill.ledger.dates import iso
from poorwill.ledger.schema import damaged, fault, reading
from poorwill.ledger.writing.rollup import roll_up

BATCH_ROWS = 50_000
"""Rows deleted in one transaction: a writer that serves waits for no longer than one of these takes."""
BATCH_HOURS = 24
"""Hours rolled up in one transaction."""
BATCH_PAGES = 10_000


def back_up(path: str, target: str) -> int:
    """Copy a ledger to a new file, consistently, also while it is written; return the copy's size in bytes.

    The copy is written beside the target, synced and renamed, so a target that exists is whole.
    Raises OperatorFault if the ledger cannot be read or the target cannot be written or exists.
    """
    if os.path.exists(target):
        raise OperatorFault(
            ErrorCode.LEDGER_UNAVAILABLE, f"{target} exists", hint="name a file that does not"
        )
    folder, name = os.path.split(os.path.abspath(target))
    try:
        # Under a name that nobody can have prepared: the directory may be one that others write to.
        descriptor, partial = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".partial", dir=folder)
        os.close(descriptor)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        with reading(path) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        _sync(partial)
        os.rename(partial, target)
        _sync(folder)
    except sqlite3.Error as error:
        _remove(partial)
        raise fault(path, error) from error
    except OSError as error:
        _remove(partial)
        raise _unwritable(target, error) from error
    return os.path.getsize(target)


def _unwritable(target: str, error: OSError) -> OperatorFault:
    return OperatorFault(ErrorCode.LEDGER_UNAVAILABLE, f"cannot write {target}: {error.strerror}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What compacting did."""

    before_us: int
    rows: int


def compact(
    db: sqlite3.Connection, *, before_us: int, tell: Callable[[str], None] = lambda _: None
) -> Compacted:
    """Drop the request rows that ended before an instant, once their sums and shares are kept.

    The bill before and after is the same, by key too; what is lost is the single request. The instant is
    taken down to a full hour. `tell` receives how far it is. Raises RequestFault for an instant that is not
    over yet, LedgerFault if rows or what stands for them are not those that were written.
    """
    before_us = before_us // HOUR_US * HOUR_US
    finished = False
    while not finished:
        db.execute("BEGIN IMMEDIATE")
        finished = roll_up(db, hours=BATCH_HOURS)
        db.execute("COMMIT")
        done = progress(db)
        tell(f"shares of keys up to {iso(done.shared_us)}")
    if before_us > done.shared_us:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"hours up to {iso(before_us)} are not over yet in this ledger",
            hint=f"compact up to {iso(done.shared_us)} at most",
        )
    if any(differing(db, tell, names=("requests", "leases", "usage", "shares"))):
        raise damaged(db)  # hours of damaged rows have no shares: what is left of their rows is evidence
    db.execute("UPDATE progress SET kept_us = max(kept_us, ?)", (before_us,))
    rows = 0
    while True:
        dropped = db.execute(_DROP, {"before": before_us, "limit": BATCH_ROWS}).rowcount
        rows += dropped
        if not dropped:
            break
        tell(f"{rows:,} request rows dropped")
    while db.execute("PRAGMA freelist_count").fetchone()[0]:
        # executescript: it steps the pragma to its end, where execute would free a single page.
        db.executescript(f"PRAGMA incremental_vacuum({BATCH_PAGES});")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return Compacted(before_us=before_us, rows=rows)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


_DROP = """
DELETE FROM requests WHERE id IN (
  SELECT r.id FROM (SELECT NULL AS id UNION ALL SELECT id FROM lives) l
  JOIN requests r ON r.life IS l.id AND r.ended_us < :before LIMIT :limit)
"""
