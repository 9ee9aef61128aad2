"""One request to a cloud's HTTP API, and what a refusal means: what all clouds have in common."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.hosts.rented.cloud import CloudBusy, CloudRefused, MachineGone


async def call(
    cloud: str,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    limit_s: float,
    params: Mapping[str, str] | None = None,
    body: Mapping[str, str] | None = None,
) -> tuple[httpx2.Response, dict[str, Any]]:
    """Make one request over a connection of its own; return the answer and its JSON object, empty where it
    has none. Raises CloudBusy where no answer comes within `limit_s`. Cancelled: the connection is closed.
    """
    whole = {**headers, "accept": "application/json", "connection": "close"}
    try:
        async with (
            asyncio.timeout(limit_s),  # the client's own is for each read: an answer could drip forever
            httpx2.AsyncClient(
                timeout=limit_s,
                trust_env=False,
                verify=url.startswith("https:"),  # without TLS no certificates need to be read
            ) as client,
        ):
            answer = await client.request(method, url, headers=whole, params=params, json=body)
    except (httpx2.HTTPError, TimeoutError) as error:
        why = f"{type(error).__name__} {error}".strip()
        raise CloudBusy(f"no answer from {cloud}: {why}") from error
    try:
        found = answer.json() if answer.content else {}
    except (ValueError, RecursionError):
        found = {}
    return answer, found if isinstance(found, dict) else {}


def refusal(
    cloud: str,
    machine: str,
    answer: httpx2.Response,
    message: str,
    *,
    lacking: Callable[[str], bool],
) -> DriverError:
    """Return the error that an answer other than a success is. `lacking` tells a message about a lack of
    hardware from any other."""
    said = f"{answer.status_code}{f' {message[:300]}' if message else ''}"
    if lacking(message):
        return NoCapacity(f"{cloud} has no room for machine {machine} now ({said})")
    if answer.status_code == 429:
        return CloudBusy(f"{cloud} takes no more requests now ({said})", retry_after_s=_seconds(answer))
    if answer.status_code >= 500:
        return CloudBusy(f"{cloud} fails ({said})")
    if answer.status_code == 401:
        return CloudRefused(f"{cloud} refuses the API key ({said})")
    if answer.status_code == 403:
        return CloudRefused(f"{cloud} does not let the API key do that ({said})")
    if answer.status_code == 404:
        return MachineGone(f"machine {machine} is gone, or the API key may not see it: {cloud} says {said}")
    return CloudRefused(f"{cloud} refuses it to machine {machine} ({said})")


def _seconds(answer: httpx2.Response) -> float | None:
    """Return Retry-After where it is a number of seconds."""
    text = answer.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"\d{1,6}", text) else None
