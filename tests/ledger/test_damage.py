"""Damage that would change a bill is found; nothing that looks at a damaged ledger crashes."""

import json
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from poorwill.core.entries import Alive
from poorwill.core.settings import RateSettings
from poorwill.core.words import Tier
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import connect_writer
from poorwill.ledger.writing.rollup import roll_up

from .lives import HOUR
from .story import START, began, created, ended, opened, request, span, write
from .test_keys import poorwill

RATE = RateSettings(effective_us=0, active_nusd_h=3_600_000_000, parked_nusd_h={Tier.FROZEN: 36_000_000})
BILL = ("bill", "--by", "day,model,replica,cause,tier,key", "--json")


@pytest.fixture
def whole(path) -> str:
    """A ledger with a row in every table that a bill depends on, in one file."""
    write(path, [created(), began(0), span(0, "wake.weights", wake="a.0.1")])
    write(path, [ended(10), span(10, "serving"), request(0, 10, 20, key="ann", wake="a.0.1")])
    write(path, [request(12, 14, 30, key="bob"), span(30, "parked.frozen", tier="frozen")])
    write(path, [Alive(at_us=START + 3 * HOUR), request(12, 14, 31, key="bob")])
    with closing(connect_writer(path)) as db:
        db.execute("BEGIN")
        sync_rates(db, [RATE], now_us=START)
        roll_up(db)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path


def data_of(path: str) -> bytes:
    return Path(path).read_bytes()


def flip(path: str, bit: int) -> None:
    data = bytearray(Path(path).read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    Path(path).write_bytes(data)


async def billed(path: str) -> tuple[int, object]:
    status, said, told = await poorwill(*BILL, "--ledger", path)
    assert "this is a defect" not in told, told
    return status, json.loads(said).get("lines")


@pytest.mark.parametrize("seed", range(6))
async def test_every_flipped_bit_that_matters_is_found(whole, tmp_path, seed):
    (_, right), chance = await billed(whole), random.Random(seed)
    used = [place for place, byte in enumerate(data_of(whole)) if byte]
    for number in range(25):
        copy = str(tmp_path / f"copy-{number}")
        shutil.copy(whole, copy)
        flip(copy, chance.choice(used) * 8 + chance.randrange(8))
        status, lines = await billed(copy)
        found, _, told = await poorwill("ledger", "check", "--ledger", copy)
        assert found in (0, 1, 8) and "this is a defect" not in told, told
        if (status, lines) != (0, right):
            assert found != 0
            assert status in (0, 8)


async def test_a_changed_price_stops_the_bill(whole):
    price = data_of(whole).find((3_600_000_000).to_bytes(6, "big"))
    assert price > 0
    flip(whole, price * 8 + 40)
    status, _, told = await poorwill("bill", "--ledger", whole)
    assert status == 8 and "it is damaged" in told and "`poorwill ledger check` says how" in told
    status, said, _ = await poorwill("ledger", "check", "--ledger", whole)
    assert status == 1 and "rates: a row was changed" in said


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
