"""Checksums of the ledger's rows, so that `poorwill ledger check` notices a flipped bit.

`checksums` holds, for every table of `TABLES`, the sum of the CRC-32s of its rows. Triggers keep it: whoever
changes a row changes the sum in the same transaction, so only a change past SQLite (a bad disk, a careless
editor) makes rows and sum differ. One flipped bit always changes a CRC.
"""

import sqlite3
import zlib
from collections.abc import Iterator

TABLES = (
    *("causes", "lives", "spans", "wakes", "parks", "texts", "requests", "usage", "wake_keys", "shares"),
    *("progress", "rates", "keys", "alive"),
)
"""Everything that a bill, a spend limit or a key depends on."""

SMALL = ("causes", "lives", "texts", "progress", "rates", "alive")
"""Those that a bill reads whole anyway: verified before every bill."""


def register(db: sqlite3.Connection) -> None:
    """Give a connection the function that the triggers call."""
    db.create_function("row_crc", -1, _row_crc, deterministic=True)


def watch_rows(db: sqlite3.Connection) -> None:
    """Make the triggers, and the sums of what is there, for tables that are new or have new columns."""
    register(db)
    db.execute("CREATE TABLE IF NOT EXISTS checksums (name TEXT PRIMARY KEY, total INTEGER NOT NULL) STRICT")
    known = dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
    for table in TABLES:
        wanted = dict(_triggers(db, table))
        if all(known.get(name) == sql for name, sql in wanted.items()):
            continue
        for name, sql in wanted.items():
            db.execute(f"DROP TRIGGER IF EXISTS {name}")
            db.execute(sql)
        db.execute("INSERT OR REPLACE INTO checksums VALUES (?, ?)", (table, _total(db, table)))


def _triggers(db: sqlite3.Connection, table: str) -> Iterator[tuple[str, str]]:
    columns = _columns(db, table)
    new, old = (", ".join(f"{row}.{column}" for column in columns) for row in ("NEW", "OLD"))
    for event, change in (
        ("INSERT", f"+ row_crc({new})"),
        ("DELETE", f"- row_crc({old})"),
        ("UPDATE", f"+ row_crc({new}) - row_crc({old})"),
    ):
        name = f"{table}_sum_{event.lower()}"
        yield (
            name,
            f"CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN"
            f" UPDATE checksums SET total = total {change} WHERE name = '{table}'; END",
        )


def differing(db: sqlite3.Connection, tables: tuple[str, ...] = TABLES) -> Iterator[str]:
    """Yield the tables whose rows are not those that were written."""
    register(db)
    kept = dict(db.execute("SELECT name, total FROM checksums"))
    for table in tables:
        if kept.get(table) != _total(db, table):
            yield table


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def _total(db: sqlite3.Connection, table: str) -> int:
    columns = ", ".join(_columns(db, table))
    return int(db.execute(f"SELECT coalesce(sum(row_crc({columns})), 0) FROM {table}").fetchone()[0])


def _row_crc(*values: str | int | float | bytes | None) -> int:
    return zlib.crc32(repr(values).encode())
