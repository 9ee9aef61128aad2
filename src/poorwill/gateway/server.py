"""The gateway: two listeners, three lifetimes, one constructor that takes every dependency.

Accepting ends first (`stop_accepting`), then serving (`drained`), then the sockets close (leaving the
`async with`). The upstream pool is made outside, because the fleet needs it as its `Connections`; its
connections are closed here, last.
"""

import asyncio
import errno
import itertools
import os
import secrets
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from poorwill.core.entries import RequestEnded
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.ports.activator import Activator
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.keys import KeyRing
from poorwill.core.ports.ledger import LedgerWriter
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import FleetView
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US, ModelName
from poorwill.gateway.admin.app import admin_app
from poorwill.gateway.admin.events import EventStreams
from poorwill.gateway.admin.listener import AdminListener
from poorwill.gateway.bridge.crossing import BridgesTo, bridges_of
from poorwill.gateway.downstream.connection import LINGER_S, Downstream, ListenerContext
from poorwill.gateway.downstream.request_reader import Checks
from poorwill.gateway.inference import inference_handlers
from poorwill.gateway.request_policy import RequestPolicy
from poorwill.gateway.upstream.pool import UpstreamPool

BACKLOG = 4096
_SWEEP_S = 1.0


class Metrics(Protocol):
    """What the gateway counts, and the text that tells it."""

    def ended(self, row: RequestEnded) -> None:
        """Count a request for a model that is over. Never raises."""
        ...

    def refused(self, code: ErrorCode) -> None:
        """Count a request that was not let in. Never raises."""
        ...

    def bridge_failed(self, model: ModelName, why: str) -> None:
        """Count a request that a hosted API did not answer. Never raises."""
        ...

    def exposition(self, fleet: FleetView) -> str:
        """Return everything counted, and the fleet's state, in Prometheus' text format."""
        ...


class _Tasks:
    """Starts tasks in the server's task group, which exists only while the server runs."""

    __slots__ = ("group",)

    def __init__(self) -> None:
        self.group: asyncio.TaskGroup | None = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self.group is not None, "the gateway is not running"
        return self.group.create_task(work)


class GatewayServer:
    """Both listeners, made by `new_server`; nothing happens before `async with`.

    Entering raises OperatorFault(IN_USE) if an address cannot be bound. Leaving ends what is still in
    flight with `draining` and returns when every socket is closed.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        policy: RequestPolicy,
        pool: UpstreamPool,
        context: ListenerContext,
        admin: AdminListener,
        tasks: _Tasks,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._pool = pool
        self._context = context
        self._admin = admin
        self._tasks = tasks
        self._server: asyncio.Server | None = None
        self._running: list[asyncio.Task[None]] = []
        self.address: tuple[str, int] = ("", 0)
        self.admin_address: tuple[str, int] = ("", 0)

    async def __aenter__(self) -> Self:
        """Bind both listeners and begin to serve."""
        settings, loop = self._settings, asyncio.get_running_loop()
        inference = bound_socket(*settings.listen)
        try:
            admin = bound_socket(*settings.admin)
        except OperatorFault:
            inference.close()
            raise
        self.address = inference.getsockname()[:2]
        self.admin_address = admin.getsockname()[:2]
        group = self._tasks.group = asyncio.TaskGroup()
        await group.__aenter__()
        self._server = await loop.create_server(
            lambda: Downstream(context=self._context, loop=loop), sock=inference, backlog=BACKLOG
        )
        self._running = [
            group.create_task(self._admin.serve(admin)),
            group.create_task(self._sweep(loop)),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything, in order."""
        self.stop_accepting()
        self._policy.fail_all("poorwill is shutting down")
        self._admin.stop()
        admin, sweeper = self._running
        sweeper.cancel()
        try:
            await self._pool.aclose()
            await self._connections_closed()
            self._policy.post_rows()
            await asyncio.wait([admin])
        finally:
            assert self._tasks.group is not None
            # The group must see a cancellation, which may be its own; any other error passes it by.
            own = isinstance(error, asyncio.CancelledError)
            await self._tasks.group.__aexit__(*((kind, error, trace) if own else (None,) * 3))

    @property
    def connections(self) -> Collection[Downstream]:
        """The open client connections."""
        return self._context.connections

    @property
    def active(self) -> int:
        """The number of requests held or in flight."""
        return self._policy.active

    def stop_accepting(self) -> None:
        """Stop accepting connections and requests; what is held or in flight goes on. Idempotent."""
        self._policy.draining = True
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._context.connections):
            connection.retire()

    async def drained(self) -> None:
        """Wait until nothing is held or in flight. Cancelled: nothing changes."""
        await self._policy.drained()

    async def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Enforce every time limit of both sides, once a second: cheaper than a timer for each."""
        settings = self._settings
        shortest_us = min(
            settings.head_timeout_us,
            settings.body_timeout_us,
            settings.idle_timeout_us,
            settings.upstream_timeout_us,
        )
        interval_s = min(_SWEEP_S, shortest_us / SECOND_US / 4)
        while True:
            await asyncio.sleep(interval_s)
            self._expire(loop.time())
            self._pool.sweep(loop.time())

    def _expire(self, now: float) -> None:
        for connection in list(self._context.connections):
            if now > connection.deadline:
                connection.expire()

    async def _connections_closed(self) -> None:
        """Wait until clients have read their last response, `LINGER_S` at most."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + LINGER_S
        while self._context.connections:
            await asyncio.sleep(0.01)
            if loop.time() > give_up:
                for connection in list(self._context.connections):
                    connection.abort()


def new_server(
    *,
    settings: GatewaySettings,
    activator: Activator,
    pool: UpstreamPool,
    keys: KeyRing,
    ledger: LedgerWriter,
    fleet: FleetView,
    clock: Clock,
    log: Log,
    metrics: Metrics,
    dashboard: bytes,
    bridges_to: BridgesTo | None = None,
) -> GatewayServer:
    """Return a gateway, not running yet. `dashboard` is the page the admin listener serves at `/`."""
    tasks = _Tasks()
    bridges = bridges_of(
        bridges_to,
        pool=pool,
        clock=clock,
        log=log,
        spawn=tasks.spawn,
        failed=metrics.bridge_failed,
    )
    policy = RequestPolicy(
        settings=settings,
        activator=activator,
        pool=pool,
        ledger=ledger,
        clock=clock,
        log=log,
        models=fleet.models,
        observe=metrics.ended,
        spawn=tasks.spawn,
        bridges=bridges,
    )
    context = ListenerContext(
        checks=Checks(settings=settings, keys=keys, clock=clock, log=log),
        policy=policy,
        handlers=inference_handlers(
            policy=policy, models=fleet.models, started_s=clock.now_us() // SECOND_US
        ),
        new_request_id=_request_ids(),
        refused=metrics.refused,
        connections=set(),
    )
    return GatewayServer(
        settings=settings,
        policy=policy,
        pool=pool,
        context=context,
        admin=_admin_listener(
            context=context, fleet=fleet, metrics=metrics, ledger=ledger, dashboard=dashboard
        ),
        tasks=tasks,
    )


def _admin_listener(
    *, context: ListenerContext, fleet: FleetView, metrics: Metrics, ledger: LedgerWriter, dashboard: bytes
) -> AdminListener:
    policy, checks, streams = context.policy, context.checks, EventStreams()

    def health() -> Mapping[str, object]:
        return {
            "status": "draining" if policy.draining else "ok",
            "requests": policy.active,
            "connections": len(context.connections),
            "ledger": ledger.unavailable or "ok",
        }

    def metrics_text() -> str:
        policy.post_rows()
        return metrics.exposition(fleet)

    app = admin_app(
        fleet=fleet,
        clock=checks.clock,
        log=checks.log,
        metrics_text=metrics_text,
        health=health,
        bridges=lambda: [bridge.status() for bridge in policy.bridges.values()],
        page=dashboard,
        streams=streams,
        host=checks.settings.admin.host,
    )
    return AdminListener(app=app, streams=streams)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OperatorFault(IN_USE) with the reason if that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as error:
        hints = {
            errno.EADDRINUSE: "another program has it; port 0 takes a free one",
            errno.EACCES: "ports below 1024 need a privilege",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }
        # The exception's own message repeats the address.
        what = os.strerror(error.errno) if error.errno in hints else error.strerror or str(error)
        raise OperatorFault(
            ErrorCode.IN_USE,
            f"cannot listen on {host}:{port}: {what}",
            hint=hints.get(error.errno or 0),
        ) from error


def _request_ids() -> Callable[[], str]:
    """Return a source of request ids: unique over restarts, because the ledger is keyed by them."""
    prefix, numbers = secrets.token_hex(6), itertools.count(1)
    return lambda: f"req-{prefix}-{next(numbers):x}"
