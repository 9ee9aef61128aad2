"""Shares of finished hours, written down: what `sharing.share` says of them, kept.

Incremental and idempotent. It may run at any time and as often as one likes: the bill is the same before and
after, only quicker. It writes what the request rows say and nothing else.
"""

import sqlite3

from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.ledger.costs.attribution import busy_pieces, progress, touched_hours
from poorwill.ledger.costs.sharing import share
from poorwill.ledger.schema import LedgerFault

GRACE_US = 5 * SECOND_US
"""Rows of requests reach the ledger up to a second late; an hour is finished this long after its end."""


def roll_up(db: sqlite3.Connection, *, hours: int | None = None) -> bool:
    """Write the shares of finished hours that lack them, of so many hours at most.

    Returns whether none is left. Call it in a transaction. An hour that late rows reach into is swept anew.
    """
    done = progress(db)
    last_us = int(db.execute("SELECT last_us FROM alive").fetchone()[0])
    first_us = db.execute("SELECT min(created_us) FROM lives").fetchone()[0]
    if first_us is None:
        return True
    begin_us = max(done.shared_us, first_us // HOUR_US * HOUR_US)
    finished_us = max(begin_us, (last_us - GRACE_US) // HOUR_US * HOUR_US)
    until_us = finished_us if hours is None else min(finished_us, begin_us + hours * HOUR_US)
    newest = int(db.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()[0])
    late = touched_hours(db, done)
    for (life,) in db.execute("SELECT id FROM lives ORDER BY id").fetchall():
        for hour in sorted(late.get(life, ())):
            _write(db, life, hour * HOUR_US, (hour + 1) * HOUR_US, done.longest_us)
        if until_us > begin_us:
            _write(db, life, begin_us, until_us, done.longest_us)
    db.execute("UPDATE progress SET seen_id = ?, shared_us = ?", (newest, until_us))
    return bool(until_us == finished_us)


def _write(db: sqlite3.Connection, life: int, from_us: int, to_us: int, longest_us: int) -> None:
    window = (life, from_us, to_us)
    db.execute(_FORGET, window)
    pieces = busy_pieces(db, life, from_us=from_us, to_us=to_us)
    rows = (
        (life, piece.span_began_us, piece.began_us, piece.ended_us, key, us)
        for piece, shares in share(db, pieces, longest_us=longest_us)
        for key, us in shares
    )
    try:
        db.executemany("INSERT INTO shares VALUES (?, ?, ?, ?, ?, ?)", rows)
    except LedgerFault:  # damaged rows are left as they are: the bill that reads them says so
        db.execute(_FORGET, window)


_FORGET = "DELETE FROM shares WHERE life = ? AND began_us >= ? AND began_us < ?"
