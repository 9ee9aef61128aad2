"""What the clients of all clouds have in common: one request to an HTTP API, and what a refusal means."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.remote.clouds.cloud import CloudBusy, CloudRefused, MachineGone, MachineState, MachineStatus
from poorwill.remote.http_answers import bounded_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudClient:
    """A client for one account at one cloud. Each request has a connection of its own."""

    key: str = field(repr=False)
    api: str
    answer_limit_s: float = 20.0

    name = ""
    """The cloud's name, as in `fleet.toml`."""

    async def _call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> tuple[httpx2.Response, dict[str, Any]]:
        """Make one request; return the answer and its JSON object, empty if it has none.

        Raises CloudBusy if no answer comes in time. Cancelled: the connection is closed.
        """
        url = f"{self.api.rstrip('/')}{path}"
        whole = {**headers, "accept": "application/json", "connection": "close"}
        try:
            async with (
                asyncio.timeout(self.answer_limit_s),  # the client's own is for each read: answers may drip
                httpx2.AsyncClient(
                    timeout=self.answer_limit_s,
                    trust_env=False,
                    verify=url.startswith("https:"),  # without TLS no certificates need to be read
                ) as client,
            ):
                answer = await bounded_answer(client, method, url, headers=whole, params=params, json=body)
        except (httpx2.HTTPError, TimeoutError) as error:
            why = f"{type(error).__name__} {error}".strip()
            raise CloudBusy(f"no answer from {self.name}: {why}") from error
        try:
            found = answer.json() if answer.content else {}
        except (ValueError, RecursionError):
            found = {}
        return answer, found if isinstance(found, dict) else {}

    def _status(self, machine: str, word: object, states: Mapping[str, MachineState]) -> MachineStatus:
        """Return the state that the cloud's word stands for; a machine in any other state is on its way."""
        if not isinstance(word, str) or not word:
            raise CloudBusy(f"{self.name} does not say what machine {machine} does")
        return MachineStatus(state=states.get(word, MachineState.MOVING), word=word)

    def _refusal(self, machine: str, answer: httpx2.Response, message: str, *, lacking: bool) -> DriverError:
        """Return the error for an answer that is no success. `lacking`: it says that hardware is short."""
        said = f"{answer.status_code}{f' {message[:300]}' if message else ''}"
        if lacking:
            return NoCapacity(f"{self.name} has no room for machine {machine} now ({said})")
        if answer.status_code == 429:
            busy = f"{self.name} takes no more requests now ({said})"
            return CloudBusy(busy, retry_after_s=_seconds(answer))
        if answer.status_code >= 500:
            return CloudBusy(f"{self.name} fails ({said})")
        if answer.status_code == 401:
            return CloudRefused(f"{self.name} refuses the API key ({said})")
        if answer.status_code == 403:
            return CloudRefused(f"{self.name} does not let the API key do that ({said})")
        if answer.status_code == 404:
            return MachineGone(
                f"machine {machine} is gone, or the API key may not see it: {self.name} says {said}"
            )
        return CloudRefused(f"{self.name} refuses it to machine {machine} ({said})")


def _seconds(answer: httpx2.Response) -> float | None:
    """Return Retry-After if it is a number of seconds."""
    text = answer.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"\d{1,6}", text) else None
