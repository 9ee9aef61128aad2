"""Whoever reads poorwill's output may stop reading: nothing waits for them."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from poorwill.core.settings import Address

from .program import marked_processes, write_fleet


def stopped_terminal() -> tuple[int, int]:
    """Return a terminal in which somebody has pressed Ctrl-S."""
    ours, theirs = pty.openpty()
    os.write(ours, b"\x13")
    return ours, theirs


def unread_pipe() -> tuple[int, int]:
    """Return a pipe that is full and that nobody reads."""
    ours, theirs = os.pipe()
    size = fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    os.write(theirs, b"x" * size)
    return ours, theirs


def free_address() -> Address:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return Address(*bound.getsockname())


@pytest.mark.parametrize("output", [stopped_terminal, unread_pipe])
def test_stalled_output_stops_nothing(fleet: Path, output) -> None:
    gateway, admin = free_address(), free_address()
    ours, theirs = output()
    write_fleet(fleet, on_exit="stop")
    words = ["serve", str(fleet), "--port", str(gateway.port), "--admin-port", str(admin.port)]
    child = subprocess.Popen(
        [sys.executable, "-m", "poorwill", *words], stdin=theirs, stdout=theirs, stderr=theirs
    )
    try:
        transport = httpx2.HTTPTransport(retries=200)  # until it listens
        with httpx2.Client(timeout=60, transport=transport) as client:
            for _ in range(3):
                body = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
                assert client.post(f"http://{gateway}/v1/chat/completions", json=body).status_code == 200
                assert client.post(f"http://{admin}/models/toy/park").status_code == 200
            assert client.get(f"http://{admin}/healthz").status_code == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        assert marked_processes(fleet) == []
    finally:
        child.kill()
        os.close(ours)
        os.close(theirs)
