"""How a request that names a model is served: claim or hold, connect, retry, give up.

The policy reads top to bottom in one coroutine; the bytes move in callbacks elsewhere. The coroutine ends
as soon as the request is on its way, so that an open stream costs no task. When a lease is to be had and
a connection is idle, `begin` sends the request at once and no coroutine runs at all.

Retries, all before the first byte of an answer: a kept-alive connection that turns out stale is replaced
at once by a new one, if the engine cannot have begun the request; an engine that refuses connections gives
its lease back and is claimed again, which holds the request through another wake if one is needed; so is
one whose host falls silent, however long the engine had been at it. At most `TRIES` in all, and connections
are tried for `RETRY_WITHIN_US` at most since the first that failed. A new connection lost after the request
was written is not retried: the request may be what killed the engine.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from poorwill.core.entries import RequestEnded
from poorwill.core.errors import EngineFault, ErrorCode, PoorwillError, RequestFault, TryLater, unknown_model
from poorwill.core.ports.activator import Activator, Lease
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.ledger import LedgerWriter
from poorwill.core.ports.log import Log
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US, ModelName
from poorwill.gateway.acceptor import SHORT_OF_RESOURCES
from poorwill.gateway.bridge.crossing import Bridge
from poorwill.gateway.bridge.parts import Spawn
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.downstream.exchange import OK, Exchange, Lost
from poorwill.gateway.heartbeat import Heartbeat
from poorwill.gateway.upstream.connection import Upstream
from poorwill.gateway.upstream.pool import UpstreamPool
from poorwill.hosts.files.reach import unverified
from poorwill.policies.requests.key_limits import KeyLimiter

TRIES = 3
RETRY_DELAY_S = 0.05
"""Doubled with each further try."""
RETRY_WITHIN_US = 15 * SECOND_US
POST_AFTER_S = 0.02
"""How long a request's row waits for others, so that the ledger's thread gets one call for many."""


class RequestPolicy:
    """The policy of one gateway, and the `ExchangeOwner` of its exchanges."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        activator: Activator,
        pool: UpstreamPool,
        ledger: LedgerWriter,
        clock: Clock,
        log: Log,
        models: Callable[[], Sequence[ModelName]],
        observe: Callable[[RequestEnded], None],
        spawn: Spawn,
        bridges: Mapping[ModelName, Bridge],
        engines: EngineFacts,
        limiter: KeyLimiter,
    ) -> None:
        self.activator = activator
        self.clock = clock
        self.settings = settings
        self._pool = pool
        self._ledger = ledger
        self._log = log
        self._models = models
        self._observe = observe
        self.spawn = spawn
        self.bridges = bridges
        self.engines = engines
        self.limiter = limiter
        self._active: set[Exchange] = set()
        self._rows: list[RequestEnded] = []
        self._quiet: asyncio.Future[None] | None = None
        self.draining = False

    @property
    def active(self) -> int:
        """The number of requests for a model that are not over."""
        return len(self._active)

    def begin(self, exchange: Exchange) -> None:
        """Send a request on its way; its model, `streaming` and body are known."""
        self._active.add(exchange)
        self.engines.asked(exchange.model, exchange.request_id, exchange.request.body)
        try:
            if self.draining:
                raise TryLater(ErrorCode.DRAINING, "poorwill is shutting down")
            if exchange.request.key:
                self._admit(exchange)
            lease = self.activator.claim(exchange.model, exchange.last_served_by)
            if lease is not None:
                exchange.leased(lease, at_us=exchange.request.arrived_us)
                upstream = self._pool.take(lease.host, lease.port)
                if upstream is not None and exchange.request.spool is None:
                    upstream.send(exchange)
                    return
        except PoorwillError as error:
            self._refuse(exchange, error)
            return
        exchange.task = self.spawn(self._dispatch(exchange))

    def _admit(self, exchange: Exchange) -> None:
        """Count a request against the limits of its key. Raises RequestFault, TryLater(RATE_LIMITED)."""
        key = exchange.request.key
        try:
            headers = self.limiter.admit(key, exchange.model)
        except TryLater:
            exchange.response.limits = self.limiter.refused_headers(key)
            raise
        except RequestFault:
            exchange.model = ModelName("")  # no row, whether there is such a model or not
            raise
        if headers is not None:
            exchange.rationed, exchange.response.limits = True, headers
            if exchange.request.route.json_answer:
                exchange.request_bytes = len(exchange.request.body)

    def _settle(self, exchange: Exchange, row: RequestEnded | None) -> None:
        """Count what a request used. Speech and images, whose bytes say nothing, count only what was told."""
        most_in = most_out = 0
        if row is not None and row.first_byte_us is not None and row.outcome in (OK, ErrorCode.CLIENT_GONE):
            most_in = exchange.request_bytes
            most_out = exchange.response.size_bytes if most_in else 0
        self.limiter.over(exchange.request.key, row, most_in=most_in, most_out=most_out)

    def resume(self, exchange: Exchange) -> None:
        """Go on with a request that came back over the bridge."""
        exchange.task = self.spawn(self._dispatch(exchange))

    def tells_usage(self, exchange: Exchange) -> bool:
        """Return whether the model's engine tells the usage of a stream if asked for it."""
        return self.engines.tells_usage(exchange.model)

    def lost(self, exchange: Exchange, known: Lost, why: str) -> None:
        """Retry a request that the engine cannot have begun, or that a stale connection swallowed, if it is
        known to change nothing (RFC 9110, section 9.2.2): on the same engine alone, lest it kill another."""
        exchange.swallowed = known is Lost.STALE and exchange.request.route.json_answer
        exchange.failing_us = 0  # this connection could be made
        if self._may_retry(exchange) and (known is Lost.UNREAD or exchange.swallowed):
            exchange.task = self.spawn(self._dispatch(exchange))
            return
        exchange.fail(EngineFault(ErrorCode.REPLICA_LOST, f"the connection to the engine: {why}"))

    def ended(self, exchange: Exchange, row: RequestEnded | None) -> None:
        """Write the row of a request that is over."""
        self._active.discard(exchange)
        if exchange.rationed:
            self._settle(exchange, row)
        if row is not None:
            if not self._rows:
                asyncio.get_running_loop().call_later(POST_AFTER_S, self.post_rows)
            self._rows.append(row)
        if self._quiet is not None and not self._active and not self._quiet.done():
            self._quiet.set_result(None)

    def post_rows(self) -> None:
        """Pass the collected rows to the ledger and the metrics in one batch."""
        rows, self._rows = self._rows, []
        if rows:
            self._ledger.post(rows)
            for row in rows:
                self._observe(row)

    async def drained(self) -> None:
        """Wait until no request is in flight or held. May be cancelled at any time."""
        while self._active:
            self._quiet = asyncio.get_running_loop().create_future()
            try:
                await self._quiet
            finally:
                self._quiet = None

    def end_overlong(self) -> None:
        """End the requests that have kept an engine at work for longer than is allowed."""
        limit_us = self.settings.max_request_us
        for exchange in list(self._active) if limit_us else ():
            if exchange.leased_us is not None and self.clock.now_us() - exchange.leased_us > limit_us:
                why = f"the request took longer than the {limit_us / SECOND_US:g} s of gateway.max_request_s"
                exchange.fail(EngineFault(ErrorCode.UPSTREAM_TIMEOUT, why))

    def end_revoked(self, in_use: Callable[[str], bool]) -> None:
        """End the requests of keys that were revoked meanwhile: a stream may go on for hours."""
        for exchange in list(self._active):
            if exchange.request.key and not in_use(exchange.request.key):
                why = "the API key was revoked, or has expired"
                exchange.fail(RequestFault(ErrorCode.UNAUTHENTICATED, why))

    def fail_all(self, why: str) -> None:
        """End every request that is not over with `draining`."""
        for exchange in list(self._active):
            exchange.fail(TryLater(ErrorCode.DRAINING, why))

    async def _dispatch(self, exchange: Exchange) -> None:
        """Bring one request to an engine, or fail it. Cancelled: its exchange is already over."""
        try:
            upstream = await self._reach(exchange)
        except PoorwillError as error:
            exchange.task = None
            self._refuse(exchange, error)
        except Exception as error:
            self._log.error("request failed by a defect", request=exchange.request_id, error=error)
            exchange.task = None
            exchange.fail(PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why"))
        else:
            exchange.task = None
            if upstream is not None:
                upstream.send(exchange)
                if exchange.request.spool is not None:
                    exchange.task = self.spawn(upstream.pour(exchange.request.spool, exchange))

    async def _reach(self, exchange: Exchange) -> Upstream | None:
        """Return a connection to a replica that the exchange has a lease on; None: it crossed the bridge."""
        while True:
            if exchange.lease is None:
                lease = self.activator.claim(exchange.model, exchange.last_served_by)
                lease = lease or await self._wait(exchange)
                if lease is None:
                    return None
                exchange.leased(lease, at_us=self.clock.now_us())
            assert exchange.lease is not None
            host, port = exchange.lease.host, exchange.lease.port
            try:
                # After a stale connection only a new one will do: its neighbours are as old.
                idle = self._pool.take(host, port) if exchange.tries == 0 else None
                return idle or await self._pool.connect(host, port)
            except OSError as error:
                exchange.release()
                if exchange.swallowed:
                    why = "the connection to the engine: closed by it, and it accepts no other"
                    raise EngineFault(ErrorCode.REPLICA_LOST, why) from error
                if error.errno in SHORT_OF_RESOURCES:
                    why = f"poorwill cannot connect: {error.strerror}"
                    raise TryLater(ErrorCode.OVERLOADED, why, retry_after_s=2) from error
                why = unverified(error)
                if why or not self._may_retry(exchange):
                    why = why or "the engine accepts no connection"
                    raise EngineFault(ErrorCode.UPSTREAM_CONNECT, why) from error
            await asyncio.sleep(RETRY_DELAY_S * 2**exchange.tries)

    async def _wait(self, exchange: Exchange) -> Lease | None:
        """Send a request over the bridge (None), or hold it until there is a lease; if that fails, as well.

        The hold is registered and awaited together: a place that is not awaited could not be freed.
        """
        bridge = self.bridges.get(exchange.model)
        if bridge is not None and await bridge.cross(exchange, self, instead_of=None):
            return None
        try:
            with self.limiter.holding(exchange.request.key), self._hold(exchange) as held:
                return await held.lease()
        except TryLater as error:
            if bridge is not None and await bridge.cross(exchange, self, instead_of=error):
                return None
            raise

    def _hold(self, exchange: Exchange) -> Heartbeat:
        """Register a place in the queue. Raises TryLater if the queue is full."""
        held = self.activator.hold(
            exchange.model,
            size_bytes=len(exchange.request.body),
            asked_by=exchange.request.key or "anonymous",
            request=exchange.request_id,
            priority=self.limiter.priority(exchange.request.key),
        )
        return Heartbeat(exchange=exchange, held=held, settings=self.settings, clock=self.clock)

    def _may_retry(self, exchange: Exchange) -> bool:
        """Count a try that failed; return whether there may be another."""
        now = self.clock.now_us()
        exchange.tries += 1
        exchange.failing_us = exchange.failing_us or now
        return exchange.tries < TRIES and now < exchange.failing_us + RETRY_WITHIN_US

    def _refuse(self, exchange: Exchange, error: PoorwillError) -> None:
        if error.code is ErrorCode.MODEL_NOT_FOUND:
            key = exchange.request.key
            models = [name for name in self._models() if self.limiter.may_use(key, name)]
            error = unknown_model(exchange.model, models)
            exchange.model = ModelName("")  # no row: the ledger has no use for models that do not exist
        exchange.fail(error)
