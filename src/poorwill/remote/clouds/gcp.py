"""Google's Compute Engine through google-cloud-compute, as far as an instance is stopped and started with it.

Methods, states and operations: the SDK's own reference (InstancesClient, ZoneOperationsClient,
StopInstanceRequest, Instance.Status, Operation) and docs.cloud.google.com/compute/docs/instances
(instance-lifecycle, stop-start-instance, suspend-resume-instance). Read in November 2026. What follows:

- A park is a stop: `suspend` is believed to refuse machines with a GPU, and would bill their memory.
- A request makes an operation, and what goes wrong is mostly said there: ZONE_RESOURCE_POOL_EXHAUSTED for a
  lack of hardware, QUOTA_EXCEEDED. So after a request each look asks for its operation first.
- `discardLocalSsd` must be said for machines with local SSDs, which many GPU types have. They are discarded:
  to keep them is slow, limited, and billed.
- 403 is a missing permission, or a limit; its `reason` tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.remote.clouds.cloud import (
    CloudAction,
    CloudBusy,
    CloudRefused,
    MachineGone,
    MachineState,
    MachineStatus,
)
from poorwill.remote.clouds.sdk import BadCredentials, SdkCloud

STATES: Mapping[str, MachineState] = MappingProxyType(
    {
        "RUNNING": MachineState.RUNNING,
        "PENDING_STOP": MachineState.PARKING,
        "STOPPING": MachineState.PARKING,
        "TERMINATED": MachineState.PARKED,
        "STOPPED": MachineState.PARKED,
        "SUSPENDED": MachineState.FAILED,  # poorwill suspends none; its memory is billed until it is resumed
    }
)
"""Any other word (PROVISIONING, STAGING, REPAIRING and whatever may be added) is a machine on its way."""

ACTIONS: Mapping[CloudAction, str] = MappingProxyType(
    {
        CloudAction.HIBERNATE: "stop_unary",
        CloudAction.RESTORE: "start_unary",
        CloudAction.START: "start_unary",
        CloudAction.REBOOT: "reset_unary",
    }
)
NEEDED = (
    "compute.instances.get, .start, .stop and .reset, compute.zoneOperations.get, and "
    "iam.serviceAccounts.actAs on the machine's own service account"
)
_LACKING = ("ZONE_RESOURCE_POOL_EXHAUSTED", "insufficientCapacity", "STOCKOUT", "RESOURCE_POOL_EXHAUSTED")
_BUSY = ("rateLimitExceeded", "RATE_LIMIT_EXCEEDED", "resourceNotReady", "RESOURCE_NOT_READY")
_QUOTA = ("quotaExceeded", "QUOTA_EXCEEDED", "limitExceeded", "LIMIT_EXCEEDED")


@dataclass(slots=True, kw_only=True)
class Gcp(SdkCloud):
    """A client for one account. Implements the port `Cloud`; a machine's id is `PROJECT/ZONE/NAME`."""

    operations: dict[str, str] = field(default_factory=dict, repr=False)
    """Of each machine, the operation that its last request made, until it is done."""

    name: ClassVar[str] = "gcp"

    def open(self, what: str) -> Any:
        """Return the SDK's client of instances or of operations, over REST."""
        from google.cloud import compute_v1

        kinds = {"instances": compute_v1.InstancesClient, "operations": compute_v1.ZoneOperationsClient}
        options = {"api_endpoint": self.api} if self.api else None
        return kinds[what](transport="rest", client_options=options)

    async def state(self, machine: str) -> MachineStatus:
        """Return what the machine does; see `Cloud.state`. Cancelled: the request is left to itself."""
        failure, going_on = await self._operation(machine)
        project, zone, name = machine.split("/")
        instance = await self.call(
            machine,
            "instances",
            lambda client: client.get(project=project, zone=zone, instance=name, **self._once()),
        )
        word = str(instance.status)
        if not word:
            raise CloudBusy(f"{self.name} does not say what machine {machine} does")
        state = STATES.get(word, MachineState.MOVING)
        if going_on and state in (MachineState.RUNNING, MachineState.PARKED):
            state = MachineState.MOVING  # the request was taken on, and does not show yet
        return MachineStatus(state=state, word=word, hosts=_hosts(instance), failure=failure)

    async def ask(self, machine: str, verb: CloudAction) -> None:
        """Ask for a change; see `Cloud.ask`."""
        project, zone, name = machine.split("/")
        request: dict[str, Any] = {"project": project, "zone": zone, "instance": name}
        if verb is CloudAction.HIBERNATE:
            request["discard_local_ssd"] = True
        operation = await self.call(
            machine,
            "instances",
            lambda client: getattr(client, ACTIONS[verb])(request=request, **self._once()),
        )
        self.operations[machine] = operation.name

    async def _operation(self, machine: str) -> tuple[DriverError | None, bool]:
        """Return why the last request came to nothing, if it did, and whether it is still worked on."""
        known = self.operations.get(machine)
        if known is None:
            return None, False
        project, zone, _ = machine.split("/")
        try:
            found = await self.call(
                machine,
                "operations",
                lambda client: client.get(project=project, zone=zone, operation=known, **self._once()),
            )
        except MachineGone:  # operations are kept for a while only
            self.operations.pop(machine, None)
            return None, False
        if str(getattr(found.status, "name", found.status)) != "DONE":
            return None, True
        self.operations.pop(machine, None)
        errors = [f"{each.code}: {each.message}" for each in found.error.errors]
        return (self._meaning(machine, "; ".join(errors), 400), False) if errors else (None, False)

    def error(self, machine: str, error: Exception) -> DriverError:
        """Return what an exception of the SDK means."""
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

        said = f"{type(error).__name__}: {error}"
        if isinstance(error, DefaultCredentialsError):
            return BadCredentials(f"no credentials for {self.name} ({said})")
        if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
            if not getattr(error, "retryable", False):
                return BadCredentials(f"{self.name} refuses the credentials ({said})")
        if not isinstance(error, GoogleAPICallError) or error.code is None:
            return CloudBusy(f"no answer from {self.name}: {said}")
        reasons = " ".join(str(each.get("reason", "")) for each in error.errors if isinstance(each, Mapping))
        return self._meaning(machine, f"{reasons} {error}".strip(), int(error.code))

    def _meaning(self, machine: str, text: str, status: int) -> DriverError:
        """Return what a refusal means, whether it is an answer's or an operation's."""
        said = f"{status} {text[:400]}"
        if any(word in text for word in _LACKING):
            return NoCapacity(f"{self.name} has no room for machine {machine} now ({said})")
        if any(word in text for word in _BUSY) or status == 429:
            return CloudBusy(f"{self.name} takes no more requests now ({said})")
        if any(word in text for word in _QUOTA):
            return CloudRefused(f"the project's quota does not allow machine {machine} to run ({said})")
        if status >= 500:
            return CloudBusy(f"{self.name} fails ({said})")
        if status == 401:
            return BadCredentials(f"{self.name} refuses the credentials ({said})")
        if status == 403:
            return CloudRefused(f"{self.name} does not let these credentials do that: {NEEDED} ({said})")
        if status == 404:
            return MachineGone(f"machine {machine} is gone, or in another zone or project ({said})")
        return CloudRefused(f"{self.name} refuses it to machine {machine} ({said})")

    def _once(self) -> dict[str, Any]:
        """Return what has the SDK make one attempt, of bounded length."""
        return {"retry": None, "timeout": self.answer_limit_s}


def _hosts(instance: Any) -> Mapping[str, str]:
    """Return the addresses of a machine's first network interface."""
    hosts: dict[str, str] = {}
    for interface in list(instance.network_interfaces)[:1]:
        hosts["{private}"] = interface.network_i_p
        for access in list(interface.access_configs)[:1]:
            hosts["{public}"] = access.nat_i_p
    return {name: host for name, host in hosts.items() if host}
