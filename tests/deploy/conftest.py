"""Fixtures: poorwill run as a user runs it, and a server to push to."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .server import Server, install_programs


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
