"""ctrl-C of a benchmark, at any moment: it ends, and so does every engine that it started."""

# The test run is its own edge: where programs are, only the environment knows.
# ruff: noqa: TID251

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.waiting import wait_until

from poorwill.tiers.frozen.criu import find_criu

BENCH = Path(__file__).parents[2] / "bench"
FAKE_GPU = Path(__file__).with_name("fake_gpu")


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory for one benchmark; whatever still runs in it is ended."""
    yield tmp_path
    for pid in engines(tmp_path):
        os.kill(pid, signal.SIGKILL)


def engines(scratch: Path, benchmark: int = 0) -> list[int]:
    """The pids of what was started with the directory as its temporary one, but for the benchmark."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rsplit(") ", 1)[1][0]
        except (OSError, IndexError):
            continue
        if bytes(scratch) in told and state not in "ZX" and int(entry.name) != benchmark:
            found.append(int(entry.name))
    return found


def interrupted(scratch: Path, *argv: str, when: Callable[[], object], **env: str) -> int:
    """Start a benchmark, press ctrl-C at some moment, and return its exit status."""
    out = scratch / "out"
    with out.open("w") as stdout:
        child = subprocess.Popen(
            [sys.executable, *argv],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch), **env},
            stdout=stdout,
            stderr=stdout,
            start_new_session=True,
        )
    try:
        wait_until(lambda: (when() and engines(scratch, child.pid)) or child.poll() is not None, within_s=60)
        assert child.poll() is None, out.read_text()
        os.killpg(child.pid, signal.SIGINT)
        return child.wait(60)
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def freezes() -> None:
    if os.geteuid() != 0 or asyncio.run(find_criu(os.environ)) is None:
        pytest.skip("it drops the page cache and freezes, so it needs root and CRIU")


@pytest.mark.parametrize(
    "made",
    [
        pytest.param("logs", id="as an engine starts", marks=pytest.mark.nightly),
        pytest.param("snapshots/*/*/[0-9]*", id="once it was parked"),
    ],
)
def test_wakes(scratch: Path, freezes: None, made: str) -> None:
    words = (str(BENCH / "wake" / "run.py"), "--tiers", "frozen", "--sizes", "5m", "--rounds", "50")
    assert interrupted(scratch, *words, when=lambda: list(scratch.glob(f"*/*/{made}"))) != 0
    assert engines(scratch) == []


@pytest.mark.nightly
def test_gpu(scratch: Path, freezes: None) -> None:
    words = (str(BENCH / "gpu" / "run.py"), "--gigabytes", "0.05", "--ways", "cold", "--rounds", "50")
    parked = lambda: "cold: park" in (scratch / "out").read_text()  # noqa: E731
    assert interrupted(scratch, *words, when=parked, PYTHONPATH=str(FAKE_GPU)) != 0
    assert engines(scratch) == []


def test_gateway(scratch: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    programs = scratch / "bin"
    programs.mkdir()
    (programs / "wrk").write_text('#!/bin/sh\ntouch "$TMPDIR/loaded"\nexec sleep 600\n')
    (programs / "wrk").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    words = (str(BENCH / "gateway" / "run.py"), "--only", "poorwill")
    assert interrupted(scratch, *words, when=(scratch / "loaded").exists, PATH=path) != 0
    assert engines(scratch) == []


FLEET = """\
[fleet]
on_exit = "leave"
[models.toy]
engine = "toy"
"""


@pytest.mark.parametrize("seconds", ["0.1", "60"], ids=["between levels", "within a level"])
def test_poorwill_bench(scratch: Path, seconds: str) -> None:
    (scratch / "fleet.toml").write_text(FLEET)
    words = ("-m", "poorwill", "bench", "--fleet", str(scratch), "--seconds", seconds)
    ready = lambda: "ready" in "".join(log.read_text() for log in scratch.glob("logs/*"))  # noqa: E731
    assert interrupted(scratch, *words, when=ready) == 130
    assert engines(scratch) == []
