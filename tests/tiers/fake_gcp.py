"""A fake of Google's Compute Engine: the other fake's machines under its routes, words and operations.

Nobody keeps an emulator of this API. Written from the SDK's reference and the pages that
remote/clouds/gcp.py names, not compared with the API. It has one service account, whose key file the SDK
finds and signs with as it always does, and it checks that signature.
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import count
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

from .fake_hyperstack import FakeHyperstack, Machine

PROJECT, ZONE = "test-project", "europe-west4-a"
ACCOUNT = f"poorwill@{PROJECT}.iam.gserviceaccount.com"

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "ACTIVE": "RUNNING",
        "REBOOTING": "RUNNING",
        "HIBERNATING": "STOPPING",
        "STOPPING": "STOPPING",
        "HIBERNATED": "TERMINATED",
        "RESTORING": "STAGING",
        "ERROR": "SUSPENDED",
    }
)
VERBS: Mapping[str, str] = MappingProxyType(
    {"": "state", "/stop": "hibernate", "/start": "hibernate-restore", "/reset": "hard-reboot"}
)
REASONS: Mapping[int, str] = MappingProxyType(
    {400: "invalid", 401: "authError", 403: "forbidden", 404: "notFound", 429: "rateLimitExceeded"}
)
_ZONE = f"/compute/v1/projects/{PROJECT}/zones/{ZONE}"
_INSTANCE = re.compile(rf"{_ZONE}/instances/vm-(\d+)(/\w+)?")
_OPERATION = re.compile(rf"{_ZONE}/operations/(operation-\d+)")


@dataclass
class FakeGcp(FakeHyperstack):
    """The cloud."""

    shown_at: dict[str, str] = field(default_factory=dict)
    """The public address to tell of a machine."""
    operations: dict[str, str] = field(default_factory=dict)
    """Of each, the machine it is about."""
    failed: dict[str, str] = field(default_factory=dict)
    """The operations that came to nothing, and why."""
    pending: bool = False
    """Operations are taken on and stay PENDING."""
    discarded_ssd: bool = False
    numbers: "count[int]" = field(default_factory=count)

    def open(self, port: int = 0) -> str:
        """Serve; return the address of the API."""
        return super().open(port).removesuffix("/v1")

    def named(self, id: str) -> str:
        """Return the id that the real client knows a machine by."""
        return f"{PROJECT}/{ZONE}/vm-{id}"

    def decide(self, request: BaseHTTPRequestHandler) -> tuple[int, object, dict[str, str]]:
        """Return status, body and headers of the answer to a request; status 0 is none."""
        url = urlsplit(request.path)
        request.rfile.read(int(request.headers.get("content-length") or 0))
        json_type = {"content-type": "application/json"}
        key = self.key if signed((request.headers.get("authorization") or "").removeprefix("Bearer ")) else ""
        if (about := _OPERATION.fullmatch(url.path)) is not None:
            with self.lock:
                return *self._operation(about[1]), json_type
        found = _INSTANCE.fullmatch(url.path)
        verb = VERBS.get(found[2] or "") if found else None
        if found is None or verb is None:
            return 404, _error(404, "notFound", f"The resource '{url.path}' was not found"), json_type
        path = f"v1/core/virtual-machines/{found[1]}{'' if verb == 'state' else f'/{verb}'}"
        with self.lock:
            status, body, headers = self._answer(path, "retain_ip=true", key)
            if not isinstance(body, dict):
                return status, body, headers
            if status == 200 and body.get("status"):
                if verb == "hibernate":
                    self.discarded_ssd = parse_qs(url.query).get("discardLocalSsd") == ["true"]
                return 200, self._done(found[1], verb, body), json_type
            reason, _, message = str(body.get("message")).rpartition("|")
            reason = reason or REASONS.get(status, "backendError")
            return status, _error(status, reason, message), headers | json_type

    def _done(self, id: str, verb: str, body: Mapping[str, object]) -> object:
        if verb != "state":
            name = f"operation-{next(self.numbers)}"
            self.operations[name] = id
            return {"name": name, "status": "PENDING", "zone": ZONE, "operationType": verb}
        instance = body["instance"]
        assert isinstance(instance, dict)
        access = [{"natIP": self.shown_at[id]}] if id in self.shown_at else []
        interface = {"networkIP": "10.164.0.2", "accessConfigs": access}
        return {
            "id": id,
            "name": f"vm-{id}",
            "status": WORDS[instance["status"]],
            "networkInterfaces": [interface],
        }

    def _operation(self, name: str) -> tuple[int, object]:
        if name not in self.operations:
            return 404, _error(404, "notFound", f"The resource '{name}' was not found")
        machine = self.machines[self.operations[name]]
        under_way = machine.status in ("HIBERNATING", "RESTORING", "REBOOTING") and not machine.turning
        if self.pending or under_way:
            return 200, {"name": name, "status": "PENDING" if self.pending else "RUNNING"}
        why = self.failed.get(machine.id)
        done: dict[str, object] = {"name": name, "status": "DONE"}
        if why:
            code, _, message = why.partition("|")
            done |= {"error": {"errors": [{"code": code, "message": message}]}, "httpErrorStatusCode": 503}
        return 200, done

    def become(self, machine: Machine, status: str) -> None:
        if status == "ACTIVE":
            self.failed.pop(machine.id, None)
        elif status == "HIBERNATED" and machine.status == "RESTORING":
            self.failed[machine.id] = (
                f"ZONE_RESOURCE_POOL_EXHAUSTED|The zone '{ZONE}' does not have enough resources available"
            )
        super().become(machine, status)


def _error(status: int, reason: str, message: str) -> dict[str, object]:
    errors = [{"message": message, "domain": "global", "reason": reason}]
    return {"error": {"code": status, "message": message, "errors": errors}}


@functools.cache
def private_key(owner: str) -> rsa.RSAPrivateKey:
    """Return somebody's key, the same for the whole run: making one takes a while."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


def key_file(owner: str = ACCOUNT) -> str:
    """Return a key file as Google's console gives it out; of another owner, with a key that is not known."""
    pem = private_key(owner).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": pem,
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


def signed(token: str) -> bool:
    """Return whether the service account signed a token."""
    public = private_key(ACCOUNT).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        jwt.decode(token, certs=public)
    except (ValueError, GoogleAuthError):
        return False
    return True
