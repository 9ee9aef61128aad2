"""A fake of Scaleway's Instances API: the other fake's machines under Scaleway's routes, words and errors.

Written from the documentation and the SDK that remote/clouds/scaleway.py names, not compared with the API.
"""

import json
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType

from .fake_hyperstack import FakeHyperstack

ZONE = "fr-par-2"

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "ACTIVE": "running",
        "SHUTOFF": "stopped in place",
        "HIBERNATING": "stopping",
        "STOPPING": "stopping",
        "HIBERNATED": "stopped",
        "RESTORING": "starting",
        "STARTING": "starting",
        "REBOOTING": "starting",
        "ERROR": "locked",
    }
)
TYPES: Mapping[int, str] = MappingProxyType(
    {
        401: "denied_authentication",
        403: "permissions_denied",
        404: "not_found",
        400: "transient_state",
    }
)
_PATH = re.compile(rf"/instance/v1/zones/{ZONE}/servers/(\d+)(/action)?")


class FakeScaleway(FakeHyperstack):
    """The cloud."""

    def open(self, port: int = 0) -> str:
        """Serve; return the base URL of the API."""
        return super().open(port).removesuffix("/v1")

    def named(self, id: str) -> str:
        """Return the id that the real client knows a machine by."""
        return f"{ZONE}/{id}"

    def decide(self, request: BaseHTTPRequestHandler) -> tuple[int, object, dict[str, str]]:
        """Return status, body and headers of the answer to a request; status 0 is none."""
        found = _PATH.fullmatch(request.path)
        if found is None:
            return 404, {"type": "not_found", "message": "no such path"}, {}
        id, acts = found[1], bool(found[2])
        if acts != (request.command == "POST"):
            return 405, {"message": "method not allowed"}, {}
        path = f"v1/core/virtual-machines/{id}"
        if acts:
            length = int(request.headers.get("content-length") or 0)
            verb = self._verb(id, json.loads(request.rfile.read(length))["action"])
            if not verb:
                return 400, {"type": "invalid_arguments", "message": "no such action"}, {}
            path += f"/{verb}"
        key = request.headers.get("x-auth-token")
        status, body, headers = self._answer(path, "retain_ip=true", key)
        return self._in_its_words(id, status, body, headers, acts=acts)

    def _verb(self, id: str, action: str) -> str:
        machine = self.machines.get(id)
        on = "start" if machine is not None and machine.status == "SHUTOFF" else "hibernate-restore"
        return {"poweroff": "hibernate", "poweron": on, "reboot": "hard-reboot"}.get(action, "")

    def _in_its_words(
        self, id: str, status: int, body: object, headers: dict[str, str], *, acts: bool
    ) -> tuple[int, object, dict[str, str]]:
        if not isinstance(body, dict):
            return status, body, headers
        if status == 200 and body.get("status"):
            if acts:
                return 202, {"task": {"status": "pending", "progress": 0}}, headers
            return 200, {"server": {"id": id, "state": WORDS[body["instance"]["status"]]}}, headers
        kind, _, message = str(body.get("message")).rpartition("|")
        return status, {"type": kind or TYPES.get(status, ""), "message": message}, headers
