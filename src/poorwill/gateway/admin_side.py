"""What the gateway shows on the admin listener, and what that listener speaks as the inference listener does.

The listener itself is made outside: it shows the fleet and the ledger as well.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from poorwill.core.entries import RequestEnded
from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.ports.ledger import LedgerWriter
from poorwill.core.ports.view import FleetView
from poorwill.core.words import ModelName
from poorwill.gateway import wire
from poorwill.gateway.acceptor import Acceptor, ConnectionLimits
from poorwill.gateway.bridge.parts import Spawn
from poorwill.gateway.downstream.connection import ListenerContext
from poorwill.gateway.routes import NoRoute, admin_routes
from poorwill.gateway.web_origin import foreign_page
from poorwill.gateway.wire import Dialect

ADMIN_CONNECTIONS = 256


class AdminListener(Protocol):
    """The admin listener as the gateway runs it."""

    async def serve(self, sock: socket.socket) -> None:
        """Serve until `stop` was called and the requests in work are done, within two seconds."""

    def stop(self) -> None:
        """Ask `serve` to return; event streams end at once."""


class Metrics(Protocol):
    """What the gateway counts, and the text that tells it."""

    def ended(self, row: RequestEnded) -> None:
        """Count a request for a model that is over. Never raises."""

    def refused(self, code: ErrorCode) -> None:
        """Count a request that was not let in. Never raises."""

    def bridge_failed(self, model: ModelName, why: str) -> None:
        """Count a request that a hosted API did not answer. Never raises."""

    async def refresh(self) -> None:
        """Bring up to date what takes a moment to find out. Cancelled: nothing is left behind."""

    def exposition(self, fleet: FleetView) -> str:
        """Return everything counted, and the fleet's state, in Prometheus' text format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSide:
    """The gateway as its admin listener sees it."""

    context: ListenerContext
    fleet: FleetView
    metrics: Metrics
    ledger: LedgerWriter
    spawn: Spawn

    @property
    def admin_routes(self) -> Sequence[tuple[str, Sequence[str], str]]:
        """The admin listener's rows of the route table: path, methods, action."""
        return [(route.path, route.methods, route.action) for route in admin_routes()]

    def accept(
        self,
        make: Callable[[str], asyncio.Protocol],
        make_room: Callable[[str | None], bool],
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> Acceptor:
        """Return what accepts an admin listener's connections, within its limit."""
        most = ADMIN_CONNECTIONS
        return Acceptor(
            limits=ConnectionLimits(in_all=most, per_address=most // 4 if tls else most),
            make=make,
            make_room=make_room,
            tls=tls,
            refused=self.metrics.refused,
            spawn=self.spawn,
            log=self.context.checks.log,
        )

    def health(self) -> Mapping[str, object]:
        """Return how the gateway itself is."""
        policy = self.context.policy
        return {
            "status": "draining" if policy.draining else "ok",
            "requests": policy.active,
            "connections": len(self.context.connections),
            "ledger": self.ledger.unavailable or "ok",
        }

    def bridges(self) -> Sequence[Mapping[str, object]]:
        """Return how each bridge stands."""
        return [bridge.status() for bridge in self.context.policy.bridges.values()]

    async def metrics_text(self) -> str:
        """Return everything counted, in Prometheus' text format. Cancelled: nothing is left behind."""
        self.post_rows()
        await self.metrics.refresh()
        return self.metrics.exposition(self.fleet)

    def post_rows(self) -> None:
        """Hand the rows of every request that has ended to the ledger."""
        self.context.policy.post_rows()

    def error_answer(self, error: PoorwillError) -> tuple[int, Mapping[str, object], Mapping[str, str]]:
        """Return an error's status, body and headers."""
        headers = {}
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
        if isinstance(error, NoRoute) and error.allowed:
            headers["allow"] = ", ".join(error.allowed)
        document = wire.error_document(error, dialect=Dialect.OPENAI, request_id="")
        return wire.http_status(error.code), document, headers

    def no_route(self, *, method: str, path: str, allowed: Sequence[str]) -> PoorwillError:
        """Return the error of a request that no route answers."""
        return NoRoute(method=method, path=path, allowed=allowed)

    def foreign_page(self, *, method: str, headers: Mapping[str, str], names: Collection[str]) -> str:
        """Return why a web page may not ask this, or nothing. `names` are the listener's own."""
        # A link on another page may lead here: what it shows stays with the person who follows it.
        site = "" if method == "GET" else headers.get("sec-fetch-site", "")
        host, origin = headers.get("host"), headers.get("origin")
        return foreign_page(host=host, origin=origin, fetch_site=site, names=names, origins=())
