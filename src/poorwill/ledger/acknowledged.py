"""How many durable transactions were acknowledged, noted beside the ledger: a lost end is noticed.

`alive.acknowledged` counts them within the ledger; after each COMMIT that somebody waited for, the count goes
into a small file beside it. If the file is ahead of the ledger, the ledger has lost its end: a log that was
deleted, a disk that lied about syncing, an old copy put back.
"""

import os
import sqlite3
from contextlib import suppress

from poorwill.core.format import counted


class AcknowledgedFile:
    """The file that holds the count. Not synced: behind is harmless, ahead is what matters."""

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(_beside(path), flags, 0o600)

    def write(self, count: int) -> None:
        """Note a count. A full disk is no reason to fail: the file is then behind."""
        with suppress(OSError):
            os.pwrite(self._file, f"{count:020d}\n".encode(), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def count_acknowledged(db: sqlite3.Connection) -> int:
    """Count one more durable transaction, as part of it; return how many there are."""
    return int(
        db.execute("UPDATE alive SET acknowledged = acknowledged + 1 RETURNING acknowledged").fetchone()[0]
    )


def lost_transactions(db: sqlite3.Connection, path: str) -> int:
    """Return how many acknowledged transactions are missing at the end of a ledger; 0 without a file."""
    try:
        with open(_beside(path), encoding="ascii") as file:
            noted = int(file.read(40))
    except (OSError, ValueError):
        return 0
    return max(noted - int(db.execute("SELECT acknowledged FROM alive").fetchone()[0]), 0)


def note_lost_end(db: sqlite3.Connection, path: str, *, at_us: int) -> str:
    """Note in a ledger that it lacks what was acknowledged; return that in words, empty if all is there."""
    lost = lost_transactions(db, path)
    if not lost:
        return ""
    text = f"the ledger lacks its newest {counted(lost, 'acknowledged transaction')}"
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE alive SET acknowledged = acknowledged + ?", (lost,))
    db.execute("INSERT INTO notes (at_us, kind, text) VALUES (?, 'ledger_end_lost', ?)", (at_us, text))
    db.execute("COMMIT")
    return text


def _beside(path: str) -> str:
    return f"{path}-acknowledged"
