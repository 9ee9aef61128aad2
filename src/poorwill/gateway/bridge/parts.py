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


class BridgedApi(Protocol):
    """The hosted API of one model: which requests it takes, what is sent there, what comes back."""

    @property
    def serves(self) -> ModelName:
        """The model that it stands in for."""

    @property
    def name(self) -> str:
        """PROVIDER/MODEL, as in `fleet.toml`."""

    @property
    def model(self) -> str:
        """The provider's name for the model."""

    @property
    def at_once(self) -> bool:
        """Whether it gets every request that finds the model not ready; else only those whose wake failed."""

    @property
    def host(self) -> str:
        """Where it is."""

    @property
    def port(self) -> int:
        """Its port."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For an `https` URL."""

    @property
    def prices(self) -> Callable[[int, int], TokenPrices]:
        """What tokens cost at an instant (microseconds) in a request with so many of them in."""

    @property
    def tells_usage(self) -> bool:
        """Whether it is known to tell the usage of a stream if asked for it."""

    def takes(self, method: bytes, path: str, prefer: bytes) -> bool:
        """Return whether it has what a request asks for, and the request may go there."""

    def request(self, path: str, forward: bytes, body: bytes) -> bytes:
        """Return the request to send, with a body for this API."""

    def most_nusd(self, at_us: int, body: bytes) -> int:
        """Return the most that the API may charge for a request."""

    def answer_headers(self, headers: Headers) -> Headers:
        """Return the headers of an answer that are for the client, and one that says who answered."""


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
