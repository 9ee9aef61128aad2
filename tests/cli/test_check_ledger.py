"""`check` also judges a configuration by what the fleet's ledger knows: measured wakes, and keys."""

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.compose.clock import SystemClock
from poorwill.core.entries import (
    Entry,
    ParkEnded,
    ReplicaCreated,
    SpanOpened,
    WakeBegan,
    WakeEnded,
)
from poorwill.core.words import (
    DRAIN,
    LINGER,
    SECOND_US,
    SERVING,
    ModelName,
    Phase,
    ReplicaId,
    Tier,
    WakeId,
    parked,
    waking,
)
from poorwill.ledger.ledger import open_ledger
from poorwill.telemetry.log import StreamLog

A, A0, W = ModelName("a"), ReplicaId("a-0"), WakeId("w1")
FLEET = """\
[models.a]
engine = "toy"
policy = {{ name = "fixed", idle_s = {idle_s} }}
[gateway]
listen = "{host}:0"
[[rates]]
active_usd_h = 1
[spend]
key_day_usd = {{ anna = 1 }}
"""


def life(start_us: int) -> list[Entry]:
    """A replica that took 60 s to wake from cold and 30 s to park."""

    def at(second: int) -> int:
        return start_us + second * SECOND_US

    def span(second: int, cause: object) -> SpanOpened:
        return SpanOpened(replica=A0, at_us=at(second), cause=cause, tier=Tier.COLD, wake=None)  # type: ignore[arg-type]

    return [
        ReplicaCreated(replica=A0, model=A, driver="cold", at_us=at(0)),
        span(0, parked(Tier.COLD)),
        WakeBegan(
            wake=W,
            replica=A0,
            model=A,
            generation=1,
            at_us=at(10),
            from_tier=Tier.COLD,
            asked_by="operator",
            why="operator",
            budget_us=None,
        ),
        SpanOpened(replica=A0, at_us=at(10), cause=waking(Phase.SPAWN), tier=Tier.COLD, wake=W),
        WakeEnded(wake=W, replica=A0, at_us=at(70), ok=True),
        span(70, SERVING),
        span(80, LINGER),
        span(90, DRAIN),
        ParkEnded(replica=A0, at_us=at(130), began_us=at(100), to_tier=Tier.COLD, ok=True, why="idle"),
        span(130, parked(Tier.COLD)),
    ]


@pytest.fixture
async def fleet(tmp_path: Path) -> Path:
    clock = SystemClock.started()
    log = StreamLog(stream=io.StringIO())
    async with open_ledger(str(tmp_path / "ledger.sqlite"), clock=clock, log=log) as ledger:
        await ledger.record(life(clock.now_us() - 3600 * SECOND_US))
    return tmp_path


async def test_an_idle_time_below_the_break_even(poorwill: Poorwill, fleet: Path) -> None:
    (fleet / "fleet.toml").write_text(FLEET.format(idle_s=20, host="127.0.0.1"))
    ran = await poorwill("check", str(fleet))
    assert ran.status == 2
    # 60 s of waking and 30 s of parking at the active rate, and nothing is paid while cold.
    assert "fleet.toml:3: models.a.policy.idle_s: an idle time of 20 s is shorter" in ran.out
    assert "shorter than the break-even of 1m 30s" in ran.out
    assert "set idle_s to 90 or more" in ran.out and "allow_short_idle = true" in ran.out
    (fleet / "fleet.toml").write_text(FLEET.format(idle_s=90, host="127.0.0.1"))
    assert "break-even" not in (await poorwill("check", str(fleet))).out


async def test_a_short_idle_time_may_be_meant(poorwill: Poorwill, fleet: Path) -> None:
    short = FLEET.format(idle_s=20, host="127.0.0.1")
    (fleet / "fleet.toml").write_text(short.replace("= 20 }", "= 20, allow_short_idle = true }"))
    assert (await poorwill("check", str(fleet))).status == 0
    # No rate is in force for the model: the break-even would rest on an assumed price.
    (fleet / "fleet.toml").write_text(
        short.replace("active_usd_h = 1", "active_usd_h = 1\neffective = 2099-01-01")
    )
    ran = await poorwill("check", str(fleet))
    assert ran.status == 0 and "break-even" not in ran.out
    (fleet / "ledger.sqlite").unlink()
    (fleet / "fleet.toml").write_text(short)
    ran = await poorwill("check", str(fleet))
    assert ran.status == 0 and "break-even" not in ran.out, "nothing was measured"


async def test_only_fixed_policies_may_idle_short(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(
        '[models.a]\nengine = "toy"\npolicy = { name = "adaptive", allow_short_idle = true }\n'
    )
    ran = await poorwill("check", str(tmp_path))
    assert ran.status == 2 and 'is only for name = "fixed"' in ran.out


async def test_a_public_address_needs_a_key(poorwill: Poorwill, fleet: Path) -> None:
    (fleet / "fleet.toml").write_text(FLEET.format(idle_s=90, host="0.0.0.0"))
    ran = await poorwill("check", str(fleet))
    assert ran.status == 2
    assert "no API key" in ran.out
    text = (fleet / "fleet.toml").read_text().splitlines()
    line = next(number for number, row in enumerate(text, 1) if row.startswith("listen"))
    assert f"fleet.toml:{line}: gateway.listen: " in ran.out
    assert (await poorwill("keys", "add", "anna", "--fleet", str(fleet))).status == 0
    assert (await poorwill("check", str(fleet))).status == 0


async def test_a_limit_for_no_key_is_a_warning(poorwill: Poorwill, fleet: Path) -> None:
    (fleet / "fleet.toml").write_text(FLEET.format(idle_s=90, host="127.0.0.1"))
    answer = json.loads((await poorwill("check", str(fleet), "--json")).out)
    assert "there is no key named 'anna'" in [warning["what"] for warning in answer["warnings"]]
    await poorwill("keys", "add", "anna", "--fleet", str(fleet))
    answer = json.loads((await poorwill("check", str(fleet), "--json")).out)
    assert "spend" not in [warning["where"] for warning in answer["warnings"]]


async def test_a_damaged_ledger_is_a_warning(poorwill: Poorwill, fleet: Path) -> None:
    (fleet / "fleet.toml").write_text(FLEET.format(idle_s=90, host="127.0.0.1"))
    with closing(sqlite3.connect(fleet / "ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 999")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (fleet / "ledger.sqlite").read_bytes()
    ran = await poorwill("check", str(fleet))
    assert ran.status == 0
    assert "ledger.sqlite" in ran.out
    assert (fleet / "ledger.sqlite").read_bytes() == before
