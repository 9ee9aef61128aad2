"""However `poorwill serve` ends, its engines end as `on_exit` says, or are named."""

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from poorwill.cli.run import run

from .program import Program, marked_processes, write_fleet


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_signal_stops_the_engines(fleet: Path, number: int) -> None:
    program = Program.start(write_fleet(fleet, on_exit="stop"))
    assert program.ask().status_code == 200
    assert program.stop(number) == 0
    assert marked_processes(fleet) == []


def test_closed_terminal_stops_the_engines(fleet: Path) -> None:
    write_fleet(fleet, on_exit="stop")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "poorwill", "serve", str(fleet), "--port", "0"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    said = b""
    while not (found := re.search(rb"serving http://([\w.:]+) ", said)):
        said += os.read(ours, 4096)
    body = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
    address = found[1].decode()
    assert httpx2.post(f"http://{address}/v1/chat/completions", json=body, timeout=60).status_code == 200
    assert marked_processes(fleet)
    os.close(ours)
    assert child.wait(60) == 0
    assert marked_processes(fleet) == []


def lock(ledger: Path) -> sqlite3.Connection:
    db = sqlite3.connect(ledger, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    return db


@pytest.mark.parametrize("ladder", ['["cold"]', '["frozen", "cold"]'])
@pytest.mark.parametrize("trouble", ["moved", "locked"])
def test_unwritable_ledger_keeps_no_engine(fleet: Path, trouble: str, ladder: str) -> None:
    program = Program.start(write_fleet(fleet, on_exit="stop", ladder=ladder))
    assert program.ask().status_code == 200
    ledger = fleet / "ledger.sqlite"
    db = lock(ledger) if trouble == "locked" else shutil.move(ledger, fleet / "away.sqlite")
    assert program.stop() == 1
    assert marked_processes(fleet) == []
    if isinstance(db, sqlite3.Connection):
        db.close()
    else:
        shutil.move(db, ledger)
    note = json.loads((fleet / "poorwill.lock").read_text())["left"]
    assert re.search(r"the ledger lacks the last \d+ records: it could not be written \(.+\)", note)
    program = Program.start(fleet)
    assert note in (fleet / "serve.log").read_text()
    assert program.stop() == 0


def test_full_disk_keeps_no_engine_and_is_told(tmp_path: Path) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", tmp_path], check=False
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        program = Program.start(write_fleet(tmp_path, on_exit="stop"))
        assert program.ask().status_code == 200
        with suppress(OSError), (tmp_path / "fill").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        assert program.stop() == 1
        assert marked_processes(tmp_path) == []
        assert "the ledger lacks" in json.loads((tmp_path / "poorwill.lock").read_text())["left"]
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def in_work(program: Program) -> threading.Thread:
    """Begin a request that the engine answers slowly; return when it has begun to."""
    begun = threading.Event()

    def ask() -> None:
        url = f"http://{program.address}/v1/chat/completions"
        body = {"model": "toy", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        try:
            with httpx2.stream("POST", url, json={**body, "max_tokens": 500}, timeout=60) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        begun.set()
        except httpx2.HTTPError:
            pass

    client = threading.Thread(target=ask)
    client.start()
    assert begun.wait(30)
    return client


async def said(words: list[str]) -> tuple[int, str]:
    out = io.StringIO()
    return await run(words, {}, io.StringIO(), out, io.StringIO()), out.getvalue()


@pytest.mark.parametrize("on_exit", ["park", "stop"])
def test_second_signal_names_what_it_leaves(fleet: Path, on_exit: str) -> None:
    options = "load_seconds = 0.05, tokens_per_second = 5, rss_mb = 400"
    program = Program.start(write_fleet(fleet, on_exit=on_exit, options=options, ladder='["frozen", "cold"]'))
    if "frozen" not in program.status()["ladder"]:
        program.stop()
        pytest.skip("frozen does not work here")
    client = in_work(program)
    program.child.send_signal(signal.SIGTERM)
    while httpx2.get(f"http://{program.admin}/status", timeout=10).json()["replicas"][0]["state"] == "ready":
        pass  # the first signal has been taken when it drains
    (pid,) = marked_processes(fleet)
    status = program.stop()
    client.join()
    sweep = asyncio.run(said(["doctor", "--sweep", "--fleet", str(fleet)]))
    if on_exit == "stop":
        assert status == 0 and marked_processes(fleet) == []
        return
    assert status == 1 and marked_processes(fleet) == [pid]
    told = f"toy-0: pid {pid}: "
    assert told in (fleet / "serve.log").read_text()
    assert sweep[0] == 1 and f"unserved {told}" in sweep[1] and "nobody serves" in sweep[1]
    (fleet / "serve.log").write_text("")
    program = Program.start(write_fleet(fleet, on_exit="stop"))
    assert told in (fleet / "serve.log").read_text()
    assert program.status()["pid"] == pid
    assert program.stop() == 0


def test_death_is_told_by_the_next_start(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet, on_exit="stop"))
    assert program.ask().status_code == 200
    program.kill()
    assert asyncio.run(said(["doctor", "--sweep", "--fleet", str(fleet)]))[0] == 1
    program = Program.start(fleet)
    assert "ended without a shutdown" in (fleet / "serve.log").read_text()
    assert program.stop() == 0
    assert asyncio.run(said(["doctor", "--sweep", "--fleet", str(fleet)]))[0] == 0
