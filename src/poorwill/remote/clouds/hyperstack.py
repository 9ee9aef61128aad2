"""Hyperstack's API (NexGen Cloud's Infrahub), as far as a machine is parked and woken with it.

Verbs, the key's header and the states: docs.hyperstack.cloud/docs/api-reference (virtual-machine, get-vm,
hibernate-vm, restore-vm-from-hibernation, errors, rate-limits), read in November 2026. What follows:

- The verbs are GET requests with side effects and have no idempotency key: a caller must look before it asks.
- `hibernate` needs ACTIVE and a flavor that can, `hibernate-restore` needs HIBERNATED, not HIBERNATING.
- HIBERNATED bills root disk and address, ACTIVE and SHUTOFF bill everything, states on the way and ERROR bill
  nothing (docs/billing/states-and-billing).
- 500 requests a minute from one address, then 429; no Retry-After is documented, one that comes is obeyed.
- How a lack of hardware is worded is documented nowhere; the words looked for here are a guess. Without them
  it is a refusal like any other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from poorwill.remote.clouds.cloud import CloudAction, MachineGone, MachineState, MachineStatus
from poorwill.remote.clouds.cloud_client import CloudClient

API = "https://infrahub-api.nexgencloud.com/v1"

STATES: Mapping[str, MachineState] = MappingProxyType(
    {
        "ACTIVE": MachineState.RUNNING,
        "SHUTOFF": MachineState.OFF,
        "HIBERNATING": MachineState.PARKING,
        "HIBERNATED": MachineState.PARKED,
        "ERROR": MachineState.FAILED,
    }
)
"""Any other word (CREATING, BUILD, RESTORING and whatever may be added) is a machine on its way."""

GONE = frozenset({"DELETING", "DELETED"})

PATHS: Mapping[CloudAction, str] = MappingProxyType(
    {
        CloudAction.HIBERNATE: "hibernate",
        CloudAction.RESTORE: "hibernate-restore",
        CloudAction.START: "start",
        CloudAction.REBOOT: "hard-reboot",
    }
)

_LACKING = re.compile(
    r"capacity|out of stock|no (valid |available )?host|not enough (gpu|resource)|"
    r"(gpu|resource|stock)s? (is |are )?(not available|unavailable)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperstack(CloudClient):
    """A client for one account. Implements the port `Cloud`."""

    api: str = API

    name = "hyperstack"

    async def state(self, machine: str) -> MachineStatus:
        """Return what the machine does; see `Cloud.state`."""
        instance = (await self._get(machine)).get("instance")
        word = str(instance.get("status") or "").upper() if isinstance(instance, dict) else ""
        if word in GONE:
            raise MachineGone(f"machine {machine} is gone: {self.name} says {word}")
        return self._status(machine, word, STATES)

    async def ask(self, machine: str, verb: CloudAction) -> None:
        """Ask for a change; see `Cloud.ask`. A machine keeps its public address while it is hibernated."""
        params = {"retain_ip": "true"} if verb is CloudAction.HIBERNATE else {}
        await self._get(machine, f"/{PATHS[verb]}", params)

    async def _get(
        self, machine: str, path: str = "", params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        path = f"/core/virtual-machines/{machine}{path}"
        answer, body = await self._call("GET", path, headers={"api_key": self.key}, params=params)
        if answer.status_code != 200 or body.get("status") is False:
            message = str(body.get("message") or "")
            raise self._refusal(machine, answer, message, lacking=bool(_LACKING.search(message)))
        return body
