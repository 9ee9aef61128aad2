"""Checksums of the ledger's rows, by blocks: a flipped bit is noticed before it is priced.

`checksums` holds, for each block of each table of `SUMS`, the sum of its rows' CRC-32s. Triggers keep it:
whoever changes a row changes the sum in the same transaction, so only a change past SQLite (a bad disk, a
careless editor) makes rows and sum differ. One flipped bit always changes a CRC. Blocks are small enough that
a bill verifies what it reads, and nothing else (`verifying.py`).
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from poorwill.core.format import DAY_US
from poorwill.core.words import HOUR_US

DAYS = 65_536
"""More than there are until the year 2149: `life * DAYS + day` is unique."""
HOURS = 1_048_576
"""More than there are until the year 2089: `life * HOURS + hour` is unique."""
REQUESTS = 4_096
"""Request rows to a block."""
TOLD_BLOCKS = 50
"""How often progress is told: a second's work."""
WAKES = 1_024
"""Wakes to a block of `wake_keys`."""

KEY_WEIGHT, LEASE_WEIGHT = 65_537, 3
"""Odd, so that no flipped bit leaves a sum as it was."""
MERSENNE = 2**31 - 1
"""A prime: no power of two is zero modulo it."""
WEIGHED = "weighed"

Tell = Callable[[str], None]
"""Receives how far a long question is."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What one table's rows are summed by. `block` and `value` are SQL over the columns of `{row}`."""

    table: str
    block: str = "0"
    value: str = ""
    """Empty: the CRC-32 of all columns; WEIGHED: their sum, each with an odd weight of its own."""


SUMS: Mapping[str, Sum] = MappingProxyType(
    {
        **{table: Sum(table) for table in ("causes", "lives", "stays", "texts", "progress")},
        **{table: Sum(table) for table in ("rates", "alive")},
        **{table: Sum(table) for table in ("notes", "parks", "keys")},
        "spans": Sum("spans", f"{{row}}.life * {DAYS} + {{row}}.began_us / {DAY_US}"),
        "wakes": Sum("wakes", f"coalesce({{row}}.ended_us / {DAY_US}, -1)"),
        "wake_keys": Sum("wake_keys", f"{{row}}.wake / {WAKES}"),
        # Whole numbers alone, and many: their checksum is SQLite's own arithmetic.
        "usage": Sum("usage", "{row}.hour / 24", WEIGHED),
        "requests": Sum("requests", f"{{row}}.id / {REQUESTS}"),
        # Read by the million: whole numbers that are cheap to add up, in SQL and in numpy.
        "shares": Sum(
            "shares",
            f"{{row}}.life * {DAYS} + {{row}}.began_us / {DAY_US}",
            f"coalesce({{row}}.key, 0) * {KEY_WEIGHT} + {{row}}.us * 3 + {{row}}.began_us % {DAY_US}"
            f" + ({{row}}.ended_us - {{row}}.began_us) * 5 + {{row}}.span_began_us % {MERSENNE}",
        ),
        "leases": Sum(
            "requests",
            f"coalesce({{row}}.life, 0) * {HOURS} + {{row}}.ended_us / {HOUR_US}",
            f"{{row}}.key * {KEY_WEIGHT} + {{row}}.ended_us % {HOUR_US}"
            f" + ({{row}}.ended_us - coalesce({{row}}.leased_us, {{row}}.ended_us)) * {LEASE_WEIGHT}",
        ),
    }
)
"""Everything that a bill, a spend limit or a key depends on."""

SMALL = ("causes", "lives", "stays", "texts", "progress", "rates", "alive", "notes", "keys")
"""Those that a bill reads whole anyway."""


def register(db: sqlite3.Connection) -> None:
    """Give a connection the function that the triggers call."""
    db.create_function("row_crc", -1, _row_crc, deterministic=True)


def watch_rows(db: sqlite3.Connection) -> None:
    """Make the triggers, and the sums of what is there, for tables that are new or have new columns."""
    register(db)
    db.execute(
        "CREATE TABLE IF NOT EXISTS checksums (name TEXT NOT NULL, block INTEGER NOT NULL,"
        " total INTEGER NOT NULL, PRIMARY KEY (name, block)) STRICT, WITHOUT ROWID"
    )
    known = dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
    for name in SUMS:
        wanted = dict(_triggers(db, name))
        if all(known.get(trigger) == sql for trigger, sql in wanted.items()):
            continue
        for trigger, sql in wanted.items():
            db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
            db.execute(sql)
        db.execute("DELETE FROM checksums WHERE name = ?", (name,))
        db.executemany(
            "INSERT INTO checksums VALUES (?, ?, ?)",
            [(name, block, total) for block, total in _all_totals(db, name)],
        )


def _triggers(db: sqlite3.Connection, name: str) -> Iterator[tuple[str, str]]:
    add = (
        f"INSERT INTO checksums VALUES ('{name}', {_block(name, 'NEW')}, {_value(db, name, 'NEW')})"
        " ON CONFLICT DO UPDATE SET total = total + excluded.total"
    )
    take = (
        f"UPDATE checksums SET total = total - ({_value(db, name, 'OLD')})"
        f" WHERE name = '{name}' AND block = {_block(name, 'OLD')}"
    )
    for event, change in (("INSERT", add), ("DELETE", take), ("UPDATE", f"{take}; {add}")):
        trigger = f"{name}_sum_{event.lower()}"
        yield (
            trigger,
            f"CREATE TRIGGER {trigger} AFTER {event} ON {SUMS[name].table} BEGIN {change}; END",
        )


def differing(
    db: sqlite3.Connection, tell: Tell = lambda _: None, *, names: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield the tables whose rows are not those that were written; `tell` receives how far it is."""
    register(db)
    found: dict[str, None] = {}
    for name in names or SUMS:
        kept = dict(db.execute("SELECT block, total FROM checksums WHERE name = ?", (name,)))
        done = 0
        for block, total in _all_totals(db, name):
            if kept.pop(block, 0) != total:
                found[SUMS[name].table] = None
            done += 1
            if not done % TOLD_BLOCKS:
                tell(f"checksums of {name}, {done:,} of {done + len(kept):,} blocks")
        if any(kept.values()):
            found[SUMS[name].table] = None
    yield from found


def intact(
    db: sqlite3.Connection, name: str, blocks: tuple[int, int], where: str, values: tuple[object, ...]
) -> bool:
    """Return whether the rows of some blocks, from the first to the last, are those that were written.

    `where` selects just them, by the way that a bill takes to them: it may be an index that is damaged.
    SQLite adds them up: a row that crosses into Python costs more than its sum.
    """
    register(db)
    rows = db.execute(f"SELECT sum({_value(db, name)}) FROM {SUMS[name].table} WHERE {where}", values)
    return bool((rows.fetchone()[0] or 0) == kept_total(db, name, blocks))


def kept_total(db: sqlite3.Connection, name: str, blocks: tuple[int, int]) -> int:
    """Return the sum kept for blocks, from the first to the last."""
    rows = "SELECT sum(total) FROM checksums WHERE name = ? AND block BETWEEN ? AND ?"
    return int(db.execute(rows, (name, *blocks)).fetchone()[0] or 0)


def _all_totals(db: sqlite3.Connection, name: str) -> Iterator[tuple[int, int]]:
    """Yield each block of a table with its sum; requests in the order in which they lie in the file."""
    if name != "requests":
        yield from db.execute(
            f"SELECT {_block(name)}, sum({_value(db, name)}) FROM {SUMS[name].table} GROUP BY 1"
        ).fetchall()
        return
    block_sum = f"SELECT sum({_value(db, name)}) FROM requests WHERE id BETWEEN ? AND ?"
    first = db.execute("SELECT min(id) FROM requests").fetchone()[0]
    while first is not None:
        block = first // REQUESTS
        end = (block + 1) * REQUESTS
        yield block, int(db.execute(block_sum, (first, end - 1)).fetchone()[0])
        first = db.execute("SELECT min(id) FROM requests WHERE id >= ?", (end,)).fetchone()[0]


def _block(name: str, row: str = "") -> str:
    return SUMS[name].block.format(row=row or SUMS[name].table)


def _value(db: sqlite3.Connection, name: str, row: str = "") -> str:
    table, value = SUMS[name].table, SUMS[name].value
    row = row or table
    if value not in ("", WEIGHED):
        return value.format(row=row)
    columns = [f"{row}.{column[1]}" for column in db.execute(f"PRAGMA table_info({table})")]
    if not value:
        return f"row_crc({', '.join(columns)})"
    return f"({' + '.join(f'{column} * {2 * at + 1}' for at, column in enumerate(columns))}) % {MERSENNE}"


def _row_crc(*values: str | int | float | bytes | None) -> int:
    return zlib.crc32(repr(values).encode())
