"""Spans tile a replica's life: what the entries do, and what the schema refuses."""

import sqlite3
from contextlib import closing
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings

from poorwill.core.entries import ReplicaEnded
from poorwill.core.words import Phase, waking
from poorwill.ledger.schema import connect_writer, reading
from poorwill.ledger.writing.entries import Applier, EntryRefused

from .lives import stories
from .story import START, began, created, ended, opened, rows, span, write
from .test_pricing import filled


def test_the_next_span_closes_the_last(path):
    write(path, [created(), span(10, "serving"), span(25, "linger")])
    assert rows(path) == [(0, 10, "parked.cold"), (10, 25, "serving"), (25, None, "linger")]


def test_no_span_is_empty(path):
    write(path, [created(), span(10, "serving"), span(10, "linger"), span(10, "floor")])
    assert rows(path) == [(0, 10, "parked.cold"), (10, None, "floor")]


def test_an_ended_replica_may_live_again(path):
    write(path, [created(), span(10, "serving"), ReplicaEnded(replica="a.0", at_us=START + 30)])
    write(path, [created(40)])
    assert rows(path) == [
        (0, 10, "parked.cold"),
        (10, 30, "serving"),
        (40, None, "parked.cold"),
    ]


def test_ending_at_once_leaves_no_empty_row(path):
    write(path, [created(), span(10, "serving"), ReplicaEnded(replica="a.0", at_us=START + 10)])
    assert rows(path) == [(0, 10, "parked.cold")]


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(stories())
def test_batches_change_no_row(batches):
    def kept(batches):
        with filled(batches, ()) as db:
            tables = ("lives", "spans", "stays", "wakes", "parks", "wake_keys", "requests", "usage")
            return [db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]

    entries = [*chain(*batches)]
    assert kept([entries]) == kept([[entry] for entry in entries])


def test_a_long_life_costs_no_more(path):
    """A span and a wake take SQLite as many steps after thousands of spans and shares as at first."""
    turns = [span(10 * number, ("serving", "linger")[number % 2], "b.0") for number in range(1, 2_000)]
    write(path, [created(), created(replica="b.0")], turns)
    steps = []
    with closing(connect_writer(path)) as db:
        applier = Applier(db)
        db.executemany(
            "INSERT INTO shares SELECT life, began_us, began_us + ?, began_us + ? + 1, NULL, 1"
            " FROM spans WHERE life = 2 AND began_us = ?",
            [(number, number, START + 10) for number in range(2_000)],
        )
        db.set_progress_handler(lambda: steps.append(replica), 10)
        for replica in ("a.0", "b.0"):
            woken = [(Phase.READ_IMAGE, 20_010, 20_020), (Phase.VERIFY, 20_020, 20_030)]
            for batch in (
                [span(20_000, "park", replica), began(20_010, replica=replica)],
                [span(20_010, "wake.provision", replica, wake="a.0.1")],
                [ended(20_030, replica=replica, anatomy=woken), span(20_030, "serving", replica)],
                [span(20_040 + number, ("linger", "serving")[number % 2], replica) for number in range(4)],
            ):
                db.execute("BEGIN")
                applier.apply(batch)
                db.execute("COMMIT")
    assert steps.count("b.0") < 1.5 * steps.count("a.0")


def test_foreign_keys_have_an_index(path):
    """Where rows that others refer to come and go, SQLite finds those others without reading them all."""
    write(path, [created()])
    with reading(path) as db:
        for table in ("spans", "shares", "lives"):
            keys = db.execute(f"PRAGMA foreign_key_list({table})").fetchall()
            for key in {row[0] for row in keys if row[2] == "spans"}:
                columns = [row[3] for row in keys if row[0] == key]
                asked = " AND ".join(f"{column} = ?" for column in columns)
                plan = db.execute(f"EXPLAIN QUERY PLAN SELECT 1 FROM {table} WHERE {asked}", [1, 1])
                (way,) = (row[3] for row in plan)
                assert "PRIMARY KEY (rowid=?)" in way or all(f"{name}=?" in way for name in columns), way


WAKING = [created(), began(10), span(10, "wake.provision", wake="a.0.1"),
          span(14, "wake.read_image", wake="a.0.1")]  # fmt: skip
ANATOMY = [(Phase.READ_IMAGE, 10, 12), (Phase.RESTORE_PROCESS, 12, 15), (Phase.VERIFY, 15, 20)]


@pytest.mark.parametrize("order", ["wake first", "span first"])
def test_an_anatomy_replaces_its_wake(path, order):
    end = [ended(20, anatomy=ANATOMY), span(20, "serving")]
    write(path, WAKING, end if order == "wake first" else end[::-1], [span(30, "linger")])
    assert rows(path) == [
        (0, 10, "parked.cold"),
        *((begin, end, waking(phase)) for phase, begin, end in ANATOMY),
        (20, 30, "serving"),
        (30, None, "linger"),
    ]


def test_failed_wakes_keep_their_phases(path):
    write(path, WAKING, [ended(20, ok=False, why="died"), span(20, "parked.cold")])
    assert rows(path)[1:] == [
        (10, 14, "failed_wake"),
        (14, 20, "failed_wake"),
        (20, None, "parked.cold"),
    ]
    with reading(path) as db:
        phases = db.execute("SELECT phase, why FROM spans WHERE cause = 'failed_wake'").fetchall()
    assert phases == [("provision", "died"), ("read_image", "died")]


@pytest.mark.parametrize(
    "anatomy",
    [
        [(Phase.READ_IMAGE, 10, 19)],
        [(Phase.READ_IMAGE, 11, 20)],
        [(Phase.READ_IMAGE, 10, 12), (Phase.VERIFY, 13, 20)],
        [(Phase.READ_IMAGE, 10, 14), (Phase.VERIFY, 13, 20)],
        [(Phase.READ_IMAGE, 10, 22), (Phase.VERIFY, 22, 20)],
    ],
    ids=["ends early", "begins late", "gap", "overlap", "backwards"],
)
async def test_an_anatomy_must_tile_its_wake(path, log, anatomy):
    async with opened(path, log=log) as ledger:
        await ledger.record(WAKING)
        with pytest.raises(EntryRefused):
            await ledger.record([ended(20, anatomy=anatomy), span(20, "serving")])
        before = rows(path)
        await ledger.record([ended(20, anatomy=ANATOMY), span(20, "serving")])
    assert before == [
        (0, 10, "parked.cold"),
        (10, 14, "wake.provision"),
        (14, None, "wake.read_image"),
    ]
    assert log.errors() == ["the ledger refused an entry: this is a bug"]


@pytest.mark.parametrize(
    "stretch",
    [
        [span(10, "serving"), span(15, "linger")],
        [span(10, "wake.weights", wake="a.0.1"), span(15, "linger")],
        [span(5, "wake.weights", wake="a.0.1")],
    ],
    ids=["of no wake", "of another cause at its end", "longer than the wake"],
)
async def test_an_anatomy_leaves_others_alone(path, log, stretch):
    async with opened(path, log=log) as ledger:
        await ledger.record([created(), began(10), *stretch])
        before = rows(path)
        with pytest.raises(EntryRefused):
            await ledger.record([ended(20, anatomy=ANATOMY), span(20, "serving")])
        assert rows(path) == before


@pytest.mark.parametrize(
    "bad",
    [
        span(5, "linger"),
        span(20, "resting"),
        span(20, "linger", replica="b.0"),
        span(20, "wake.verify", wake="a.0.9"),
        ReplicaEnded(replica="a.0", at_us=START + 5),
        created(20),
        ended(20),
    ],
    ids=["earlier", "cause", "replica", "wake", "end", "twice", "no such wake"],
)
async def test_a_contradiction_is_refused_alone(path, log, bad):
    async with opened(path, log=log) as ledger:
        await ledger.record([created(), span(10, "serving")])
        answers = [ledger.record([e]) for e in (span(20, "linger"), bad, span(30, "serving"))]
        await answers[0]
        with pytest.raises(EntryRefused):
            await answers[1]
        await answers[2]
    assert rows(path) == [
        (0, 10, "parked.cold"),
        (10, 20, "serving"),
        (20, 30, "linger"),
        (30, None, "serving"),
    ]
    assert log.errors() == ["the ledger refused an entry: this is a bug"]


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE spans SET ended_us = {m} + 15, next_us = {m} + 15 WHERE began_us = {m} + 10",
        "UPDATE spans SET began_us = {m} + 12 WHERE began_us = {m} + 10",
        "DELETE FROM spans WHERE began_us = {m} + 10",
        "DELETE FROM spans WHERE began_us = {m}",
        "INSERT INTO spans (life, began_us, cause) VALUES (1, {m} + 50, 'serving')",
        "INSERT INTO spans (life, began_us, ended_us, next_us, cause)"
        " VALUES (1, {m} + 5, {m} + 8, {m} + 10, 'serving')",
        "INSERT INTO spans (life, began_us, ended_us, next_us, cause)"
        " VALUES (1, {m} - 5, {m}, {m}, 'serving')",
        "INSERT INTO spans (life, began_us, ended_us, next_us, cause)"
        " VALUES (1, {m} + 3, {m} + 20, {m} + 20, 'serving')",
        "UPDATE spans SET next_us = NULL WHERE began_us = {m} + 10",
        "UPDATE spans SET ended_us = began_us, next_us = began_us WHERE began_us = {m} + 10",
        "UPDATE spans SET ended_us = {m} + 90 WHERE next_us IS NULL",
        "UPDATE lives SET created_us = {m} + 1",
        "UPDATE lives SET created_us = {m} - 1",
        "UPDATE lives SET ended_us = {m} + 90",
        "UPDATE spans SET cause = 'because' WHERE began_us = {m} + 10",
    ],
)
def test_the_schema_refuses_gaps_and_overlaps(path, tampering):
    write(path, [created(), span(10, "serving"), span(20, "linger"), span(40, "serving")])
    db = connect_writer(path)
    try:
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(tampering.format(m=START))
    finally:
        db.close()
    assert [cause for _, _, cause in rows(path)] == ["parked.cold", "serving", "linger", "serving"]
