"""The soak of bench/soak, shortly: real engines, CRIU and faults; and ctrl-C of it leaves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_interrupted import BENCH, engines, freezes, interrupted, scratch

__all__ = ("freezes", "scratch")  # fixtures

RUN = str(BENCH / "soak" / "run.py")


def soaked(scratch: Path, *options: str, within_s: float) -> dict[str, dict[str, object]]:
    """Soak to the end; return what it says last, by kind."""
    done = subprocess.run(
        [sys.executable, RUN, "--directory", str(scratch), *options],
        capture_output=True,
        text=True,
        timeout=within_s,
        env={**os.environ, "TMPDIR": str(scratch)},  # noqa: TID251
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert engines(scratch) == [] and not list(scratch.glob("soak-*"))
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["kind"]: line for line in lines}


@pytest.mark.nightly
def test_a_short_soak(scratch: Path, freezes: None) -> None:
    said = soaked(scratch, "--minutes", "0.25", "--seed", "4", "--every-s", "0.5", within_s=240)
    assert int(str(said["answers"]["right"])) > 0 and int(str(said["wakes"].get("frozen", 0))) > 0


@pytest.mark.nightly
def test_a_soak_of_an_hour(scratch: Path, freezes: None) -> None:
    said = soaked(scratch, "--minutes", "60", within_s=2 * 3600)
    assert int(str(said["wakes"]["frozen"])) > 500


@pytest.mark.nightly
def test_an_interrupted_soak_leaves_nothing(scratch: Path, freezes: None) -> None:
    words = ("--directory", str(scratch), "--minutes", "10")
    assert (
        interrupted(
            scratch, RUN, *words, when=lambda: list(scratch.glob("soak-*/fleet/snapshots/*/*/[0-9]*"))
        )
        == 130
    )
    assert engines(scratch) == [] and not list(scratch.glob("soak-*"))
    assert str(scratch) not in Path("/proc/mounts").read_text()
