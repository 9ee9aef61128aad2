"""One client connection: parses requests, refuses what must not come in, serves them in order.

Owns the client's socket and its time limits; `edge` decides about heads, the handlers about complete
requests. Requests that a client sends without waiting (pipelining) are served one after the other; while
one is in work no more than one read is buffered.

A client that closes its half of the connection counts as gone, as it does for nginx and for Go's
net/http: the bytes are the same as those of a client that left, and a place in the queue or an engine's
time must not be kept for nobody.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import httptools

from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.ports import Clock, KeyRing, Log
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US
from poorwill.gateway import wire
from poorwill.gateway.edge import Head, read_head, refusal
from poorwill.gateway.exchange import Exchange
from poorwill.gateway.inference import Handler
from poorwill.gateway.keys import key_name
from poorwill.gateway.request_policy import RequestPolicy
from poorwill.gateway.response import Ending, Response
from poorwill.gateway.routes import Action, Route, inference_route
from poorwill.gateway.wire import Dialect

LINGER_S = 2.0
"""How long a closing connection may take to read its last response."""
_CHUNK_OVERHEAD = 8
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all client connections of a gateway share."""

    settings: GatewaySettings
    keys: KeyRing
    clock: Clock
    log: Log
    policy: RequestPolicy
    handlers: Mapping[Action, Handler]
    new_request_id: Callable[[], str]
    refused: Callable[[ErrorCode], None]
    connections: set["Downstream"]


@dataclass(slots=True, kw_only=True)
class _Request:
    head: Head
    route: Route
    key: str
    body: bytes
    keep_alive: bool
    arrived_us: int


class Downstream(asyncio.Protocol):
    """A client's connection, from accept to close."""

    __slots__ = (
        "_arriving",
        "_body",
        "_head",
        "_headers",
        "_house",
        "_key",
        "_last",
        "_loop",
        "_parser",
        "_pumping",
        "_reading",
        "_ready",
        "_route",
        "_size",
        "_target",
        "_transport",
        "_writable",
        "deadline",
        "exchange",
    )

    def __init__(self, *, house: House, loop: asyncio.AbstractEventLoop) -> None:
        self._house = house
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._ready: list[_Request | PoorwillError] = []
        self._arriving = False  # a part of a request is here, its rest is not
        self._last = False  # what comes from now on is read and forgotten
        self._pumping = False
        self._reading = True
        self._writable = True
        self.exchange: Exchange | None = None
        self.deadline = loop.time() + house.settings.head_timeout_us / SECOND_US
        self._forget()

    def _forget(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._size = 0  # bytes of the current request that were received
        self._head: Head | None = None
        self._route: Route | None = None
        self._key = ""
        self._body: bytes | bytearray = b""

    def __repr__(self) -> str:
        return f"<Downstream {self.exchange or ('arriving' if self._arriving else 'idle')}>"

    # -- what the listener does

    def expire(self) -> None:
        """End a connection whose deadline has passed: silently where it asked for nothing."""
        if self._last or not self._arriving:
            self.abort()
        else:
            part = "body" if self._head is not None else "head"
            self._refuse(refusal(f"the request's {part} was not complete in time"))

    def retire(self) -> None:
        """Take no further request; close as soon as nothing is in work."""
        if self.exchange is None and not self._arriving and not self._ready:
            self._close()
        elif self.exchange is not None and self.exchange.response.ending is Ending.KEEP:
            self.exchange.response.ending = Ending.CLOSE
            self._last = True

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the listener's connections."""
        self._transport = transport  # type: ignore[assignment]
        self._house.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, then serve the requests that are complete."""
        if self._last:
            return
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._last:  # else only what follows the last request is wrong
                self._last = True
                self._ready.append(self._fault_of(error))
        else:
            self._check_size()
        self._pump()

    def eof_received(self) -> bool:
        """Treat a half-closed client as gone; tell one whose request is incomplete."""
        if self.exchange is not None:
            self.exchange.gone()
        elif self._arriving and not self._last:
            self._refuse(refusal("the connection was closed before the request was complete"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Free at once whatever the client held."""
        self._house.connections.discard(self)
        self._last = True
        self._ready.clear()
        if self.exchange is not None:
            self.exchange.gone()

    def pause_writing(self) -> None:
        """The client reads too slowly; it has a body's time to read on."""
        self._writable = False
        self.deadline = self._loop.time() + self._house.settings.body_timeout_us / SECOND_US
        if self.exchange is not None:
            self.exchange.congested()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        self.deadline = inf if self.exchange is not None else self._idle_deadline()
        if self.exchange is not None:
            self.exchange.relieved()

    # -- httptools

    def on_message_begin(self) -> None:
        """Begin a request and its time limit."""
        self._arriving = True
        if self.exchange is None:
            timeout_us = self._house.settings.head_timeout_us
            self.deadline = self._loop.time() + timeout_us / SECOND_US

    def on_url(self, fragment: bytes) -> None:
        """Add to the target: it comes in fragments where the request line was split."""
        self._target += fragment

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; one after the head is a trailer, which may be dropped (RFC 9110, 6.5.1)."""
        if self._head is not None:
            return
        self._headers.append((name, value))
        if len(self._headers) > self._house.settings.max_headers:
            raise refusal(f"more than {self._house.settings.max_headers} headers")

    def on_headers_complete(self) -> None:
        """Check the head, the route and the key before a byte of the body is waited for."""
        house, parser = self._house, self._parser
        self._check_head_size(sum(len(n) + len(v) + 4 for n, v in self._headers))
        head = read_head(
            method=parser.get_method(),
            target=self._target,
            version=parser.get_http_version(),
            headers=self._headers,
            strip_credentials=house.keys.required,
        )
        self._head = head
        if head.method == b"CONNECT" or parser.should_upgrade():
            raise refusal("tunnels and upgrades are not supported")
        if head.length is not None and head.length > house.settings.max_body_bytes:
            raise self._too_large()
        route = self._route = inference_route(head.method, head.path)
        if route is None:
            path = head.path[:200].decode("latin-1")
            raise refusal(f"nothing here answers {head.method.decode()} {path}")
        if route.needs_key:
            self._key = key_name(house.keys, head.credential)
        self._headers = []
        if head.length or head.chunked:
            if self.exchange is None:
                self.deadline = self._loop.time() + house.settings.body_timeout_us / SECOND_US
                if head.expects_continue:
                    self._write(wire.CONTINUE)

    def on_body(self, data: bytes) -> None:
        """Add to the body, within its limit."""
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        if len(self._body) > self._house.settings.max_body_bytes:
            raise self._too_large()

    def on_message_complete(self) -> None:
        """Queue the request; asked anywhere else, the parser has forgotten about keep-alive."""
        assert self._head is not None and self._route is not None
        keep_alive = self._parser.should_keep_alive()
        self._ready.append(
            _Request(
                head=self._head,
                route=self._route,
                key=self._key,
                body=bytes(self._body),
                keep_alive=keep_alive,
                arrived_us=self._house.clock.now_us(),
            )
        )
        self._arriving = False
        self._last = not keep_alive
        self._forget()

    # -- serving

    def _pump(self) -> None:
        """Serve complete requests in order; read on only while none is waiting."""
        if self._pumping:
            return
        self._pumping = True
        while self._ready and self.exchange is None:
            item = self._ready.pop(0)
            if isinstance(item, _Request):
                self._serve(item)
            else:
                self._refuse(item)
        self._pumping = False
        self._set_reading(reading=self.exchange is None or not (self._ready or self._arriving))

    def _serve(self, request: _Request) -> None:
        house, head = self._house, request.head
        self.deadline = inf
        request_id = house.new_request_id()
        dialect = Dialect.ANTHROPIC if head.anthropic else request.route.dialect
        response = Response(
            write=self._write,
            request_id=request_id,
            http11=head.http11,
            keep_alive=request.keep_alive and not house.policy.draining,
            bodyless=head.method == b"HEAD",
            dialect=dialect,
        )
        self.exchange = exchange = Exchange(
            around=house.policy,
            head=head,
            body=request.body,
            route=request.route,
            key=request.key,
            request_id=request_id,
            arrived_us=request.arrived_us,
            response=response,
            writable=self._writable,
            finished=self._finished,
        )
        try:
            house.handlers[request.route.action](exchange)
        except Exception as error:
            house.log.error("handler failed by a defect", request=request_id, error=error)
            exchange.fail(PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why"))

    def _finished(self, exchange: Exchange) -> None:
        """Go on to the next request, or close."""
        self.exchange = None
        ending = exchange.response.ending
        if ending is Ending.KEEP:
            self.deadline = self._idle_deadline()
            self._pump()
            return
        self._last = True
        self._ready.clear()
        if ending is Ending.CUT and not exchange.head.http11:
            self._reset()  # the end of the connection would be the end of the body
        else:
            self._close()

    def _refuse(self, error: PoorwillError) -> None:
        """Answer a request that is not let in, and close: what follows it cannot be trusted."""
        head, route = self._head, self._route
        self._house.refused(error.code)
        response = Response(
            write=self._write,
            request_id=self._house.new_request_id(),
            http11=True,
            keep_alive=False,
            bodyless=head is not None and head.method == b"HEAD",
            dialect=route.dialect if route else Dialect.OPENAI,
        )
        response.fail(error)
        self._last = True
        self._arriving = False
        self._ready.clear()
        self._forget()
        if self._transport is not None and not self._transport.is_closing():
            # Closing with unread input would reset the connection and lose the answer.
            self._transport.write_eof()
            self.deadline = self._loop.time() + LINGER_S
            self._set_reading(reading=True)

    def _fault_of(self, error: Exception) -> PoorwillError:
        cause = error.__context__
        if isinstance(error, httptools.HttpParserUpgrade):
            return refusal("tunnels and upgrades are not supported")
        if not isinstance(error, httptools.HttpParserCallbackError):
            return refusal(f"the request is not valid HTTP: {error}")
        if isinstance(cause, PoorwillError):
            return cause
        self._house.log.error("parsing failed by a defect", error=cause or error)
        return PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why")

    def _check_size(self) -> None:
        """Refuse a head, or the framing of a chunked body, that grows without end."""
        if not self._arriving or self._last:
            return
        fault: PoorwillError | None = None
        if self._head is None:
            if self._size > self._house.settings.max_header_bytes:
                fault = self._head_too_large()
        elif self._head.chunked:
            fair = _CHUNK_OVERHEAD * (len(self._body) + 1024)
            if self._size > fair + self._house.settings.max_header_bytes:
                fault = refusal("the chunks of the body carry more framing than data")
        if fault is not None:
            self._last = True
            self._ready.append(fault)

    def _check_head_size(self, size: int) -> None:
        if size + len(self._target) > self._house.settings.max_header_bytes:
            raise self._head_too_large()

    def _head_too_large(self) -> RequestFault:
        return refusal(f"the head is larger than {self._house.settings.max_header_bytes} bytes")

    def _too_large(self) -> RequestFault:
        limit = self._house.settings.max_body_bytes
        return RequestFault(
            ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than the limit of {limit} bytes"
        )

    # -- the socket

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _set_reading(self, *, reading: bool) -> None:
        if reading is self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _idle_deadline(self) -> float:
        settings = self._house.settings
        timeout_us = settings.head_timeout_us if self._arriving else settings.idle_timeout_us
        return self._loop.time() + timeout_us / SECOND_US

    def _close(self) -> None:
        """Close after what was written has been read, within `LINGER_S`."""
        self._last = True
        self.deadline = self._loop.time() + LINGER_S
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever was not read."""
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
