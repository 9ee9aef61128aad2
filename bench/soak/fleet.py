"""The fleet that is soaked: `poorwill serve` as a child process, its models, and its ledger's own check."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUDGET_S = 20
FLEET = """\
[fleet]
on_exit = "park"
exit_s = 30
{models}
[[rates]]
active_usd_h = "3.60"
"""
MODEL = """
[models.{name}]
engine = "llama.cpp"
path = "{path}"
context = 512
options = {{ parallel = 1, threads = 1, load_mode = "none" }}
ladder = ["frozen", "cold"]
wake_budget_s = {budget_s}
wake_cap_s = 60
wake_backoff_s = 0.1
wake_backoff_max_s = 1
stable_s = 1
policy = {{ name = "fixed", idle_s = {idle_s}, allow_short_idle = true }}
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}  # noqa: TID251 - a script is its own edge


def write_fleet(directory: Path, paths: Mapping[str, Path], *, idle_s: float) -> None:
    models = "".join(
        MODEL.format(name=name, path=path, budget_s=BUDGET_S, idle_s=idle_s) for name, path in paths.items()
    )
    (directory / "fleet.toml").write_text(FLEET.format(models=models))


@dataclass
class Program:
    """One fleet directory, served by one `poorwill serve` after another."""

    directory: Path
    scratch: Path
    """Its temporary directory and its log, which no full disk hurts."""
    models: tuple[str, ...]
    child: subprocess.Popen[bytes] | None = None
    port: int = 0
    admin: int = 0
    up: threading.Event = field(default_factory=threading.Event)
    starts: int = 0
    ends: list[tuple[float, float]] = field(default_factory=list)
    """When it was down through our doing, as stretches of the monotonic clock; the last may be open."""

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    def start(self) -> str:
        """Start it and wait until it listens; return why it does not, or nothing."""
        out = self.scratch / "serve.out"
        (self.scratch / "tmp").mkdir(exist_ok=True)
        with (self.scratch / "serve.log").open("ab") as log, out.open("wb") as stdout:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "poorwill", "serve", str(self.directory), "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                env=environment(TMPDIR=str(self.scratch / "tmp")),
                start_new_session=True,
            )
        self.starts += 1
        until = time.monotonic() + 60  # noqa: TID251
        while time.monotonic() < until and self.child.poll() is None:  # noqa: TID251
            found = re.match(r"serving http://[\d.]+:(\d+) \(admin http://[\d.]+:(\d+)\)", out.read_text())
            if found:
                self.port, self.admin = int(found[1]), int(found[2])
                if self.ends:
                    self.ends[-1] = (self.ends[-1][0], time.monotonic())  # noqa: TID251
                self.up.set()
                return ""
            time.sleep(0.02)  # noqa: TID251
        return f"serve does not start: {(self.scratch / 'serve.log').read_text()[-2000:]}"

    def going_down(self) -> None:
        self.up.clear()
        self.ends.append((time.monotonic(), float("inf")))  # noqa: TID251

    def kill(self) -> None:
        """As the kernel would: no time to say good-bye."""
        self.going_down()
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        """As an operator would. Return the exit status; -9 if it had to be killed."""
        self.going_down()
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(90)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

    def was_down(self, since: float) -> bool:
        """Whether we had ended it at any time since an instant."""
        return any(end >= since for _, end in self.ends)

    def replicas(self) -> list[dict[str, Any]]:
        """Return the replicas' status. Raises OSError, ValueError while nobody answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status", timeout=10) as answer:
            replicas: list[dict[str, Any]] = json.load(answer)["replicas"]
            return replicas

    def check(self) -> str:
        """Return what `poorwill ledger check` finds wrong, or nothing."""
        done = subprocess.run(
            [sys.executable, "-m", "poorwill", "ledger", "check", "--fleet", str(self.directory)],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        return "" if done.returncode == 0 else f"ledger check: {done.stdout}{done.stderr}".strip()
