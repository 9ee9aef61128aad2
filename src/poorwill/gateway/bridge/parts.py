"""What a gateway's bridges are made with, and whom their requests belong to."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from poorwill.core.ports.bridging import Bridging
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.token_prices import TokenPrices
from poorwill.core.words import ModelName
from poorwill.gateway.downstream.exchange import Exchange, ExchangeOwner
from poorwill.gateway.downstream.response import Headers
from poorwill.gateway.upstream.pool import UpstreamPool


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgedApi:
    """The hosted API of one model: which requests it takes, what is sent there, what comes back."""

    serves: ModelName
    name: str
    """PROVIDER/MODEL, as in `fleet.toml`."""
    model: str
    """The provider's name for the model."""
    at_once: bool
    """Whether it gets every request that finds the model not ready; else only those whose wake failed."""
    host: str
    port: int
    tls: ssl.SSLContext | None
    prices: Callable[[int, int], TokenPrices]
    """What tokens cost at an instant (microseconds) in a request with so many of them in."""
    tells_usage: bool
    takes: Callable[[bytes, str, bytes], bool]
    """Whether it takes a request of this method, path and `Prefer`."""
    request: Callable[[str, bytes, bytes], bytes]
    """From a path, header lines and a body for it: what is sent."""
    most_nusd: Callable[[int, bytes], int]
    """From an instant and a body: the most that it may charge."""
    answer_headers: Callable[[Headers], Headers]
    """Those of an answer that are for the client, and one that says who answered."""


HostedApis = Mapping[ModelName, BridgedApi]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Dispatcher(ExchangeOwner, Protocol):
    """Where a request comes from, and where it returns if the bridge fails."""

    def resume(self, exchange: Exchange) -> None:
        """Go on with a request that has no lease: claim one, or hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgesTo:
    """Where a gateway's bridges lead, and who is told what crosses."""

    apis: HostedApis
    bridging: Bridging


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeParts:
    """What the bridges of a gateway share."""

    bridging: Bridging
    pool: UpstreamPool
    clock: Clock
    log: Log
    spawn: Spawn
    failed: Callable[[ModelName, str], None]
    """Counts a crossing that failed: the model and why, in a few words from a short list. Never raises."""
    most_per_key: int
    by_key: Counter[str] = field(default_factory=Counter)
    """Requests under way, over all models."""
