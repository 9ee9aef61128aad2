"""What a gateway's bridges are made with, and whom their requests belong to."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from poorwill.core.ports.bridging import Bridging
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.words import ModelName
from poorwill.gateway.bridge.hosted_api import HostedApis
from poorwill.gateway.downstream.exchange import Exchange, ExchangeOwner
from poorwill.gateway.upstream.pool import UpstreamPool

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Dispatcher(ExchangeOwner, Protocol):
    """Where a request comes from, and where it returns if the bridge fails."""

    def resume(self, exchange: Exchange) -> None:
        """Go on with a request that has no lease: claim one, or hold it."""
        ...


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
