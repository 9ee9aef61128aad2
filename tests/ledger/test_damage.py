"""Damage that would change a bill is found; nothing that looks at a damaged ledger crashes."""

import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.bill.bill import Axis, make_bill
from poorwill.core.entries import Alive
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import RateSettings, SpendSettings
from poorwill.core.words import Tier
from poorwill.ledger.checking import undamaged
from poorwill.ledger.checksums import SUMS, differing
from poorwill.ledger.dates import Period, month, zone_of
from poorwill.ledger.history.spending import SpendWatch
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import connect_writer, reading
from poorwill.ledger.writing.rollup import roll_up

from .lives import HOUR
from .story import START, began, created, ended, opened, span, write
from .story import request as row
from .test_keys import poorwill

RATE = RateSettings(
    effective_us=0,
    active_nusd_h=3_600_000_000,
    parked_nusd_h={Tier.FROZEN: 36_000_000},
    increment_us=60_000_000,
)
KATHMANDU = zone_of("Asia/Kathmandu")
ASKED = {
    "a month": month("2027-01"),
    "parts of hours": Period(from_us=START + 12, to_us=START + 3 * HOUR + 25),
    "odd days": replace(month("2027-01"), zone=KATHMANDU),
}


@pytest.fixture(params=["rolled up", "not rolled up"])
def whole(path, request) -> str:
    """A ledger with a row in every table that a bill depends on, in one file."""
    write(path, [created(), began(0), span(0, "wake.weights", wake="a.0.1")])
    write(path, [ended(10), span(10, "serving"), row(0, 10, 20, key="ann", wake="a.0.1")])
    write(path, [row(12, 14, 30, key="bob"), span(30, "parked.frozen", tier="frozen")])
    write(path, [span(2 * HOUR, "serving"), row(2 * HOUR, 2 * HOUR, 3 * HOUR + 20, key="ann")])
    write(path, [row(2 * HOUR + 7, 2 * HOUR + 7, 3 * HOUR + 9, key="bob"), span(3 * HOUR + 20, "linger")])
    with closing(connect_writer(path)) as db:
        db.execute("BEGIN")
        sync_rates(db, [RATE], now_us=START)
        db.execute("COMMIT")
    write(path, [Alive(at_us=START + 4 * HOUR)])
    if request.param == "rolled up":
        with closing(connect_writer(path)) as db:
            db.execute("BEGIN")
            roll_up(db)
            db.execute("COMMIT")
    write(path, [row(2 * HOUR + 8, 2 * HOUR + 8, 2 * HOUR + 31, key="bob"), Alive(at_us=START + 5 * HOUR)])
    with closing(connect_writer(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path


def data_of(path: str) -> bytes:
    return Path(path).read_bytes()


def flip(path: str, bit: int) -> None:
    data = bytearray(Path(path).read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    Path(path).write_bytes(data)


def flip_value(path: str, table: str, column: str, chance: random.Random) -> bool:
    """Flip a bit of one value past the triggers; False if SQLite would not have it, or there is none."""
    with closing(connect_writer(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("BEGIN")
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        values = [v for (v,) in db.execute(f"SELECT {column} FROM {table}") if v not in (None, "", b"")]
        if not values:
            return False
        value = chance.choice(values)
        if isinstance(value, int):
            changed: object = value ^ 1 << chance.randrange(40)
        else:
            at = chance.randrange(len(value))
            changed = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
        try:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (changed, value))
        except sqlite3.IntegrityError:
            return False
        for _, sql in triggers:
            db.execute(sql)
        db.execute("COMMIT")
        return True


def billed(path: str, period: Period) -> object:
    """Return a bill's lines, or that the ledger is damaged."""
    try:
        with reading(path) as db, undamaged(db, path):
            return make_bill(db, period, tuple(Axis)).lines
    except OperatorFault as error:
        assert error.code is ErrorCode.LEDGER_UNAVAILABLE
        return "damaged"


async def checked(path: str) -> int:
    status, _, told = await poorwill("ledger", "check", "--ledger", path)
    assert status in (0, 1, 8) and "this is a defect" not in told, told
    return status


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
async def test_every_flipped_bit_that_matters_stops_the_bill(whole, tmp_path, asked):
    chance, right = random.Random(str(asked)), billed(whole, asked)
    used = [place for place, byte in enumerate(data_of(whole)) if byte]
    for number in range(40):
        copy = str(tmp_path / f"copy-{number}")
        shutil.copy(whole, copy)
        flip(copy, chance.choice(used) * 8 + chance.randrange(8))
        found = billed(copy, asked)
        if found != right:
            assert found == "damaged" and await checked(copy) != 0


@pytest.mark.parametrize("asked", list(ASKED.values())[1:], ids=list(ASKED)[1:])
def test_every_changed_value_is_found(whole, tmp_path, asked):
    chance, right = random.Random(str(asked)), billed(whole, asked)
    with closing(sqlite3.connect(whole)) as db:
        columns = [
            (table, column[1])
            for table in sorted({kept.table for kept in SUMS.values()})
            for column in db.execute(f"PRAGMA table_info({table})")
        ]
    copy = str(tmp_path / "copy")
    for table, column in columns:
        shutil.copy(whole, copy)
        if flip_value(copy, table, column, chance):
            assert billed(copy, asked) in (right, "damaged"), (table, column)
            with closing(sqlite3.connect(copy)) as db:
                assert table in differing(db), (table, column)


async def test_a_changed_price_stops_the_bill(whole):
    price = data_of(whole).find((3_600_000_000).to_bytes(6, "big"))
    assert price > 0
    flip(whole, price * 8 + 40)
    status, _, told = await poorwill("bill", "--ledger", whole)
    assert status == 8 and "it is damaged" in told and "`poorwill ledger check` says how" in told
    status, said, _ = await poorwill("ledger", "check", "--ledger", whole)
    assert status == 1 and "rates: a row was changed" in said


@pytest.mark.parametrize(("table", "column"), [("spans", "began_us"), ("rates", "active_nusd_h")])
async def test_no_limit_counts_damage(whole, table, column):
    chance, limits = random.Random(column), SpendSettings(day_nusd=10**12, key_month_nusd={"ann": 10**12})
    async with opened(whole) as ledger:
        assert (await SpendWatch(ledger=ledger, limits=limits).look()).limits
    assert flip_value(whole, table, column, chance)
    async with opened(whole) as ledger:
        with pytest.raises(OperatorFault, match="damaged"):
            await SpendWatch(ledger=ledger, limits=limits).look()


async def test_a_lost_end_is_found(path, tmp_path, log):
    old = str(tmp_path / "old")
    async with opened(path) as ledger:
        await ledger.record([created()])
        shutil.copy(path, old)
        shutil.copy(f"{path}-wal", f"{old}-wal")
        await ledger.record([span(10, "serving")])
        await ledger.record([span(20, "linger")])
    shutil.move(old, path)
    shutil.move(f"{old}-wal", f"{path}-wal")
    status, said, _ = await poorwill("ledger", "check", "--ledger", path)
    assert status == 1 and "its newest 2 acknowledged transactions are not there" in said
    async with opened(path, log=log) as ledger:
        await ledger.record([span(30, "serving")])
    assert any("lacks its newest 2" in str(line) for line in log.lines)
    assert (await poorwill("ledger", "check", "--ledger", path))[0] == 0
    assert "ledger_end_lost" in (await poorwill("bill", "--ledger", path))[1]
