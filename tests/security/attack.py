"""A running `poorwill serve` as an attacker sees it: raw sockets, and the process's memory from outside."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOY = """
[gateway]
{gateway}

[models.toy]
engine = "toy"
ladder = ["cold"]
options = {{ {options} }}
policy = {{ name = "fixed", idle_s = 600 }}
{model}
"""
MB = 2**20


@dataclass(slots=True)
class Target:
    """What is attacked."""

    directory: Path
    child: subprocess.Popen[str]
    port: int
    admin_port: int

    def connect(self, *, timeout: float = 20, admin: bool = False) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.admin_port if admin else self.port), timeout)

    def get(self, path: str = "/healthz", *headers: str, admin: bool = False) -> bytes:
        """Ask on a connection of its own; return everything that comes back."""
        lines = [f"GET {path} HTTP/1.1", "host: localhost", "connection: close", *headers]
        with self.connect(admin=admin) as client:
            client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            return received(client)

    def chat(self, key: str = "", *headers: str, **fields: Any) -> bytes:
        """Ask for a chat completion; return everything that comes back."""
        with self.connect() as client:
            client.sendall(chat(key, "connection: close", *headers, **fields))
            return received(client)

    def status(self) -> dict[str, Any]:
        """Return the toy replica's status."""
        document = json.loads(self.get("/status", admin=True).partition(b"\r\n\r\n")[2])
        replica: dict[str, Any] = document["replicas"][0]
        return replica

    def memory_mb(self) -> int:
        """Return the process's resident memory."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) // 1024

    def keys(self, *words: str) -> str:
        """Run `poorwill keys`; return what it prints."""
        return poorwill("keys", *words, "--fleet", str(self.directory))


def poorwill(*words: str) -> str:
    """Run a verb; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "poorwill", *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@contextmanager
def target(
    directory: Path,
    *,
    keys: Sequence[str] = (),
    gateway: str = "",
    options: str = "load_seconds = 0.05",
    model: str = "",
    descriptors: str = "",
) -> Iterator[tuple[Target, dict[str, str]]]:
    """Serve a fleet with one toy model; yields it and its keys' secrets by name."""
    (directory / "fleet.toml").write_text(TOY.format(gateway=gateway, options=options, model=model))
    secrets = {name: poorwill("keys", "add", name, "--fleet", str(directory)).split()[0] for name in keys}
    limits = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
    command = [*limits, sys.executable, "-m", "poorwill", "serve", str(directory), "--port", "0"]
    with (directory / "serve.log").open("w") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.match(r"serving http://[\d.]+:(\d+) \(admin http://[\d.]+:(\d+)\)", line)
        assert found, f"{line!r}; {(directory / 'serve.log').read_text()}"
        yield Target(directory, child, int(found[1]), int(found[2])), secrets
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)
        assert child.stdout is not None
        child.stdout.close()


def chat(key: str = "", *headers: str, **fields: Any) -> bytes:
    """Return a request for a chat completion."""
    body = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    return post(body, *([f"authorization: Bearer {key}"] if key else []), *headers)


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """Return a request with a body; its length may be a lie."""
    size = len(body) if length is None else length
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"content-length: {size}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def received(client: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def code(answer: bytes) -> str:
    """Return the error code of an answer."""
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"])


def send_all_it_takes(client: socket.socket, data: bytes, *, most: int, quiet_s: float = 1.0) -> int:
    """Send the same data over and over until nobody reads any more; return how much was taken."""
    client.settimeout(quiet_s)
    taken = 0
    try:
        while taken < most:
            taken += client.send(data)
    except TimeoutError:
        pass
    return taken


def as_nobody(script: str, *words: str) -> str:
    """Run a script as another user of this machine; return what it prints. Needs root."""
    become = "import os, socket, sys; os.setgid(65534); os.setuid(65534)"
    command = [sys.executable, "-I", "-S", "-c", f"{become}\n{script}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return done.stdout


IS_ROOT = os.geteuid() == 0
