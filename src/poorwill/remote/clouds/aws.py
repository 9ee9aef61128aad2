"""Amazon's EC2 through boto3, as far as an instance is stopped and started with it.

Actions, states and error codes: docs.aws.amazon.com/AWSEC2/latest/APIReference (StopInstances,
StartInstances, errors-overview, query-api-troubleshooting) and the user guide's ec2-instance-lifecycle.
Read in November 2026. What follows from them:

- No instance type with a GPU hibernates (the type list that moto ships has none): a park is a stop. Memory
  and instance-store volumes are lost, EBS stays.
- *stopping* cannot be started and can take minutes; neither it nor *pending* is billed. Every start is
  billed for a minute at least.
- The API is eventually consistent: IncorrectInstanceState can mean that the last look was old.
- A start without an Elastic IP brings another public address.
- A lack of hardware is said at once, or by *pending* that falls back to *stopped* with a reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
        "running": MachineState.RUNNING,
        "stopping": MachineState.PARKING,
        "stopped": MachineState.PARKED,
    }
)
GONE = frozenset({"shutting-down", "terminated"})

ACTIONS: Mapping[CloudAction, str] = MappingProxyType(
    {
        CloudAction.HIBERNATE: "stop_instances",
        CloudAction.RESTORE: "start_instances",
        CloudAction.START: "start_instances",
        CloudAction.REBOOT: "reboot_instances",
    }
)
NEEDED = "ec2:DescribeInstances, ec2:StartInstances, ec2:StopInstances and ec2:RebootInstances"

_LACKING = frozenset(
    {"InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity"}
)
_QUOTA = frozenset({"VcpuLimitExceeded", "InstanceLimitExceeded"})
_BUSY = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled"})
_UNKNOWN_KEY = frozenset(
    {
        *("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch"),
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "MissingAuthenticationToken"),
    }
)
_NO_KEY = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"),
        *("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "ConfigParseError"),
    }
)
"""Exceptions of botocore that no repetition helps; the others are trouble on the way to the API."""


@dataclass(slots=True, kw_only=True)
class Aws(SdkCloud):
    """A client for one account. Implements the port `Cloud`; a machine's id is `REGION/ID`."""

    name: ClassVar[str] = "aws"

    def open(self, what: str) -> Any:
        """Return boto3's client of EC2 in a region."""
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=self.answer_limit_s / 2,
            read_timeout=self.answer_limit_s,
            retries={"total_max_attempts": 1},
        )
        session = boto3.session.Session(region_name=what)
        return session.client("ec2", endpoint_url=self.api or None, config=config)

    async def state(self, machine: str) -> MachineStatus:
        """Return what the machine does; see `Cloud.state`. Cancelled: the request is left to itself."""
        region, _, id = machine.partition("/")
        found = await self.call(machine, region, lambda client: client.describe_instances(InstanceIds=[id]))
        instances = [one for group in found.get("Reservations", ()) for one in group.get("Instances", ())]
        if len(instances) != 1:
            raise CloudBusy(f"{self.name} does not say what machine {machine} does")
        (instance,) = instances
        word = instance["State"]["Name"]
        if word in GONE:
            raise MachineGone(f"machine {machine} is gone: {self.name} says {word}")
        code, reason = _reason(instance)
        hosts = {"{public}": instance.get("PublicIpAddress"), "{private}": instance.get("PrivateIpAddress")}
        return MachineStatus(
            state=STATES.get(word, MachineState.MOVING),
            word=f"{word} ({code})" if code else word,
            hosts={name: host for name, host in hosts.items() if host},
            failure=self._meaning(machine, code.partition(".")[2], reason or code, 0) if code else None,
        )

    async def ask(self, machine: str, verb: CloudAction) -> None:
        """Ask for a change; see `Cloud.ask`."""
        region, _, id = machine.partition("/")
        await self.call(machine, region, lambda client: getattr(client, ACTIONS[verb])(InstanceIds=[id]))

    def error(self, machine: str, error: Exception) -> DriverError:
        """Return what an exception of boto3 means."""
        answer = getattr(error, "response", None)
        if not isinstance(answer, Mapping):
            said = f"{type(error).__name__}: {error}"
            if type(error).__name__ in _NO_KEY:
                return BadCredentials(f"no credentials for {self.name} ({said})")
            return CloudBusy(f"no answer from {self.name}: {said}")
        found, status = answer["Error"], answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return self._meaning(machine, found.get("Code", ""), found.get("Message", ""), status)

    def _meaning(self, machine: str, code: str, message: str, status: int) -> DriverError:
        """Return what a code means, whether it is an answer's or the reason of a state."""
        said = f"{code}: {message[:300]}"
        if code in _LACKING:
            return NoCapacity(f"{self.name} has no room for machine {machine} now ({said})")
        if code in _QUOTA:
            return CloudRefused(f"the account's quota does not allow machine {machine} to run ({said})")
        if code == "InvalidInstanceID.NotFound":
            return MachineGone(f"machine {machine} is gone, or in another region or account ({said})")
        if code == "UnauthorizedOperation":
            return CloudRefused(f"{self.name} does not let these credentials do that: {NEEDED} ({said})")
        if code in _UNKNOWN_KEY:
            return BadCredentials(f"{self.name} refuses the credentials ({said})")
        if code in _BUSY or status == 429:
            return CloudBusy(f"{self.name} takes no more requests now ({said})")
        if code == "IncorrectInstanceState":
            return CloudBusy(f"{self.name} is still busy with machine {machine} ({said})")
        if status >= 500:
            return CloudBusy(f"{self.name} fails ({said})")
        return CloudRefused(f"{self.name} refuses it to machine {machine} ({said})")


def _reason(instance: Mapping[str, Any]) -> tuple[str, str]:
    """Return why the cloud itself stopped a machine; nothing if its owner or poorwill did."""
    reason = instance.get("StateReason") or {}
    code = reason.get("Code") or ""
    ordered = code.startswith(("Client.UserInitiated", "Client.InstanceInitiated"))
    return ("", "") if ordered else (code, reason.get("Message") or "")
