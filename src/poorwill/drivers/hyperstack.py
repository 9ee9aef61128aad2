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

import httpx2

from poorwill.core.ports import DriverError, NoCapacity
from poorwill.drivers.cloud import (
    CloudBusy,
    CloudRefused,
    MachineGone,
    MachineState,
    Seen,
    Verb,
)

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

PATHS: Mapping[Verb, str] = MappingProxyType(
    {
        Verb.HIBERNATE: "hibernate",
        Verb.RESTORE: "hibernate-restore",
        Verb.START: "start",
        Verb.REBOOT: "hard-reboot",
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
    answer_limit_s: float = 30.0

    @property
    def name(self) -> str:
        """The cloud's name."""
        return "hyperstack"

    async def state(self, machine: str) -> Seen:
        """Return what the machine does; see `Cloud.state`."""
        body = await self._get(machine)
        instance = body.get("instance")
        word = instance.get("status") if isinstance(instance, dict) else None
        if not isinstance(word, str) or not word:
            raise CloudBusy(f"{self.name} does not say what machine {machine} does")
        word = word.upper()
        if word in GONE:
            raise MachineGone(f"machine {machine} is gone: {self.name} says {word}")
        return Seen(state=STATES.get(word, MachineState.MOVING), word=word)

    async def ask(self, machine: str, verb: Verb) -> None:
        """Ask for a change; see `Cloud.ask`. A machine keeps its public address while it is hibernated."""
        params = {"retain_ip": "true"} if verb is Verb.HIBERNATE else {}
        await self._get(machine, f"/{PATHS[verb]}", params)

    async def _get(
        self, machine: str, path: str = "", params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        url = f"{self.api.rstrip('/')}/core/virtual-machines/{machine}{path}"
        headers = {"api_key": self.key, "accept": "application/json", "connection": "close"}
        try:
            async with httpx2.AsyncClient(
                timeout=self.answer_limit_s,
                trust_env=False,
                verify=url.startswith("https:"),  # without TLS no certificates need to be read
            ) as client:
                answer = await client.get(url, headers=headers, params=params)
        except httpx2.HTTPError as error:
            why = f"{type(error).__name__} {error}".strip()
            raise CloudBusy(f"no answer from {self.name}: {why}") from error
        body = _object(answer)
        if answer.status_code != 200 or body.get("status") is False:
            raise self._error(machine, answer, str(body.get("message") or "")[:300])
        return body

    def _error(self, machine: str, answer: httpx2.Response, message: str) -> DriverError:
        said = f"{answer.status_code}{f' {message}' if message else ''}"
        if answer.status_code == 429:
            return CloudBusy(
                f"{self.name} takes no more requests now ({said})", retry_after_s=_seconds(answer)
            )
        if answer.status_code >= 500:
            return CloudBusy(f"{self.name} fails ({said})")
        if answer.status_code in (401, 403):
            return CloudRefused(f"{self.name} refuses the API key ({said})")
        if answer.status_code == 404:
            return MachineGone(
                f"machine {machine} is gone, or the API key may not see it: {self.name} says {said}"
            )
        if _LACKING.search(message):
            return NoCapacity(f"{self.name} has no room for machine {machine} now ({said})")
        return CloudRefused(f"{self.name} refuses it to machine {machine} ({said})")


def _object(answer: httpx2.Response) -> dict[str, Any]:
    """Return the answer's JSON object, an empty one where it is something else."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(answer: httpx2.Response) -> float | None:
    """Return Retry-After where it is a number of seconds."""
    text = answer.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"\d{1,6}", text) else None
