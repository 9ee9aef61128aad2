"""A fake on top of moto's EC2: moto answers, and what it leaves out is added on the way.

moto (getmoto/moto, in server mode) knows EC2's requests, answers, errors and addresses, and is not poorwill's
work. Its instances stop and start in no time, never run out of hardware and are never throttled: for these
the other fake's machines stand in front of it. By hand, with an engine that runs while the instance does:

    python tests/tiers/fake_aws.py --port 9100 --start-s 8 --stop-s 5 \\
        -- python -m poorwill.engines.programs.toy_server --model big --port 9101
"""

# A program of its own where it is run by hand.
# ruff: noqa: T201, TID251

import argparse
import functools
import http.client
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs

if __name__ == "__main__":
    from fake_hyperstack import FakeHyperstack, Machine
else:
    from .fake_hyperstack import FakeHyperstack, Machine

REGION = "eu-central-1"

WORDS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "ACTIVE": (16, "running"),
        "REBOOTING": (16, "running"),
        "HIBERNATING": (64, "stopping"),
        "STOPPING": (64, "stopping"),
        "HIBERNATED": (80, "stopped"),
        "RESTORING": (0, "pending"),
        "DELETED": (48, "terminated"),
    }
)
VERBS: Mapping[str, str] = MappingProxyType(
    {
        "DescribeInstances": "state",
        "StopInstances": "hibernate",
        "StartInstances": "hibernate-restore",
        "RebootInstances": "hard-reboot",
    }
)
CODES: Mapping[int, str] = MappingProxyType(
    {400: "IncorrectInstanceState", 401: "AuthFailure", 429: "RequestLimitExceeded", 500: "InternalError"}
)
_STATE = re.compile(r"<instanceState>.*?</instanceState>", re.DOTALL)
_REASON = re.compile(r"<stateReason>.*?</stateReason>", re.DOTALL)
_PUBLIC = re.compile(r"<ipAddress>.*?</ipAddress>")
_CREDENTIAL = re.compile(r"Credential=([^/]+)/")


@functools.cache
def moto() -> tuple[tuple[str, int], Any]:
    """Start moto's server, once for the whole run; return its address and a client of it."""
    import boto3

    os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a second less
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    session = boto3.session.Session(aws_access_key_id="owner", aws_secret_access_key="owner")
    return (host, port), session.client("ec2", region_name=REGION, endpoint_url=f"http://{host}:{port}")


@dataclass
class FakeAws(FakeHyperstack):
    """The cloud. A machine's owner, who is not poorwill, has a client of moto's own."""

    shown_at: dict[str, str] = field(default_factory=dict)
    """The public address to tell of a machine instead of moto's, which nothing serves at."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why the cloud stopped a machine."""
    moto: tuple[str, int] = ("", 0)
    owner: Any = None

    def open(self, port: int = 0) -> str:
        """Serve, with moto behind; return the address of the API."""
        self.moto, self.owner = moto()
        return super().open(port).removesuffix("/v1")

    def add(self, id: str, engine: Sequence[str], status: str = "HIBERNATED") -> Machine:
        """Rent a machine; moto gives it its id."""
        with self.lock:
            launched = self.owner.run_instances(
                ImageId="ami-12345678", MinCount=1, MaxCount=1, InstanceType="g5.xlarge"
            )
            return super().add(launched["Instances"][0]["InstanceId"], engine, status)

    def named(self, id: str) -> str:
        """Return the id that the real client knows a machine by."""
        return f"{REGION}/{id}"

    def decide(self, request: BaseHTTPRequestHandler) -> tuple[int, object, dict[str, str]]:
        """Return status, body and headers of the answer to a request; status 0 is none."""
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        form = parse_qs(body.decode())
        id, verb = form.get("InstanceId.1", [""])[0], VERBS.get(form["Action"][0], "")
        if not verb or id not in self.machines:
            return self._moto(request, body)
        path = f"v1/core/virtual-machines/{id}{'' if verb == 'state' else f'/{verb}'}"
        key = _CREDENTIAL.search(request.headers.get("authorization") or "")
        with self.lock:
            before = self.machines[id].status
            status, found, headers = self._answer(path, "retain_ip=true", key[1] if key else None)
            if not isinstance(found, dict):
                return status, str(found).encode(), headers
            if status == 200 and found.get("status"):
                if verb != "state" and self.machines[id].status == before:
                    return 200, b"<Response><return>true</return></Response>", headers  # and nothing is done
                word = found["instance"]["status"] if verb == "state" else ""
                return self._on_top(id, word, self._moto(request, body))
            code, _, message = str(found.get("message")).rpartition("|")
            return status, _error(code or CODES.get(status, "Unavailable"), message), headers

    def _moto(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        asked = http.client.HTTPConnection(*self.moto, timeout=30)
        try:
            asked.request(request.command, request.path, body, dict(request.headers))
            answer = asked.getresponse()
            return answer.status, answer.read(), {"content-type": answer.headers["content-type"]}
        finally:
            asked.close()

    def _on_top(
        self, id: str, word: str, answer: tuple[int, bytes, dict[str, str]]
    ) -> tuple[int, bytes, dict[str, str]]:
        if not word:
            return answer
        code, name = WORDS[word]
        text = _STATE.sub(
            f"<instanceState><code>{code}</code><name>{name}</name></instanceState>", answer[1].decode()
        )
        if id in self.reasons:
            text = _REASON.sub(f"<stateReason><code>{self.reasons[id]}</code></stateReason>", text)
        if id in self.shown_at:
            text = _PUBLIC.sub(f"<ipAddress>{self.shown_at[id]}</ipAddress>", text)
        return answer[0], text.encode(), answer[2]

    def become(self, machine: Machine, status: str) -> None:
        before = machine.status
        super().become(machine, status)
        if status == "ACTIVE":
            self.reasons.pop(machine.id, None)
            self.owner.start_instances(InstanceIds=[machine.id])
        elif status == "HIBERNATED":
            if before == "RESTORING":  # it was on its way, and there is no hardware
                self.reasons[machine.id] = "Server.InsufficientInstanceCapacity"
            self.owner.stop_instances(InstanceIds=[machine.id])
        elif status == "DELETED":
            self.owner.terminate_instances(InstanceIds=[machine.id])


def _error(code: str, message: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code>'
        f"<Message>{message}</Message></Error></Errors><RequestID>fake</RequestID></Response>"
    ).encode()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="fake-key", help="the id of the access key that it takes")
    parser.add_argument("--status", default="HIBERNATED")
    parser.add_argument("--stop-s", type=float, default=2.0)
    parser.add_argument("--start-s", type=float, default=3.0)
    parser.add_argument("--public", help="the public address that it tells", default="127.0.0.1")
    parser.add_argument("engine", nargs="+", help="what the machine runs when it boots")
    options = parser.parse_args(argv)
    cloud = FakeAws(key=options.key, hibernate_s=options.stop_s, restore_s=options.start_s)
    over, full = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    signal.signal(signal.SIGUSR1, lambda *_: full.set())
    try:
        print(f"fake aws over moto: {cloud.open(options.port)} (SIGUSR1: no more hardware)", flush=True)
        machine = cloud.add("", options.engine, options.status)
        cloud.shown_at[machine.id] = options.public
        told = ""
        while not over.wait(0.05):
            cloud.full = full.is_set()
            if machine.status != told:
                told = machine.status
                print(f"{cloud.named(machine.id)} {WORDS[told][1]}", flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        cloud.close()


if __name__ == "__main__":
    main(sys.argv[1:])
