"""One client connection: its socket, its time limits, and its requests served in order.

`request_reader` parses and checks, `exchange` serves; this module connects the two. Requests that a client
sends without waiting (pipelining) are served one after the other, `MOST_A_TURN` in one turn of the loop;
while one is in work no more than one read is buffered, and from a client that does not read its answers
nothing more is read.

A client that closes its half of the connection counts as gone, as it does for nginx and for Go's
net/http: the bytes are the same as those of a client that left, and a place in the queue or an engine's
time must not be kept for a client that left.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.words import SECOND_US
from poorwill.gateway import wire
from poorwill.gateway.downstream.exchange import Exchange
from poorwill.gateway.downstream.head_checks import refusal
from poorwill.gateway.downstream.incoming import Checks, Incoming
from poorwill.gateway.downstream.request_reader import RequestReader, Stage
from poorwill.gateway.downstream.response import Ending, Response
from poorwill.gateway.downstream.spool import PENDING_BYTES, Spool, no_disk
from poorwill.gateway.inference import Handler
from poorwill.gateway.request_policy import RequestPolicy
from poorwill.gateway.routes import Action, unrouted_dialect
from poorwill.gateway.wire import Dialect
from poorwill.hosts.tcp import reset_on_close

MOST_A_TURN = 8
"""Requests of one connection served in one turn of the loop: the other connections wait no longer."""
LINGER_S = 2.0
"""How long a closing connection may take to read its last response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerContext:
    """What all client connections of a gateway share."""

    checks: Checks
    policy: RequestPolicy
    handlers: Mapping[Action, Handler]
    new_request_id: Callable[[], str]
    refused: Callable[[ErrorCode], None]
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    connections: set["Downstream"]
    left: Callable[[str], None]
    """Called when the connection of a peer is closed."""


def make_room(connections: Collection["Downstream"], peer: str | None) -> bool:
    """Close some connections that have nothing in work, of a peer or of all; return whether there were any.

    Those without a known key go first, then those idle the longest: a new one has time to ask for something.
    """
    idle = [one for one in connections if one.idle and (peer is None or one.peer == peer)]
    idle.sort(key=lambda one: (one.trusted, one.quiet_since))
    for one in idle[: 1 + len(idle) // 20]:  # several at once, so that the search is seldom
        one.abort()
    return bool(idle)


class Downstream(asyncio.Protocol):
    """A client's connection, from accept to close."""

    __slots__ = (
        *("_context", "_loop", "_pumping", "_reader", "_reading", "_spilling", "_timed"),
        *("_transport", "_writable", "deadline", "exchange", "peer", "quiet_since", "trusted"),
    )

    def __init__(self, *, context: ListenerContext, loop: asyncio.AbstractEventLoop, peer: str) -> None:
        self._context = context
        self._loop = loop
        self._reader = RequestReader(checks=context.checks)
        self._transport: asyncio.Transport  # set by connection_made, before anything else
        self._timed = -1  # which part of which request the deadline is for
        self._pumping = False
        self._reading = True
        self._spilling = False
        self._writable = True
        self.exchange: Exchange | None = None
        self.peer = peer
        self.trusted = False
        """Whether it has brought a key that is known."""
        self.quiet_since = loop.time()
        """When its last request was over."""
        self.deadline = self.quiet_since + context.checks.settings.head_timeout_us / SECOND_US
        """When the listener's sweep ends this connection, on the loop's clock."""

    def __repr__(self) -> str:
        return f"<Downstream {self.exchange or self._reader.stage.name}>"

    @property
    def idle(self) -> bool:
        """Whether it is open and no request is in work; one may be arriving."""
        return self.exchange is None and not self._transport.is_closing()

    # -- what the listener does

    def expire(self) -> None:
        """End a connection whose deadline has passed: silently if it asked for nothing."""
        stage = self._reader.stage
        if self._reader.over or stage is Stage.NONE or self.exchange is not None:
            self.abort()
        else:
            part = "head" if stage is Stage.HEAD else "body"
            self._refuse(refusal(f"the request's {part} was not complete in time"))

    def retire(self) -> None:
        """Take no further request; close as soon as nothing is in work."""
        if self.exchange is not None:
            self._reader.over = True
            if self.exchange.response.ending is Ending.KEEP:
                self.exchange.response.ending = Ending.CLOSE
        elif self._reader.stage is Stage.NONE:
            self._close()

    def abort(self) -> None:
        """Close at once, even if data is unread."""
        self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the listener."""
        self._transport = transport  # type: ignore[assignment]
        self._context.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read what came, then serve the requests that are complete."""
        if self._reader.over:
            if self.exchange is not None and self.exchange.tunnels:
                self.exchange.from_client(data)
            return
        self._reader.feed(data)
        spool = self._reader.spool
        if spool is not None and spool.pending_bytes > PENDING_BYTES and not self._spilling:
            self._spilling = True
            self._context.spawn(self._spill(spool))
        self._pump()

    async def _spill(self, spool: Spool) -> None:
        """Write a large form out while its client waits; with each piece its time begins anew."""
        try:
            await spool.flush()
        except OSError as error:
            if self._reader.spool is spool:
                self._refuse(no_disk(error))
            return
        finally:
            self._spilling = False
        if self.exchange is None and self._reader.spool is spool:
            self._allow(self._context.checks.settings.body_timeout_us)
        self._pump()

    def eof_received(self) -> bool:
        """Treat a half-closed client as gone; tell one whose request is incomplete."""
        if self.exchange is not None:
            self.exchange.gone()
        elif self._reader.stage is not Stage.NONE:
            self._refuse(refusal("the connection was closed before the request was complete"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Free everything the client held, at once."""
        self._context.connections.discard(self)
        self._context.left(self.peer)
        self._reader.drop()
        if self.exchange is not None:
            self.exchange.gone()

    def pause_writing(self) -> None:
        """The client reads too slowly; it has as long as a body may take to read on."""
        self._writable = False
        self._allow(self._context.checks.settings.body_timeout_us)
        if self.exchange is not None:
            self.exchange.congested()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        if self.exchange is not None:
            self.deadline = inf
            self.exchange.relieved()
        else:
            self._await_request()
            self._pump()

    # -- serving

    def _pump(self) -> None:
        """Serve complete requests in order, some in this turn of the loop; read on only if none waits."""
        reader = self._reader
        if self._pumping:
            return
        self._pumping = True
        served = 0
        while self.exchange is None and self._writable and served < MOST_A_TURN:
            if reader.ready:
                item = reader.ready.pop(0)
                served += 1
                if isinstance(item, Incoming):
                    self._serve(item)
                else:
                    self._refuse(item)
            elif not reader.unread or not reader.read_on():
                break
        self._pumping = False
        waiting = bool(reader.ready or reader.unread)
        if self.exchange is None:
            if served == MOST_A_TURN and waiting:
                self._loop.call_soon(self._pump)
            self._set_reading(reading=self._writable and not waiting and not self._spilling)
            if reader.stage is not Stage.NONE and self._timed != reader.part:
                self._await_request()
        elif waiting or reader.stage is not Stage.NONE or not self._reading:
            self._set_reading(reading=not waiting and reader.stage is Stage.NONE)

    def _await_request(self) -> None:
        """Set the time limit of what is awaited now, and ask for a body that waits to be asked for."""
        reader, settings = self._reader, self._context.checks.settings
        begun, self._timed = self._timed != reader.part, reader.part
        if reader.over:
            self._allow(int(LINGER_S * SECOND_US))
        elif not self._writable:
            self._allow(settings.body_timeout_us)
        elif reader.stage is Stage.NONE:
            self._allow(settings.idle_timeout_us)
        elif reader.stage is Stage.HEAD:
            self._allow(settings.head_timeout_us)
        else:
            self._allow(settings.body_timeout_us)
            if begun and reader.head is not None and reader.head.expects_continue:
                self._write(wire.CONTINUE)

    def _serve(self, request: Incoming) -> None:
        context, head = self._context, request.head
        self.deadline = inf
        if request.key:
            self.trusted = True
        request_id = context.new_request_id()
        keep_alive = request.keep_alive and not context.policy.draining
        response = Response(
            write=self._write,
            request_id=request_id.encode(),
            http11=head.http11,
            ending=Ending.KEEP if keep_alive else Ending.CLOSE,
            bodyless=head.method == b"HEAD",
            dialect=Dialect.ANTHROPIC if head.anthropic else request.route.dialect,
            readable_by=head.readable_by,
            chunk_sizes_only=head.maybe_aiohttp,
        )
        self.exchange = exchange = Exchange(
            owner=context.policy,
            request=request,
            request_id=request_id,
            response=response,
            writable=self._writable,
            finished=self._finished,
            tunnels=request.route.action is Action.TUNNEL,
            read_client=self._set_reading,
        )
        try:
            context.handlers[request.route.action](exchange)
        except Exception as error:
            context.checks.log.error("handler failed by a defect", request=request_id, error=error)
            exchange.fail(PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why"))
        if exchange.streaming or exchange.task is not None:
            self._reader.rest()

    def _finished(self, exchange: Exchange) -> None:
        """Go on to the next request, or close."""
        self.exchange = None
        ending = exchange.response.ending
        if ending is Ending.KEEP:
            self._await_request()
            if self._reader.ready or self._reader.unread or not self._reading:
                self._pump()
        elif ending is Ending.CUT and not exchange.request.head.http11:
            self._reset()  # the end of the connection would be the end of the body
        else:
            self._close()

    def _refuse(self, error: PoorwillError) -> None:
        """Answer a request that is not let in, and close: whatever follows cannot be trusted."""
        head, route = self._reader.head, self._reader.route
        self._context.refused(error.code)
        response = Response(
            write=self._write,
            request_id=self._context.new_request_id().encode(),
            http11=True,
            ending=Ending.CLOSE,
            bodyless=head is not None and head.method == b"HEAD",
            dialect=route.dialect if route else unrouted_dialect(head.path if head else b""),
            readable_by=head.readable_by if head is not None else b"",
        )
        response.fail(error, retry_after_s=error.retry_after_s)
        self._reader.drop()
        if not self._transport.is_closing():
            # Closing with unread input would reset the connection and lose the answer.
            self._transport.write_eof()
            self._set_reading(reading=True)
            self._await_request()

    # -- the socket

    def _write(self, data: bytes) -> None:
        """Send, unless the connection is closed and we are yet to hear of it: uvloop raises then."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def _set_reading(self, *, reading: bool) -> None:
        if reading is self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _allow(self, limit_us: int) -> None:
        self.quiet_since = self._loop.time()
        self.deadline = self.quiet_since + limit_us / SECOND_US

    def _close(self) -> None:
        """Close after what was written has been read, within `LINGER_S`."""
        self._reader.drop()
        self._await_request()
        self._transport.close()

    def _reset(self) -> None:
        self._reader.drop()
        reset_on_close(self._transport)
        self._transport.abort()
