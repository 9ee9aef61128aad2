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
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from poorwill.hosts.rented.cloud import CloudAction, CloudBusy, MachineGone, MachineState, MachineStatus
from poorwill.hosts.rented.cloud_http import call, refusal

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
class Hyperstack:
    """A client for one account. Implements the port `Cloud`; each request has a connection of its own."""

    key: str = field(repr=False)
    api: str = API
    answer_limit_s: float = 20.0

    @property
    def name(self) -> str:
        """The cloud's name."""
        return "hyperstack"

    async def state(self, machine: str) -> MachineStatus:
        """Return what the machine does; see `Cloud.state`."""
        body = await self._get(machine)
        instance = body.get("instance")
        word = instance.get("status") if isinstance(instance, dict) else None
        if not isinstance(word, str) or not word:
            raise CloudBusy(f"{self.name} does not say what machine {machine} does")
        word = word.upper()
        if word in GONE:
            raise MachineGone(f"machine {machine} is gone: {self.name} says {word}")
        return MachineStatus(state=STATES.get(word, MachineState.MOVING), word=word)

    async def ask(self, machine: str, verb: CloudAction) -> None:
        """Ask for a change; see `Cloud.ask`. A machine keeps its public address while it is hibernated."""
        params = {"retain_ip": "true"} if verb is CloudAction.HIBERNATE else {}
        await self._get(machine, f"/{PATHS[verb]}", params)

    async def _get(
        self, machine: str, path: str = "", params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        url = f"{self.api.rstrip('/')}/core/virtual-machines/{machine}{path}"
        answer, body = await call(
            self.name,
            "GET",
            url,
            headers={"api_key": self.key},
            params=params,
            limit_s=self.answer_limit_s,
        )
        if answer.status_code != 200 or body.get("status") is False:
            message = str(body.get("message") or "")
            raise refusal(self.name, machine, answer, message, lacking=_lacking)
        return body


def _lacking(message: str) -> bool:
    return _LACKING.search(message) is not None
