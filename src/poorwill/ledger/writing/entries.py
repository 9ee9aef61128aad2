"""Entries to rows, within a transaction that somebody else begins and commits.

An entry that would break the tiling, name what does not exist or end what has ended is a bug of the caller:
it raises EntryRefused (or sqlite3.IntegrityError, if the schema sees it first) and the transaction
must be rolled back. Nothing here bends an entry to make it fit.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poorwill.core.entries import (
    Alive,
    ClockStepped,
    Entry,
    Noted,
    ParkEnded,
    PhaseSpan,
    ReplicaCreated,
    ReplicaEnded,
    ReplicaPlaced,
    RequestEnded,
    SpanOpened,
    WakeBegan,
    WakeEnded,
)
from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.ports.silence import ON_HOST
from poorwill.core.words import FAILED_WAKE, PARKED_CAUSES, Cause, Phase, ReplicaId, Tier, parked, waking
from poorwill.ledger.writing.requests import RequestRows
from poorwill.ledger.writing.spans import SpanRows


class EntryRefused(PoorwillError):
    """An entry contradicts the ledger: a bug in whoever wrote it, never a state of the disk."""

    def __init__(self, entry: Entry, why: str) -> None:
        super().__init__(ErrorCode.INTERNAL, f"ledger refused {type(entry).__name__}: {why}: {entry}")
        self.entry = entry


_LEFT = """
UPDATE stays SET began_us = ?2 WHERE life = ?1 AND host = '' AND began_us BETWEEN ?3 AND ?2
  AND began_us = (SELECT max(began_us) FROM stays WHERE life = ?1)
"""
_HOST = """
SELECT coalesce(json_extract(nullif(running_json, ''), '$.machine'),
  json_extract(nullif(parked_json, ''), '$.machine'), '') FROM places WHERE life = ?
"""

_OF_SPANS = frozenset({ReplicaEnded, WakeEnded, ParkEnded})
"""Entries that read or change rows of spans."""


class Applier:
    """Applies entries through one connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._requests = RequestRows(db)
        self._spans = SpanRows(db)
        self._ids: dict[str | tuple[int, str], int] = {}
        """Of the lives and wakes that entries of this transaction named."""
        self._housed: set[int] = set()
        """Lives whose host has not changed since a span last told when."""
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            ReplicaCreated: self._replica_created,
            ReplicaEnded: self._replica_ended,
            WakeBegan: self._wake_began,
            WakeEnded: self._wake_ended,
            ParkEnded: self._park_ended,
            ReplicaPlaced: self._replica_placed,
            ClockStepped: self._clock_stepped,
            Noted: self._noted,
        }

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply entries in order, as one transaction."""
        self._requests.begin()
        last_us, alive_us = 0, 0
        for entry in entries:
            if type(entry) is RequestEnded:
                self._requests.add(entry)
                last_us = max(last_us, entry.ended_us)
                continue
            last_us = max(last_us, entry.at_us)  # type: ignore[union-attr]
            if type(entry) is Alive:
                alive_us = max(alive_us, entry.at_us)
            elif type(entry) is SpanOpened:  # no row of a request depends on it
                self._span_opened(entry)
            else:
                if type(entry) in _OF_SPANS:
                    self._spans.flush()
                self._requests.flush()
                self._handlers[type(entry)](entry)
        self._spans.flush()
        self._requests.flush()
        self._ids.clear()
        self._db.execute(
            "UPDATE alive SET at_us = max(at_us, ?), last_us = max(last_us, ?)", (alive_us, last_us)
        )

    def forget(self) -> None:
        """Forget what was remembered of rows that a rollback has taken back."""
        self._requests.forget()
        self._spans.forget()
        self._ids.clear()
        self._housed.clear()

    # replicas

    def _replica_created(self, entry: ReplicaCreated) -> None:
        """Begin a life with a `parked.cold` span; one that opens at the same instant replaces it."""
        life = self._db.execute(
            "INSERT INTO lives (replica, model, driver, created_us) VALUES (?, ?, ?, ?)",
            (entry.replica, entry.model, entry.driver, entry.at_us),
        ).lastrowid
        self._db.execute(
            "INSERT INTO spans (life, began_us, cause, tier) VALUES (?, ?, ?, ?)",
            (life, entry.at_us, parked(Tier.COLD), Tier.COLD),
        )

    def _replica_ended(self, entry: ReplicaEnded) -> None:
        life = self._life(entry, entry.replica)
        began_us = self._open_span(entry, life)
        if entry.at_us < began_us:
            raise EntryRefused(entry, f"its open span began later, at {began_us}")
        self._db.execute("UPDATE lives SET ended_us = ? WHERE id = ?", (entry.at_us, life))
        del self._ids[entry.replica]
        if entry.at_us == began_us:  # the open span is empty: the one before it is the last
            self._db.execute("DELETE FROM spans WHERE life = ? AND began_us = ?", (life, began_us))
            self._db.execute(
                "UPDATE spans SET next_us = NULL WHERE life = ? AND ended_us = ?", (life, began_us)
            )
            return
        self._db.execute(
            "UPDATE spans SET ended_us = ? WHERE life = ? AND began_us = ?",
            (entry.at_us, life, began_us),
        )

    def _replica_placed(self, entry: ReplicaPlaced) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?)",
            (
                self._life(entry, entry.replica),
                entry.at_us,
                entry.generation,
                entry.running_json,
                entry.parked_json,
            ),
        )
        self._stay(self._life(entry, entry.replica), entry.at_us)

    def _stay(self, life: int, at_us: int, host: str | None = None) -> None:
        """A life is on another host from now on, '' for none; by itself, on that where its replica is."""
        self._housed.discard(life)
        if host is None:
            row = self._db.execute(_HOST, (life,)).fetchone()
            host = str(row[0]) if row else ""
        last = "SELECT host FROM stays WHERE life = ? AND began_us <= ? ORDER BY began_us DESC LIMIT 1"
        if (self._db.execute(last, (life, at_us)).fetchone() or ("",)) != (host,):
            insert = "INSERT INTO stays VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET host = excluded.host"
            self._db.execute(insert, (life, at_us, host))

    # spans

    def _span_opened(self, entry: SpanOpened) -> None:
        life = self._life(entry, entry.replica)
        began_us = self._open_span(entry, life)
        if entry.at_us < began_us:
            raise EntryRefused(entry, f"the open span began later, at {began_us}")
        if entry.tier is not None and life not in self._housed:  # a moment ago it was told where that is
            self._db.execute(_LEFT, (life, entry.at_us, began_us + 1))
            self._housed.add(life)
        wake = self._ids.get((life, entry.wake)) if entry.wake is not None else None
        if wake is None and entry.wake is not None:
            wake = self._ids[life, entry.wake] = self._wake(entry, life, entry.wake)[0]
        self._spans.add(entry, life, began_us, wake, self._image_bytes(life, entry.cause, entry.tier))

    def _image_bytes(self, life: int, cause: Cause, tier: Tier | None) -> int:
        if cause not in PARKED_CAUSES or tier is None:
            return 0
        row = self._db.execute(
            "SELECT image_bytes FROM parks WHERE life = ? AND to_tier = ? AND ok"
            " ORDER BY ended_us DESC, id DESC LIMIT 1",
            (life, tier),
        ).fetchone()
        return int(row[0]) if row else 0

    # wakes

    def _wake_began(self, entry: WakeBegan) -> None:
        self._db.execute(
            "INSERT INTO wakes (wake, life, generation, from_tier, asked_by, why, budget_us, held, began_us)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.wake,
                self._life(entry, entry.replica),
                entry.generation,
                entry.from_tier,
                entry.asked_by,
                entry.why,
                entry.budget_us,
                entry.held,
                entry.at_us,
            ),
        )

    def _wake_ended(self, entry: WakeEnded) -> None:
        life = self._life(entry, entry.replica)
        wake, began_us, ended_us, tier = self._wake(entry, life, entry.wake)
        if ended_us is not None:
            raise EntryRefused(entry, f"the wake ended before, at {ended_us}")
        if entry.at_us < began_us:
            raise EntryRefused(entry, f"the wake began later, at {began_us}")
        self._db.execute(
            "UPDATE wakes SET ended_us = ?, ok = ?, failure = ?, served = ?, served_json = ? WHERE id = ?",
            (
                entry.at_us,
                entry.ok,
                "" if entry.ok else entry.why,
                len(entry.served),
                json.dumps(entry.served),
                wake,
            ),
        )
        self._requests.wake_ended(entry.wake, wake, entry.at_us, entry.served)
        leaves = [leaf for leaf in entry.anatomy if leaf.ended_us != leaf.began_us]
        if leaves:
            self._retile(entry, life, wake, (began_us, entry.at_us), tier, leaves)
        for leaf in leaves:
            if leaf.phase is Phase.PROVISION and leaf.detail.startswith(ON_HOST):
                self._stay(life, leaf.began_us, leaf.detail.removeprefix(ON_HOST))
        if not entry.ok:
            self._stay(life, entry.at_us)
            self._db.execute(
                "UPDATE spans SET cause = ?, why = ? WHERE wake = ? AND began_us < ?",
                (FAILED_WAKE, entry.why, wake, entry.at_us),
            )

    def _retile(
        self,
        entry: WakeEnded,
        life: int,
        wake: int,
        bounds: tuple[int, int],
        tier: str,
        leaves: Sequence[PhaseSpan],
    ) -> None:
        """Put the anatomy's leaves where the wake's spans were; the bounds of both must be the wake's."""
        began_us, ended_us = bounds
        edges = [(leaf.began_us, leaf.ended_us) for leaf in leaves]
        ends: list[int | None] = [end for _, end in edges]
        if [begin for begin, _ in edges] != [began_us, *ends[:-1]] or ends[-1] != ended_us:
            raise EntryRefused(entry, f"its anatomy does not tile the wake, {began_us} to {ended_us}")
        if any(begin >= end for begin, end in edges):
            raise EntryRefused(entry, "a leaf of its anatomy ends before it begins")
        stretch = "life = ? AND began_us >= ? AND began_us < ?"
        where = (life, began_us, ended_us)
        held = self._db.execute(
            f"SELECT count(*), min(began_us), max(coalesce(ended_us, ?)), sum(wake IS NOT ?)"
            f" FROM spans WHERE {stretch}",
            (ended_us, wake, *where),
        ).fetchone()
        if held[0] == 0 or held[1:3] != (began_us, ended_us) or held[3]:
            raise EntryRefused(entry, f"the spans from {began_us} to {ended_us} are not this wake's")
        followed = self._db.execute(
            "SELECT 1 FROM spans WHERE life = ? AND began_us = ?", (life, ended_us)
        ).fetchone()
        self._db.execute(f"DELETE FROM spans WHERE {stretch}", where)
        ends[-1:] = [ended_us if followed else None]  # open until the next span opens at the same instant
        self._db.executemany(
            "INSERT INTO spans (life, wake, tier, cause, phase, began_us, bytes_read, detail, ended_us,"
            " next_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
            [
                (life, wake, tier, waking(it.phase), it.phase, it.began_us, it.bytes_read, it.detail, end)
                for it, end in zip(leaves, ends, strict=True)
            ],
        )

    # parks and notes

    def _park_ended(self, entry: ParkEnded) -> None:
        life = self._life(entry, entry.replica)
        self._db.execute(
            "INSERT INTO parks (life, began_us, ended_us, to_tier, ok, image_bytes, why)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                life,
                entry.began_us,
                entry.at_us,
                entry.to_tier,
                entry.ok,
                entry.image_bytes,
                entry.why,
            ),
        )
        if entry.ok:
            self._db.execute(
                "UPDATE spans SET image_bytes = ? WHERE life = ? AND began_us = ? AND cause = ?",
                (entry.image_bytes, life, entry.at_us, parked(entry.to_tier)),
            )

    def _clock_stepped(self, entry: ClockStepped) -> None:
        text = f"the wall clock was set {abs(entry.by_us) / 1e6:g} s " + (
            "forward" if entry.by_us > 0 else "back"
        )
        self._note(entry.at_us, "clock_stepped", None, None, text, {"by_us": str(entry.by_us)})

    def _noted(self, entry: Noted) -> None:
        self._note(entry.at_us, entry.kind, entry.replica, entry.model, entry.text, dict(entry.detail))

    def _note(
        self,
        at_us: int,
        kind: str,
        replica: str | None,
        model: str | None,
        text: str,
        detail: dict[str, str],
    ) -> None:
        self._db.execute(
            "INSERT INTO notes (at_us, kind, replica, model, text, detail_json) VALUES (?, ?, ?, ?, ?, ?)",
            (at_us, kind, replica, model, text, json.dumps(detail, sort_keys=True)),
        )

    # look-ups

    def _life(self, entry: Entry, replica: ReplicaId) -> int:
        life = self._ids.get(replica)
        if life is None:
            query = "SELECT id FROM lives WHERE replica = ? AND ended_us IS NULL"
            row = self._db.execute(query, (replica,)).fetchone()
            if row is None:
                raise EntryRefused(entry, f"there is no replica {replica}")
            life = self._ids[replica] = int(row[0])
        return life

    def _open_span(self, entry: Entry, life: int) -> int:
        began_us = self._spans.open_since_us(life)
        if began_us is None:
            raise EntryRefused(entry, "the replica has no open span")
        return began_us

    def _wake(self, entry: Entry, life: int, wake: str) -> tuple[int, int, int | None, str]:
        row = self._db.execute(
            "SELECT id, began_us, ended_us, from_tier FROM wakes WHERE life = ? AND wake = ?",
            (life, wake),
        ).fetchone()
        if row is None:
            raise EntryRefused(entry, f"there is no wake {wake}")
        return (*row,)
