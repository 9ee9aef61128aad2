"""Checking, copying, compacting, migrating: through the verb, as an operator does it."""

import io
import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from poorwill.cli.run import run
from poorwill.core.entries import Alive
from poorwill.ledger.checking import problems
from poorwill.ledger.costs.items import items
from poorwill.ledger.schema import APPLICATION_ID, LedgerFault, connect_writer, migrate, migrations, reading
from poorwill.ledger.upkeep import compact
from poorwill.ledger.writing.rollup import roll_up

from .lives import HOUR, rates, stories
from .story import START, began, created, damage, ended, opened, request, span, write
from .test_pricing import everything, filled


async def poorwill(*args):
    out, err = io.StringIO(), io.StringIO()
    status = await run(args, {}, io.StringIO(), out, err)
    return status, out.getvalue(), err.getvalue()


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(stories(), rates())
def test_compacting_changes_no_bill(batches, configured):
    with filled(batches, configured) as db:
        before = items(db, everything(batches), by_key=True)
        shared = db.execute("SELECT last_us FROM alive").fetchone()[0] // HOUR * HOUR - HOUR
        compact(db, before_us=max(shared, 0))
        assert items(db, everything(batches), by_key=True) == before
        assert problems(db, "") == []


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(stories(), rates())
def test_every_possible_ledger_passes_its_check(batches, configured):
    with filled(batches, configured) as db:
        assert problems(db, "") == []


def two_hours(path):
    second = 1_000_000
    write(
        path,
        [created(), span(0, "serving"), request(0, 0, 10 * second, key="ann", tokens=(3, 4))],
        [span(10 * second, "linger"), span(2 * HOUR, "serving")],
        [request(2 * HOUR, 2 * HOUR, 2 * HOUR + second, key="bob"), Alive(at_us=START + 4 * HOUR)],
    )


async def test_compacting_drops_old_rows_and_keeps_the_bill(path):
    two_hours(path)
    _, before, _ = await poorwill("bill", "--ledger", path, "--by", "key,cause", "--json")
    status, said, _ = await poorwill(
        "ledger", "compact", "--ledger", path, "--before", "2027-01-15T09:00:00Z"
    )
    assert (status, said.split()[0]) == (0, "1")
    with reading(path) as db:
        assert db.execute("SELECT count(*) FROM requests").fetchone() == (1,)
    _, after, _ = await poorwill("bill", "--ledger", path, "--by", "key,cause", "--json")
    assert after == before
    assert (await poorwill("ledger", "check", "--ledger", path))[0] == 0


async def test_compacting_gives_the_space_back(path, tmp_path):
    rows = [request(at, at, at + 1, key="ann") for at in range(5_000)]
    write(path, [created(), span(0, "serving"), *rows, Alive(at_us=START + 4 * HOUR)])
    with closing(connect_writer(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        before = (tmp_path / "ledger.sqlite").stat().st_size
        told: list[str] = []
        compact(db, before_us=START + 2 * HOUR, tell=told.append)
    assert told == ["shares of keys up to 2027-01-15T11:00:00Z", "5,000 request rows dropped"]
    assert (tmp_path / "ledger.sqlite").stat().st_size < before - 400_000


async def test_hours_that_are_not_over_are_not_compacted(path):
    two_hours(path)
    status, _, told = await poorwill("ledger", "compact", "--ledger", path, "--before", "2027-02-01")
    assert status == 2
    assert "compact up to 2027-01-15T11:00:00Z at most" in told


@pytest.mark.parametrize("change", ["ended_us = ended_us + 1", "key = key + 1", "tokens_out = 9"])
@pytest.mark.parametrize("rolled_up", [False, True])
def test_damaged_rows_are_not_compacted(path, change, rolled_up):
    two_hours(path)
    with closing(connect_writer(path)) as db:
        if rolled_up:
            roll_up(db)
        for trigger in ("requests_sum_update", "leases_sum_update"):  # as a flipped bit: past the triggers
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute(f"UPDATE requests SET {change} WHERE id = (SELECT min(id) FROM requests)")
        rows = db.execute("SELECT count(*) FROM requests").fetchone()
        with pytest.raises(LedgerFault):
            compact(db, before_us=START + 2 * HOUR)
        assert db.execute("SELECT count(*) FROM requests").fetchone() == rows


@pytest.mark.parametrize(
    ("tampering", "words"),
    [
        ("UPDATE usage SET tokens_in = 9 WHERE tokens_in = 3", "the sums for a, key 'ann' differ"),
        ("DELETE FROM requests WHERE key = 2", "differ from the rows"),
        ("UPDATE spans SET began_us = began_us + 5 WHERE cause = 'linger'", "expected at"),
        ("DELETE FROM spans WHERE cause = 'linger'", "refers to a row"),
        ("UPDATE shares SET us = us - 1", "the shares at"),
        ("UPDATE lives SET created_us = created_us - 5", "expected at"),
    ],
)
async def test_the_check_finds_what_was_tampered_with(path, tampering, words):
    two_hours(path)
    with closing(connect_writer(path)) as db:
        compact(db, before_us=0)
        db.execute("PRAGMA foreign_keys = OFF")
        assert db.execute(tampering).rowcount >= 1
    status, said, _ = await poorwill("ledger", "check", "--ledger", path, "--json")
    assert status == 1
    assert any(words in problem for problem in json.loads(said)["problems"])


@pytest.mark.parametrize(
    ("tampering", "words"),
    [
        (
            "UPDATE wakes SET ended_us = ended_us + 5",
            "wake a.0.1: it lasted 15 us, its spans 10 us",
        ),
        ("UPDATE wake_keys SET requests = 7", "the requests it woke for differ"),
        ("DELETE FROM wake_keys", "the requests it woke for differ"),
    ],
)
async def test_the_check_compares_wakes(path, tampering, words):
    write(
        path,
        [created(), began(0), span(0, "wake.weights", wake="a.0.1")],
        [ended(10), span(10, "serving"), request(0, 10, 20, key="ann", wake="a.0.1")],
        [span(20, "linger")],
    )
    with closing(connect_writer(path)) as db:
        assert problems(db, path) == []
        assert db.execute(tampering).rowcount == 1
        assert any(words in problem for problem in problems(db, path)), problems(db, path)


async def test_the_check_of_a_damaged_file_says_so(path):
    two_hours(path)
    with closing(connect_writer(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'spans'").fetchone()[0]
    scribble(path, 4096 * (page - 1))
    status, said, _ = await poorwill("ledger", "check", "--ledger", path)
    assert status == 1 and said.strip()


def scribble(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\x55" * 4096)


async def test_a_backup_while_serving_is_whole(path, tmp_path):
    copy = str(tmp_path / "copy.sqlite")
    async with opened(path) as ledger:
        await ledger.record([created(), span(10, "serving")])
        ledger.post([span(20, "linger")])
        assert (await poorwill("ledger", "backup", copy, "--ledger", path))[0] == 0
        await ledger.record([span(30, "serving")])
    assert (await poorwill("ledger", "check", "--ledger", copy))[0] == 0
    status, _, told = await poorwill("ledger", "backup", copy, "--ledger", path)
    assert status == 8 and "exists" in told
    with reading(copy) as db:
        assert db.execute("SELECT count(*) FROM spans").fetchone()[0] in (2, 3)


async def test_an_empty_file_is_no_old_ledger_but_an_empty_one(tmp_path):
    (tmp_path / "x").touch()
    out, err = io.StringIO(), io.StringIO()
    words = ["bill", "--ledger", str(tmp_path / "x")]
    assert await run(words, {}, io.StringIO(), out, err) == 8
    assert f"{tmp_path / 'x'} is empty" in err.getvalue()


async def test_a_newer_ledger_is_left_alone(path):
    two_hours(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    for verb in (["bill"], ["ledger", "check"], ["ledger", "migrate"], ["keys", "add", "ann"]):
        status, out, told = await poorwill(*verb, "--ledger", path)
        assert (status, out) == (8, "")
        assert "newer poorwill" in told and "install the newer poorwill" in told


async def test_a_foreign_database_is_left_alone(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE cats (name TEXT)")
        db.commit()
    for verb in (["bill"], ["ledger", "migrate"], ["keys", "add", "ann"]):
        status, _, told = await poorwill(*verb, "--ledger", path)
        assert status == 8 and "not a poorwill ledger" in told
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("cats",)]


async def test_no_database_is_refused_with_a_hint(path):
    two_hours(path)
    damage(path)
    for verb in (["bill"], ["ledger", "check"], ["ledger", "migrate"]):
        status, _, told = await poorwill(*verb, "--ledger", path)
        assert status == 8 and "not a SQLite database" in told and "hint: restore" in told


async def test_a_missing_ledger_is_named(path):
    status, _, told = await poorwill("bill", "--ledger", path)
    assert status == 8 and f"there is no ledger at {path}" in told


def test_an_old_ledger_is_migrated(path):
    with closing(connect_writer(path)) as db:
        db.executescript(
            f"{migrations()[0]}\nPRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
            "INSERT INTO texts VALUES (1, 'a'), (2, ''), (3, '/v1/completions'), (4, 'ok');"
            "INSERT INTO requests (request, model, key, path, outcome, arrived_us, leased_us, ended_us,"
            f" status, tokens_in, tokens_out) VALUES ('old', 1, 2, 3, 4, {START}, {START}, {START + 9},"
            " 200, 5, 6);"
            "INSERT INTO requests (request, model, key, path, outcome, arrived_us, leased_us, ended_us,"
            f" status, tokens_in) VALUES ('embedding', 1, 2, 3, 4, {START}, {START}, {START + 9}, 200, 5);"
            f"INSERT INTO usage VALUES ({START // 3_600_000_000}, 1, 2, 2, 0, 1, 10, 6, 0, 0);"
        )
        assert migrate(db, path) == len(migrations()) - 1
    crossed = replace(request(20, 20, 30, tokens=(1, 2)), replica=None)
    write(path, [replace(crossed, bridge="x/one", bridge_nusd=77)])
    with reading(path) as db:
        assert problems(db, path) == []
        kept = db.execute("SELECT request, bridge, bridge_nusd FROM request_rows").fetchall()
        assert db.execute("SELECT requests, untold, counted FROM usage").fetchall() == [(3, 0, 0)]
    assert kept == [("old", None, 0), ("embedding", None, 0), (crossed.request, "x/one", 77)]


def test_migrating_twice_changes_nothing_the_second_time(path):
    with closing(connect_writer(path)) as db:
        assert migrate(db, path) == len(migrations())
        schema = db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
        assert migrate(db, path) == 0
        assert db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall() == schema
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_a_ledger_is_readable_by_its_owner_alone(path, tmp_path):
    two_hours(path)
    assert (tmp_path / "ledger.sqlite").stat().st_mode & 0o077 == 0
