"""Fixtures: poorwill run as a user runs it, and a server to push to."""

import io
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from poorwill.main import run

from .server import Server, install_programs


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    status: int
    out: str
    err: str


Poorwill = Callable[..., Awaitable[Ran]]


@pytest.fixture
def poorwill() -> Poorwill:
    """Runs a command line in process, as `__main__` would."""

    async def run_line(*args: str, **env: str) -> Ran:
        stdout, stderr = io.StringIO(), io.StringIO()
        status = await run(args, env, io.StringIO(), stdout, stderr)
        return Ran(status=status, out=stdout.getvalue(), err=stderr.getvalue())

    return run_line


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is this machine: its home is a directory, its ssh and systemctl are in programs/."""
    home = tmp_path / "server"
    programs = tmp_path / "programs"
    for made in (home, programs):
        made.mkdir()
    install_programs(programs)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Server(home=home, programs=programs, port=port)
    yield server
    server.stop()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """What is pushed: a program that answers /healthz once it runs."""
    source = Path(__file__).parent / "programs" / "answering.py"
    made = tmp_path / "poorwill"
    shutil.copy(source, made)
    os.chmod(made, 0o755)
    return made
