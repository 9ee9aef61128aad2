"""Scaleway's Instances API, as far as a machine is parked and woken with it.

The routes, actions and states: the Instance API v1 and Scaleway's own SDK (scaleway/scaleway-sdk-go,
api/instance/v1 and scw/errors.go); what each state costs: Scaleway's docs, instances/reference-content/
instance-states and the billing FAQ. Read in November 2026. What follows from them:

- `poweroff` releases the hypervisor: *stopped* bills volumes and flexible addresses. That is how a machine is
  parked; its memory and its GPU's are not kept. Block volumes stay as they are, local ones are copied away.
- *stopped in place* (standby) keeps the hypervisor and is billed in full, for GPUs by the minute. It leads to
  *stopped* by way of *running* only (the transition table of Scaleway's own Terraform provider).
- *stopping* leads to either; it is taken for the better one, and the next look tells.
- Errors have a type: `out_of_stock` is a lack of hardware, `transient_state` a machine or volume on its way.
  With which status they come is not documented, so the type is believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from poorwill.remote.clouds.cloud import CloudAction, CloudBusy, MachineState, MachineStatus
from poorwill.remote.clouds.cloud_client import CloudClient

API = "https://api.scaleway.com"

STATES: Mapping[str, MachineState] = MappingProxyType(
    {
        "running": MachineState.RUNNING,
        "stopped in place": MachineState.OFF,
        "stopping": MachineState.PARKING,
        "stopped": MachineState.PARKED,
        "locked": MachineState.FAILED,
    }
)
"""Any other word (`starting`, and whatever may be added) is a machine on its way."""

ACTIONS: Mapping[CloudAction, str] = MappingProxyType(
    {
        CloudAction.HIBERNATE: "poweroff",
        CloudAction.RESTORE: "poweron",
        CloudAction.START: "poweron",
        CloudAction.REBOOT: "reboot",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaleway(CloudClient):
    """A client for one account. Implements the port `Cloud`; a machine's id is `ZONE/ID`."""

    api: str = API

    name = "scaleway"

    async def state(self, machine: str) -> MachineStatus:
        """Return what the machine does; see `Cloud.state`."""
        server = (await self._server("GET", machine)).get("server")
        return self._status(machine, server.get("state") if isinstance(server, dict) else None, STATES)

    async def ask(self, machine: str, verb: CloudAction) -> None:
        """Ask for a change; see `Cloud.ask`."""
        await self._server("POST", machine, "/action", {"action": ACTIONS[verb]})

    async def _server(
        self, method: str, machine: str, path: str = "", body: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        zone, _, server = machine.rpartition("/")
        path = f"/instance/v1/zones/{zone}/servers/{server}{path}"
        answer, found = await self._call(method, path, headers={"x-auth-token": self.key}, body=body)
        if answer.is_success:
            return found
        kind, message = str(found.get("type") or ""), str(found.get("message") or "")
        said = ": ".join(filter(None, (kind, message)))
        if kind == "transient_state":
            raise CloudBusy(f"{self.name} is still busy with machine {machine} ({said})")
        raise self._refusal(machine, answer, said, lacking=kind == "out_of_stock")
