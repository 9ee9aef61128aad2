"""The gateway: two listeners, three lifetimes, one constructor that takes every dependency.

Accepting ends first (`stop_accepting`), then serving (`drained`), then the sockets close (leaving the
`async with`). The upstream pool is made outside, because the fleet needs it as its `Connections`; its
connections are closed here, last.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Collection, Coroutine
from types import TracebackType
from typing import Any, Self

from poorwill.core.errors import OperatorFault
from poorwill.core.ports.activator import Activator
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.keys import KeyRing
from poorwill.core.ports.ledger import LedgerWriter
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import FleetView
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US
from poorwill.gateway.acceptor import Acceptor, bound_socket, connection_limits
from poorwill.gateway.admin_side import ADMIN_CONNECTIONS, AdminListener, AdminSide, Metrics
from poorwill.gateway.bridge.crossing import bridges_of
from poorwill.gateway.bridge.parts import BridgesTo
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.downstream.connection import LINGER_S, Downstream, ListenerContext, make_room
from poorwill.gateway.downstream.incoming import Checks, new_checks
from poorwill.gateway.inference import Handler, Models, inference_handlers
from poorwill.gateway.request_policy import RequestPolicy
from poorwill.gateway.upstream.pool import UpstreamPool
from poorwill.policies.requests.key_limits import KeyLimiter
from poorwill.policies.requests.silence import Suspicion

_SWEEP_S = 1.0
_RESERVED_DESCRIPTORS = 64
_RESERVED_PER_MODEL = 8


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
        suspect: Callable[[str, int, Suspicion], None],
        policy: RequestPolicy,
        pool: UpstreamPool,
        context: ListenerContext,
        acceptor: Acceptor,
        admin: AdminListener,
        tasks: _Tasks,
    ) -> None:
        self._settings = settings
        self._suspect = suspect
        self._policy = policy
        self._pool = pool
        self._context = context
        self._admin = admin
        self._tasks = tasks
        self._acceptor = acceptor
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
        self._acceptor.start(inference)
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

    @property
    def limiter(self) -> KeyLimiter:
        """What the keys use of their limits."""
        return self._policy.limiter

    def configure(self, settings: GatewaySettings) -> None:
        """Go by other settings from now on. Addresses, limits of connections and of memory stay."""
        self._settings = self._policy.settings = self._context.checks.settings = settings
        self._pool.timeout_us = settings.upstream_timeout_us
        self._policy.limiter.at_once = settings.max_requests_per_key

    def stop_accepting(self) -> None:
        """Stop accepting connections and requests; what is held or in flight goes on. Idempotent."""
        self._policy.draining = True
        self._acceptor.stop()
        for connection in list(self._context.connections):
            connection.retire()

    async def drained(self) -> None:
        """Wait until nothing is held or in flight. Cancelled: nothing changes."""
        await self._policy.drained()

    async def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Enforce every time limit of both sides, once a second: cheaper than a timer for each."""
        while True:
            settings = self._settings
            shortest_us = min(
                settings.head_timeout_us,
                settings.body_timeout_us,
                settings.idle_timeout_us,
                settings.upstream_timeout_us,
            )
            interval_s = min(_SWEEP_S, shortest_us / SECOND_US / 4)
            await asyncio.sleep(interval_s)
            self._expire(loop.time())
            for seen in self._pool.sweep(loop.time()):
                self._suspect(*seen)
            self._policy.end_overlong()
            self._policy.end_revoked(self._context.checks.keys.in_use)

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
    suspect: Callable[[str, int, Suspicion], None],
    pool: UpstreamPool,
    keys: KeyRing,
    ledger: LedgerWriter,
    fleet: FleetView,
    admin: Callable[[AdminSide], AdminListener],
    clock: Clock,
    log: Log,
    metrics: Metrics,
    engines: EngineFacts,
    ollama: Callable[[RequestPolicy], Handler],
    directory: str,
    bridges_to: BridgesTo | None = None,
) -> GatewayServer:
    """Return a gateway, not running yet."""
    tasks = _Tasks()
    bridges = bridges_of(
        bridges_to,
        pool=pool,
        clock=clock,
        log=log,
        spawn=tasks.spawn,
        failed=metrics.bridge_failed,
        most_per_key=settings.max_bridged_per_key,
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
        engines=engines,
        limiter=KeyLimiter(keys=keys, clock=clock, at_once=settings.max_requests_per_key),
    )
    checks = new_checks(settings=settings, keys=keys, clock=clock, log=log, directory=directory)
    context, acceptor = _inference_listener(
        checks=checks, policy=policy, models=fleet.models, metrics=metrics, tasks=tasks, ollama=ollama
    )
    return GatewayServer(
        settings=settings,
        suspect=suspect,
        policy=policy,
        pool=pool,
        context=context,
        acceptor=acceptor,
        admin=admin(
            AdminSide(context=context, fleet=fleet, metrics=metrics, ledger=ledger, spawn=tasks.spawn)
        ),
        tasks=tasks,
    )


def _inference_listener(
    *,
    checks: Checks,
    policy: RequestPolicy,
    models: Models,
    metrics: Metrics,
    tasks: _Tasks,
    ollama: Callable[[RequestPolicy], Handler],
) -> tuple[ListenerContext, Acceptor]:
    settings, connections = checks.settings, set[Downstream]()
    acceptor = Acceptor(
        limits=connection_limits(
            in_all=settings.max_connections,
            per_address=settings.max_connections_per_address,
            reserved=_RESERVED_DESCRIPTORS + ADMIN_CONNECTIONS + _RESERVED_PER_MODEL * len(models()),
        ),
        make=lambda peer: Downstream(context=context, loop=asyncio.get_running_loop(), peer=peer),
        make_room=lambda peer: make_room(connections, peer),
        refused=metrics.refused,
        spawn=tasks.spawn,
        log=checks.log,
    )
    context = ListenerContext(
        checks=checks,
        policy=policy,
        handlers=inference_handlers(policy=policy, models=models, spawn=tasks.spawn, ollama=ollama),
        new_request_id=_request_ids(),
        refused=metrics.refused,
        spawn=tasks.spawn,
        connections=connections,
        left=acceptor.left,
    )
    return context, acceptor


def _request_ids() -> Callable[[], str]:
    """Return a source of request ids: unique over restarts, because the ledger is keyed by them."""
    prefix, numbers = secrets.token_hex(6), itertools.count(1)
    return lambda: f"req-{prefix}-{next(numbers):x}"
