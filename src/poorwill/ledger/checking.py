"""`poorwill ledger check`: is the file whole, do the spans tile, do the sums kept agree with the rows?"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from poorwill.core.errors import PoorwillError
from poorwill.core.format import DAY_US, counted
from poorwill.core.words import HOUR_US
from poorwill.ledger.acknowledged import lost_transactions
from poorwill.ledger.checksums import SMALL, Tell, differing, register
from poorwill.ledger.costs.attribution import busy_pieces, progress, touched_hours
from poorwill.ledger.costs.sharing import share
from poorwill.ledger.costs.usage import SUMS
from poorwill.ledger.dates import day_name, iso
from poorwill.ledger.rates import lives
from poorwill.ledger.schema import DAMAGED, migrate, reason, unusable


def problems(db: sqlite3.Connection, path: str, tell: Tell = lambda _: None) -> list[str]:
    """Return everything that is wrong with a ledger, for people; an empty list is a clean bill. Never raises.

    A check that stumbles over what is damaged is a finding of its own. `tell` receives how far it is.
    """
    found: list[str] = []
    checks: tuple[tuple[str, Callable[[sqlite3.Connection], Iterator[str]]], ...] = (
        ("the file", _integrity),
        ("the schema", _schema),
        ("the rows", lambda db: _rows(db, tell)),
        ("the end", lambda db: _end(db, path)),
        ("references", _references),
        ("the tiling", _tiling),
        ("wakes", _wakes),
        ("whom wakes woke for", _woken),
        ("hourly sums", _usage),
        ("shares", lambda db: _shares(db, tell)),
    )
    for name, check in checks:
        tell(name)
        try:
            found += check(db)
        except Exception as error:  # damage can look like anything
            why = reason(error) if isinstance(error, sqlite3.Error) else repr(error)
            found.append(f"{name}: could not be checked, {why}")
    tell("")
    return found


@contextmanager
def undamaged(db: sqlite3.Connection, path: str) -> Iterator[None]:
    """Compute a bill within this: damage that would make it wrong, or stops it, ends in LedgerFault.

    What every bill reads (rates, names, causes) is verified here, the rest by `verifying.verify`. A failure
    that has no such excuse is a defect and passes.
    """
    if any(differing(db, names=SMALL)):
        raise unusable(path, DAMAGED)
    try:
        yield
    except (PoorwillError, sqlite3.Error):
        raise
    except Exception as error:
        if problems(db, path):
            raise unusable(path, DAMAGED) from error
        raise


def _integrity(db: sqlite3.Connection) -> Iterator[str]:
    for (text,) in db.execute("PRAGMA integrity_check(20)"):
        if text != "ok":
            yield f"the file: {text}"


def _schema(db: sqlite3.Connection) -> Iterator[str]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        register(new)
        migrate(new, ":memory:")
        missing = set(new.execute(_SCHEMA)) - set(db.execute(_SCHEMA))
    for kind, name, _ in sorted(missing):
        yield f"the {kind} {name} is not as this version makes it"


def _rows(db: sqlite3.Connection, tell: Tell) -> Iterator[str]:
    for table in differing(db, tell):
        yield f"{table}: a row was changed, added or lost past poorwill: the rows do not have their checksum"


def _end(db: sqlite3.Connection, path: str) -> Iterator[str]:
    lost = lost_transactions(db, path)
    if lost:
        yield f"the end: its newest {counted(lost, 'acknowledged transaction')} are not there"


def _references(db: sqlite3.Connection) -> Iterator[str]:
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
        yield f"{table} row {row} refers to a row of {parent} that is not there"


def _tiling(db: sqlite3.Connection) -> Iterator[str]:
    """Walk every life's spans: no gap, no overlap, from its beginning to its end or to now."""
    for life in lives(db):
        expected: int | None = life.created_us
        for began_us, ended_us, next_us in db.execute(
            "SELECT began_us, ended_us, next_us FROM spans WHERE life = ? ORDER BY began_us",
            (life.id,),
        ):
            if began_us != expected:
                at = "after its end" if expected is None else f"expected at {iso(expected)}"
                yield f"{life.replica}: a span begins at {iso(began_us)}, {at}"
            if ended_us is not None and ended_us <= began_us:
                yield f"{life.replica}: the span at {iso(began_us)} ends before it begins"
            if next_us not in (None, ended_us):
                yield f"{life.replica}: the span at {iso(began_us)} is not followed where it ends"
            expected = ended_us
        if expected != life.ended_us:
            yield f"{life.replica}: its spans do not end where it does"


def _wakes(db: sqlite3.Connection) -> Iterator[str]:
    """The spans of a finished wake cover it: from its beginning to its end."""
    for wake, lasted_us, spans_us in db.execute(
        "SELECT w.wake, w.ended_us - w.began_us, coalesce(sum(s.ended_us - s.began_us), 0)"
        " FROM wakes w LEFT JOIN spans s ON s.wake = w.id AND s.began_us < w.ended_us"
        " WHERE w.ended_us IS NOT NULL GROUP BY w.id"
        " HAVING count(s.began_us) = count(s.ended_us)"  # the last one may still be open
    ):
        if lasted_us != spans_us:
            yield f"wake {wake}: it lasted {lasted_us} us, its spans {spans_us} us"


def _woken(db: sqlite3.Connection) -> Iterator[str]:
    """Each wake's requests are those of the rows, if no row was dropped."""
    if progress(db).kept_us:
        return
    for (wake,) in db.execute(_WOKEN):
        yield f"wake {wake}: the requests it woke for differ from the request rows"


def _usage(db: sqlite3.Connection) -> Iterator[str]:
    """The hourly sums are the sums of the rows, for every hour whose rows are all there."""
    kept_us = progress(db).kept_us
    rows = db.execute(_USAGE, {"kept": kept_us}).fetchall()
    for hour, model, key in rows:
        yield f"hour {iso(hour * HOUR_US)}: the sums for {model}, key {key!r} differ from the rows"


def _shares(db: sqlite3.Connection, tell: Tell) -> Iterator[str]:
    """Shares sum to their piece of a span, and are what the rows say if the rows are all there."""
    for life, began_us, ended_us, us in db.execute(
        "SELECT life, began_us, ended_us, sum(us) FROM shares GROUP BY 1, 2, 3"
        " HAVING sum(us) <> ended_us - began_us"
    ):
        yield f"life {life}: the shares at {iso(began_us)} sum to {us} us of {ended_us - began_us} us"
    done = progress(db)
    late = touched_hours(db, done)
    for life in lives(db):
        pieces = busy_pieces(db, life.id, from_us=done.kept_us, to_us=done.shared_us)
        kept_hours = (piece for piece in pieces if piece.began_us // HOUR_US not in late.get(life.id, ()))
        told = -1
        for piece, shares in share(db, kept_hours, longest_us=done.longest_us):
            if piece.began_us // DAY_US != told:
                told = piece.began_us // DAY_US
                tell(f"shares of {life.replica}, {day_name(told)}")
            kept = db.execute(
                "SELECT key, us FROM shares WHERE life = ? AND began_us = ? AND ended_us = ?",
                (life.id, piece.began_us, piece.ended_us),
            ).fetchall()
            if dict(kept) != dict(shares):
                yield f"{life.replica}: the shares at {iso(piece.began_us)} are not what the rows say"


_SCHEMA = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"

_WOKEN = """
WITH served AS MATERIALIZED (
  SELECT w.id AS wake, s.value AS request, w.ended_us FROM wakes w, json_each(w.served_json) s
),
summed AS (
  SELECT wake, key, count(*) FROM (
    SELECT id, wake, key FROM requests WHERE wake IS NOT NULL
    UNION SELECT r.id, s.wake, r.key FROM requests r JOIN served s ON s.request = r.request
      AND r.arrived_us <= s.ended_us
  ) GROUP BY 1, 2
)
SELECT DISTINCT w.wake FROM (
  SELECT * FROM (SELECT * FROM summed EXCEPT SELECT * FROM wake_keys)
  UNION SELECT * FROM (SELECT * FROM wake_keys EXCEPT SELECT * FROM summed)
) d JOIN wakes w ON w.id = d.wake ORDER BY 1
"""

_USAGE = f"""
WITH summed AS (
  SELECT r.ended_us / 3600000000 AS hour, r.model, r.key, {", ".join(SUMS.values())}
  FROM requests r JOIN texts o ON o.id = r.outcome
  WHERE r.ended_us >= :kept GROUP BY 1, 2, 3
),
kept AS (SELECT hour, model, key, {", ".join(SUMS)} FROM usage WHERE hour >= :kept / 3600000000),
differ AS (
  SELECT * FROM (SELECT * FROM summed EXCEPT SELECT * FROM kept)
  UNION SELECT * FROM (SELECT * FROM kept EXCEPT SELECT * FROM summed)
)
SELECT DISTINCT d.hour, m.text, k.text FROM differ d
JOIN texts m ON m.id = d.model JOIN texts k ON k.id = d.key ORDER BY 1, 2, 3
"""
