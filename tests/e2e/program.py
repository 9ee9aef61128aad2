"""Runs `poorwill` as a child process and looks at what it leaves: processes, ports, the ledger."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2

TOY = """\
[fleet]
on_exit = "{on_exit}"
exit_s = 20

[gateway]
heartbeat_s = {heartbeat_s}
commit_after_s = {commit_after_s}

[models.toy]
engine = "toy"
options = {{ {options} }}
ladder = {ladder}
wake_budget_s = {budget_s}
wake_cap_s = {cap_s}
wake_backoff_s = {backoff_s}
policy = {{ name = "fixed", idle_s = {idle_s} }}

[[rates]]
active_usd_h = "3.60"
"""


def write_fleet(directory: Path, **changes: object) -> Path:
    """Write a fleet.toml with one toy model and return the directory."""
    values: dict[str, object] = {
        "on_exit": "park",
        "heartbeat_s": 0.05,
        "commit_after_s": 0.1,
        "options": "load_seconds = 0.05",
        "ladder": '["cold"]',
        "budget_s": 20,
        "cap_s": 60,
        "backoff_s": 5,
        "idle_s": 60.0,
        **changes,
    }
    (directory / "fleet.toml").write_text(TOY.format(**values))
    return directory


@dataclass
class Program:
    """A running `poorwill serve`."""

    directory: Path
    child: subprocess.Popen[str]
    address: str
    admin: str

    @classmethod
    def start(cls, directory: Path, **env: str) -> "Program":
        """Start it, with these variables besides, and wait for the line that says where it listens."""
        with (directory / "serve.log").open("a") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "poorwill", "serve", str(directory), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **env},  # noqa: TID251
            )
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.match(r"serving http://(\S+) \(admin http://(\S+)\)", line)
        if not found:
            child.stdout.close()
            child.wait(60)
        assert found, f"{line!r}; {(directory / 'serve.log').read_text()}"
        return cls(directory, child, found[1], found[2])

    def kill(self) -> None:
        """Kill it as the kernel would: no time to say good-bye."""
        self.child.kill()
        self.ended()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; return its exit status."""
        self.child.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; return its exit status."""
        status = self.child.wait(60)
        assert self.child.stdout is not None
        self.child.stdout.close()
        return status

    def ask(self, body: dict[str, Any] | None = None, **options: Any) -> httpx2.Response:
        """Send one chat completion and return the answer."""
        return httpx2.post(
            f"http://{self.address}/v1/chat/completions",
            json=body or {"model": "toy", "messages": [{"role": "user", "content": "hi"}]},
            timeout=options.pop("timeout", 60),
            **options,
        )

    def status(self) -> dict[str, Any]:
        """Return the toy replica's status."""
        document = httpx2.get(f"http://{self.admin}/status", timeout=10).json()
        replica: dict[str, Any] = document["replicas"][0]
        return replica

    def operator(self, verb: str, model: str = "toy") -> httpx2.Response:
        """Wake or park a model."""
        return httpx2.post(f"http://{self.admin}/models/{model}/{verb}", timeout=60)

    @staticmethod
    def kill_group(pid: int) -> None:
        """End a process group that a test left."""
        os.killpg(pid, signal.SIGKILL)


def marked_processes(directory: Path) -> list[int]:
    """Return the pids of engines that belong to a fleet directory, by the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rsplit(") ", 1)[1][0]
        except (OSError, IndexError):
            continue
        marks = [e.partition(b"=")[2] for e in environment if e.startswith(b"POORWILL_REPLICA=")]
        if marks and state not in "ZX" and json.loads(marks[0])["fleet"] == str(directory):
            found.append(int(entry.name))
    return found


def spans(directory: Path) -> list[tuple[str, int, int | None]]:
    """Return the ledger's spans as (cause, from, to), in order."""
    db = sqlite3.connect(directory / "ledger.sqlite")
    try:
        return db.execute("SELECT cause, began_us, ended_us FROM spans ORDER BY life, began_us").fetchall()
    finally:
        db.close()


def wakes(directory: Path) -> list[tuple[str, int]]:
    """Return the ledger's wakes as (tier woken from, whether it served), in order."""
    db = sqlite3.connect(directory / "ledger.sqlite")
    try:
        return db.execute("SELECT from_tier, ok FROM wakes ORDER BY began_us").fetchall()
    finally:
        db.close()


def notes(directory: Path) -> list[tuple[str, str]]:
    """Return the ledger's remarks as (kind, text), in order."""
    db = sqlite3.connect(directory / "ledger.sqlite")
    try:
        return db.execute("SELECT kind, text FROM notes ORDER BY rowid").fetchall()
    finally:
        db.close()


def assert_tiles(directory: Path) -> None:
    """Assert that the one replica's spans have no gap and no overlap, and one open end."""
    rows = spans(directory)
    for (_, _, ended), (_, began, _) in pairwise(rows):
        assert ended == began
    assert [ended for _, _, ended in rows if ended is None] == [None]
