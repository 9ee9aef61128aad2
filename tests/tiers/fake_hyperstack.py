"""A fake of Hyperstack's API: a real HTTP server with the documented states, failures and bill.

Written from the documentation (remote/clouds/hyperstack.py names the pages), never compared with
the real API. What stands for a machine is one local process, its engine, which lives only while the machine
is ACTIVE. By hand:

    python tests/tiers/fake_hyperstack.py --port 9100 --key K --restore-s 8 --hibernate-s 5 \\
        --machine 12345 -- python -m poorwill.engines.programs.toy_server --model big --port 9101
"""

# A program of its own where it is run by hand.
# ruff: noqa: T201, TID251

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ON_THE_WAY = {
    "hibernate": ("ACTIVE", "HIBERNATING", "HIBERNATED"),
    "hibernate-restore": ("HIBERNATED", "RESTORING", "ACTIVE"),
    "start": ("SHUTOFF", "STARTING", "ACTIVE"),
    "stop": ("ACTIVE", "STOPPING", "SHUTOFF"),
    "hard-reboot": ("ACTIVE", "REBOOTING", "ACTIVE"),
}
"""For each verb: the state it needs, the one on the way, and the one it leads to."""

BILLED_IN_FULL = ("ACTIVE", "SHUTOFF")


@dataclass
class Mistake:
    """An answer other than the right one, for one request."""

    status: int
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False
    """The request was carried out all the same: its answer was lost on the way."""
    silent: bool = False
    """No answer at all: the connection is closed."""
    lost: bool = False
    """The request is taken on, and nothing comes of it."""
    text: str = ""
    """In place of JSON."""
    verb: str | None = None
    """Only for this verb; `state` for a look."""


@dataclass
class Machine:
    """One rented machine."""

    id: str
    engine: Sequence[str]
    status: str = "HIBERNATED"
    process: "subprocess.Popen[bytes] | None" = None
    mistakes: deque[Mistake] = field(default_factory=deque)
    leads_to: dict[str, str] = field(default_factory=dict)
    """Where a verb ends up instead, once for each entry, and only after its way there was looked at."""
    turning: str = ""
    """The state that the next look ends in: see `leads_to`."""
    boots_dead: int = 0
    """So many of the next boots do not start the engine."""
    asked: list[str] = field(default_factory=list)
    looks: int = 0
    """How often its state was asked for."""
    kept_address: bool = True
    deleted: bool = False
    since: float = field(default_factory=time.monotonic)
    billed_s: float = 0.0

    @property
    def engine_runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end_engine(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class FakeHyperstack:
    """The cloud. `hibernate_s` and `restore_s` are how long a machine is on its way."""

    key: str = "fake-key"
    hibernate_s: float = 0.01
    restore_s: float = 0.01
    log: str | None = None
    full: bool = False
    """No machine is free: whoever is to be restored stays hibernated."""
    machines: dict[str, Machine] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    timers: list[threading.Timer] = field(default_factory=list)
    closed: bool = False
    server: ThreadingHTTPServer | None = None
    thread: threading.Thread | None = None

    def open(self, port: int = 0) -> str:
        """Serve; return the base URL of the API."""
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cloud.answer(self)

            def do_POST(self) -> None:
                cloud.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def close(self) -> None:
        """Stop serving, and end every engine."""
        with self.lock:
            self.closed = True
        for timer in self.timers:
            timer.cancel()
            timer.join()
        if self.server is not None and self.thread is not None:
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()
        for machine in self.machines.values():
            machine.end_engine()

    def add(self, id: str, engine: Sequence[str], status: str = "HIBERNATED") -> Machine:
        """Rent a machine."""
        with self.lock:
            machine = self.machines[id] = Machine(id=id, engine=engine)
            self.become(machine, status)
            return machine

    def named(self, id: str) -> str:
        """Return the id that the real client knows a machine by."""
        return id

    def put(self, id: str, status: str) -> None:
        """Change a machine as its owner would at the console, in no time."""
        with self.lock:
            self.become(self.machines[id], status)

    def bill_s(self, id: str) -> float:
        """Return the seconds for which a machine was billed in full up to now."""
        with self.lock:
            self._meter(self.machines[id])
            return self.machines[id].billed_s

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request as documented, or as the machine's next mistake says."""
        status, body, headers = self.decide(request)
        if status == 0:
            request.close_connection = True
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            request.send_header(name, value)
        with suppress(ConnectionError):  # whoever asked may be gone
            request.end_headers()
            request.wfile.write(data)

    def decide(self, request: BaseHTTPRequestHandler) -> tuple[int, object, dict[str, str]]:
        """Return status, body and headers of the answer to a request; status 0 is none."""
        url = urlsplit(request.path)
        if request.command != "GET":
            return 405, _error("Method Not Allowed", ""), {}
        return self._answer(url.path, url.query, request.headers.get("api_key"))

    def _answer(self, path: str, query: str, key: str | None) -> tuple[int, object, dict[str, str]]:
        words = path.strip("/").split("/")
        if words[:3] != ["v1", "core", "virtual-machines"] or not 4 <= len(words) <= 5:
            return 404, _error("no such path", "not_found"), {}
        if key != self.key:
            return 401, _error("Unauthorized", "unauthorized"), {}
        with self.lock:
            machine = self.machines.get(words[3])
            if machine is None or machine.deleted:
                return 404, _error("The VM does not exist", "not_found"), {}
            verb = words[4] if len(words) == 5 else "state"
            machine.looks += verb == "state"
            mistake = self._mistake(machine, verb)
            if mistake is not None and mistake.lost:
                machine.asked.append(verb)
                return 200, {"status": True, "message": "accepted"}, {}
            if mistake is not None and not mistake.done:
                status = 0 if mistake.silent else mistake.status
                return status, mistake.text or _error(mistake.message, ""), mistake.headers
            status, body = self.carry_out(machine, verb, parse_qs(query))
            if mistake is not None:
                status, body = 0 if mistake.silent else mistake.status, _error(mistake.message, "")
            return status, body, {}

    def _mistake(self, machine: Machine, verb: str) -> Mistake | None:
        if machine.mistakes and machine.mistakes[0].verb in (None, verb):
            return machine.mistakes.popleft()
        return None

    def carry_out(
        self, machine: Machine, verb: str, query: dict[str, list[str]]
    ) -> tuple[int, dict[str, object]]:
        if verb == "state":
            id = int(machine.id) if machine.id.isdigit() else machine.id
            instance = {"id": id, "name": "fake", "status": machine.status}
            if machine.turning:
                machine.turning, end = "", machine.turning
                self.become(machine, end)
            return 200, {"status": True, "message": "", "instance": instance}
        machine.asked.append(verb)
        needs, way, end = ON_THE_WAY[verb]
        if machine.status != needs:
            text = f"Cannot {verb} a VM in state {machine.status}"
            return 400, _error(text, "bad_request")
        if verb == "hibernate":
            machine.kept_address = query.get("retain_ip") == ["true"]
        self.become(machine, way)
        takes_s = self.hibernate_s if verb == "hibernate" else self.restore_s
        if verb in machine.leads_to:
            machine.turning = machine.leads_to.pop(verb)
            return 200, {"status": True, "message": f"{verb} accepted"}
        if self.full and verb == "hibernate-restore":
            end = "HIBERNATED"
        timer = threading.Timer(takes_s, self._arrive, (machine, way, end))
        timer.daemon = True
        self.timers.append(timer)
        timer.start()
        return 200, {"status": True, "message": f"{verb} accepted"}

    def _arrive(self, machine: Machine, way: str, end: str) -> None:
        with self.lock:
            if machine.status == way and not self.closed:
                self.become(machine, end)

    def become(self, machine: Machine, status: str) -> None:
        """Have a machine in a state, with its engine and its bill."""
        self._meter(machine)
        machine.status = status
        if status != "ACTIVE":
            machine.end_engine()
        elif machine.boots_dead:
            machine.boots_dead -= 1
        elif not machine.engine_runs:
            self.boot(machine)

    def boot(self, machine: Machine) -> None:
        if self.log is None:
            machine.process = subprocess.Popen(machine.engine, stdin=subprocess.DEVNULL)
            return
        with open(self.log, "ab") as log:
            machine.process = subprocess.Popen(
                machine.engine, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _meter(self, machine: Machine) -> None:
        now = time.monotonic()
        if machine.status in BILLED_IN_FULL:
            machine.billed_s += now - machine.since
        machine.since = now


def _error(message: str, reason: str) -> dict[str, object]:
    return {"status": False, "message": message, "error_reason": reason}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="fake-key")
    parser.add_argument("--machine", default="12345")
    parser.add_argument("--status", default="HIBERNATED")
    parser.add_argument("--hibernate-s", type=float, default=2.0)
    parser.add_argument("--restore-s", type=float, default=3.0)
    parser.add_argument("engine", nargs="+", help="what the machine runs when it boots")
    options = parser.parse_args(argv)
    cloud = FakeHyperstack(key=options.key, hibernate_s=options.hibernate_s, restore_s=options.restore_s)
    machine = cloud.add(options.machine, options.engine, options.status)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    print(f"fake hyperstack: {cloud.open(options.port)}", flush=True)
    try:
        told = ""
        while not over.wait(0.05):
            if machine.status != told:
                told = machine.status
                print(f"{machine.id} {told}", flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        print(f"billed in full: {cloud.bill_s(machine.id):.1f} s", flush=True)
        cloud.close()


if __name__ == "__main__":
    main(sys.argv[1:])
