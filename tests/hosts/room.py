"""A real fleet on this machine: Ray's head, hosts and `poorwill serve`, each a program that may die.

Each host has its own directory, ports and raylet; with `cut_off`, a network of its own as well.
"""

# The test run is its own edge.
# ruff: noqa: TID251

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx2
from tests.e2e.program import Program, marked_processes

from poorwill.hosts.processes import procfs
from poorwill.remote.ray.node import MARK
from poorwill.tiers.proof import free_port

FLEET = """\
[gateway]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"

[hosts]
head = "{head}"
relays = {{ {relays} }}

[models.toy]
engine = "toy"
hosts = [{hosts}]
max_concurrency = 4
{model}

[models.slow]
engine = "toy"
hosts = [{hosts}]
options = {{ prefill_seconds = 4.0 }}
policy = {{ name = "fixed", idle_s = 300 }}
replicas = 2
max_concurrency = 4

[[rates]]
active_usd_h = "3.60"
{more}
"""
LOOK_S = 0.05
T = TypeVar("T")


@dataclass
class Network:
    """A bridge of this machine, and hosts behind cables of their own. Needs root."""

    name: str = field(default_factory=lambda: f"pw{secrets.token_hex(3)}")
    subnet: str = field(default_factory=lambda: f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}")
    hosts: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return f"{self.subnet}.1"

    def open(self) -> None:
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.head}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def join(self, host: str) -> str:
        """Give a host a network of its own; return its address."""
        space, cable = self.space(host), self._cable(host)
        self.hosts.append(host)
        address = f"{self.subnet}.{10 + len(self.hosts)}"
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", self.name, "up")
        for command in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            _ip("-n", space, *command)
        _ip("-n", space, "link", "set", "lo", "up")
        return address

    def space(self, host: str) -> str:
        return f"{self.name}-{host}"

    def _cable(self, host: str) -> str:
        return f"{self.name}{host}"

    def cut(self, host: str) -> None:
        """Pull the cable: nothing gets through, and nobody is told."""
        _ip("link", "set", self._cable(host), "nomaster")

    def mend(self, host: str) -> None:
        _ip("link", "set", self._cable(host), "master", self.name)

    def close(self) -> None:
        for host in self.hosts:
            _ip("netns", "del", self.space(host))
        _ip("link", "del", self.name)


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True)


@dataclass
class Room:
    """The fleet's programs."""

    directory: Path
    network: Network | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    """Of each host's relay."""
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """The head and the services of the hosts, by name."""
    head_at: str = ""
    serve: Program | None = None

    @property
    def fleet(self) -> Path:
        return self.directory / "fleet"

    @property
    def program(self) -> Program:
        assert self.serve is not None
        return self.serve

    def write(self, *hosts: str, model: str = "", more: str = "") -> None:
        """Give everything its place, and write the configuration."""
        self.fleet.mkdir()
        if self.network is not None:
            self.network.open()
        self.head_at = f"{self.network.head if self.network else '127.0.0.1'}:{head_port()}"
        for host in hosts:
            (self.directory / host).mkdir()
            address = self.network.join(host) if self.network else "127.0.0.1"
            self.addresses[host] = f"{address}:{free_port()}"
        text = FLEET.format(
            head=self.head_at,
            relays=", ".join(f'{host} = "{at}"' for host, at in self.addresses.items()),
            hosts=", ".join(f'"{host}"' for host in hosts),
            model=model,
            more=more,
        )
        (self.fleet / "fleet.toml").write_text(text)

    def start_head(self, **env: str) -> None:
        """Start Ray's head."""
        self._start("head", "--head", self.head_at, "--directory", str(self.fleet), **env)

    def start_host(self, host: str) -> None:
        """Start the service of a host."""
        line = ["--join", self.head_at, "--name", host, "--relay", self.addresses[host]]
        self._start(host, *line, "--directory", str(self.directory / host))

    def _start(self, name: str, *options: str, **env: str) -> None:
        inside = self.network is not None and name in self.addresses
        space = ["ip", "netns", "exec", self.network.space(name)] if inside and self.network else []
        line = [*space, sys.executable, "-m", "poorwill", "host", *options, "--key", str(self.key)]
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **env})
        self.children[name] = child
        assert child.stdout is not None
        said = child.stdout.readline()
        assert said, (self.directory / f"{name}.log").read_text()

    @property
    def key(self) -> Path:
        return self.fleet / "hosts.pem"

    def start_serve(self) -> Program:
        self.serve = Program.start(self.fleet)
        return self.serve

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill the head's keeper or a host's service, not what it has started."""
        child = self.children.pop(name)
        child.send_signal(number)
        child.wait(30)
        assert child.stdout is not None
        child.stdout.close()

    def of_ray(self, name: str, *words: str) -> list[int]:
        """The processes of Ray's that the head or a host has started whose command line has these words."""
        mark = f"head {self.key}" if name == "head" else str(self.directory / name)
        return [
            stat.pid
            for stat in procfs.all_processes()
            if stat.state not in "ZX"
            and procfs.variable(stat.pid, MARK) == mark.encode()
            and all(word in _command(stat.pid) for word in words)
        ]

    def engines(self, host: str) -> list[int]:
        return marked_processes(self.directory / host)

    def where(self, *, within_s: float = 30.0) -> str:
        """The host on which the one engine runs."""
        return slowly(lambda: next((h for h in self.addresses if self.engines(h)), ""), within_s=within_s)

    def metrics(self) -> str:
        return httpx2.get(f"http://{self.program.admin}/metrics", timeout=10).text

    def close(self) -> None:
        """End everything that was started, dead or alive."""
        if self.serve is not None and self.serve.child.poll() is None:
            self.serve.kill()
        for name in list(self.children):
            self.kill(name, signal.SIGTERM)
        for name in ["head", *self.addresses]:
            left = self.of_ray(name) if name == "head" else [*self.of_ray(name), *self.engines(name)]
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.network is not None:
            self.network.close()


def head_port() -> int:
    """A free port among those that Ray by itself keeps for workers: a head may have one as well."""
    for port in range(10_002 + secrets.randbelow(9_000), 20_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def slowly(condition: Callable[[], T], *, within_s: float = 30.0) -> T:
    """Return the first true value of a condition that takes long to look at."""
    ends, never = time.monotonic() + within_s, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < ends, f"nothing true within {within_s} s"
        never.wait(LOOK_S)
    return value


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@contextmanager
def a_room(
    directory: Path, *hosts: str, cut_off: bool = False, model: str = "", more: str = ""
) -> Iterator[Room]:
    """Start a head and hosts; end all of it afterwards."""
    room = Room(directory=directory, network=Network() if cut_off else None)
    room.write(*hosts, model=model, more=more)
    try:
        room.start_head()
        for host in hosts:
            room.start_host(host)
        yield room
    finally:
        room.close()
