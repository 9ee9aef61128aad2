"""Programs that the tests of clients and proxies need: made once for this user, shared by all runs.

Debian's packages are unpacked into a directory, never installed, so no service starts and nothing outside the
cache changes. What cannot be had skips the test and says why.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "poorwill" / "clients"
UV = "uv>=0.13,<0.14"
"""Resolves a client's dependencies in seconds; pip takes minutes for some."""
LIMIT_S = 600


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the directory that `make` fills, made now if it is missing; one maker at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    there = CACHE / name
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not there.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                make(made)
                made.rename(there)
    return there


def _named(kind: str, wanted: tuple[str, ...]) -> str:
    short = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:8]
    return f"{kind}-{wanted[0].partition('==')[0].replace('/', '-').strip('@')}-{short}"


def call(line: list[str], *, cwd: Path | None = None) -> None:
    """Run a command that gets something; skips the test with what it said if it cannot."""
    try:
        done = subprocess.run(
            line, cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL
        )
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        pytest.skip(f"{line[0]} cannot run: {error}")
    if done.returncode:
        pytest.skip(f"{' '.join(line[:4])}: {done.stderr.strip()[-300:]}")


def debian(package: str) -> Path:
    """Return a directory with Debian's package in it, and the libraries that this machine lacks for it."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip(f"{package} is unpacked from Debian's package, which needs apt-get and root")

    def make(made: Path) -> None:
        debs = made / "debs"
        (debs / "partial").mkdir(parents=True)
        line = ["apt-get", "-o", f"Dir::Cache::archives={debs}", "-o", "DPkg::Lock::Timeout=300", "-y", "-q"]
        line += ["install", "--download-only", "--reinstall", "--no-install-recommends", package]
        if subprocess.run(line, capture_output=True, timeout=LIMIT_S).returncode:
            call(["apt-get", "update", "-q"])
            call(line)
        for deb in debs.glob("*.deb"):
            call(["dpkg-deb", "--extract", str(deb), str(made)])

    return kept(f"debian-{package}", make)


def python_venv(*wanted: str) -> Path:
    """Return a virtual environment with these packages of PyPI."""

    def make_uv(made: Path) -> None:
        call([sys.executable, "-m", "pip", "install", "-qq", "--target", str(made), UV])

    def make(made: Path) -> None:
        uv = str(kept("uv", make_uv) / "bin" / "uv")
        call([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, str(made)])
        call([uv, "pip", "install", "-q", "--python", str(made / "bin" / "python"), *wanted])

    return kept(_named("python", wanted), make)


def node_modules(*wanted: str) -> Path:
    """Return a directory whose `node_modules` has these packages of npm."""

    def make(made: Path) -> None:
        line = ["npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps", "--prefix", str(made)]
        call([*line, *wanted])

    return kept(_named("node", wanted), make)
