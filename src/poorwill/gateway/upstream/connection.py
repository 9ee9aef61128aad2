"""One connection to an engine: idle in the pool, or carrying one exchange.

Relays what the parser hands over as it comes and does not decide about leases or clients. Two rules
from measurement: ask the parser about keep-alive inside `on_message_complete` (afterwards it has
forgotten), and one parser lives as long as its connection.
"""

import asyncio

import httptools

from poorwill.core.errors import EngineFault, ErrorCode
from poorwill.gateway.downstream.exchange import Exchange, Lost
from poorwill.gateway.downstream.response import Headers
from poorwill.gateway.downstream.spool import Spool
from poorwill.gateway.upstream.headers import HOP, without_credentials
from poorwill.gateway.upstream.receiver import AddressPool, ResponseHandler
from poorwill.hosts.files.reach import PROXY_STATUSES, Reach
from poorwill.hosts.tcp import closed_unread, reset_on_close

_HEAD_BYTES_MAX = 256 * 1024
_RESET_AT_ONCE_S = 1.0
_RESET_FOLLOWS_S = 0.25
"""A server that shuts a connection down before it closes it sends a FIN, then a reset if data is unread."""
_RESET_LOOK_S = 0.005
_SETTLES_S = 0.02
"""llama.cpp ends a connection after each event stream, in spite of the Keep-Alive it has sent: a moment after
the last chunk, when the next request could be on its way."""

_BODYLESS_STATUS = frozenset({204, 205})
_TOO_LONG = frozenset({504, 522, 524})
_BODYLESS = frozenset({b"GET", b"DELETE"})
_UPGRADE = b"connection: upgrade\r\nupgrade: websocket\r\n"


def _fault(why: str) -> EngineFault:
    return EngineFault(ErrorCode.UPSTREAM_PROTOCOL, why)


class Upstream(asyncio.Protocol):
    """A keep-alive connection. `send` starts an exchange; everything after that is a callback."""

    __slots__ = (
        *("_complete", "_content_type", "_ended", "_framed", "_head_bytes", "_headers", "_keep", "_length"),
        *("_loop", "_nominated", "_parser", "_parts", "_pool", "_pouring", "_relaying", "_relieved"),
        *("_status", "_transport", "_tunnel", "exchange", "heard", "paused", "settles_at", "used"),
    )

    def __init__(self, *, pool: AddressPool["Upstream"], loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self.exchange: ResponseHandler | None = None
        self.heard = loop.time()
        """When the engine was last heard of, on the loop's clock."""
        self._tunnel: Exchange | None = None
        self._pouring = self._ended = False
        self._relieved: asyncio.Future[None] | None = None
        self.paused = False
        self.used = False
        """Whether it has carried a whole exchange: only then can it be stale."""
        self.settles_at = 0.0
        """Until when, on the loop's clock, the engine may still end it after an event stream."""
        self._await_response()

    def _await_response(self) -> None:
        self._headers: Headers = []
        self._head_bytes = 0
        self._length: int | None = None
        self._framed = False
        self._content_type = b""
        self._nominated = b""
        self._status = 0
        self._relaying = False
        self._complete = False
        self._keep = False

    @property
    def usable(self) -> bool:
        """Whether a request can be written to it."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, exchange: Exchange) -> None:
        """Write the request; its answer goes to the exchange as it comes."""
        head = exchange.request.head
        assert self._transport is not None
        self.exchange = exchange
        self.heard = self._loop.time()
        name = exchange.engine_name if exchange.lease is not None else ""
        body, spool = exchange.body_for(name), exchange.request.spool
        size = len(body) if spool is None else spool.length(name)
        length = b"" if not size and head.method in _BODYLESS else b"content-length: %d\r\n" % size
        if exchange.tunnels:
            self._tunnel, body, length = exchange, b"", _UPGRADE
        target, forward = exchange.target_for(name), head.forward
        if (reach := self._pool.reach) is not None:
            target, forward = reach.url.prefix.encode() + target, without_credentials(forward)
        self._transport.write(
            b"%b %b HTTP/1.1\r\n%b%b%bx-request-id: %b\r\n\r\n%b"
            % (
                head.method,
                target,
                self._pool.head_lines,
                forward,
                length,
                exchange.response.request_id,
                body,
            )
        )
        exchange.attach(self)

    async def pour(self, spool: Spool, exchange: Exchange) -> None:
        """Write a body that is on disk, as fast as the engine reads. Cancelled: the exchange is over."""
        name = exchange.engine_name if exchange.lease is not None else ""
        self._pouring = True
        try:
            async for piece in spool.pieces(name):
                if self.exchange is not exchange or self._transport is None:
                    return  # it has answered already, or is gone
                self.write(piece)
                if self._relieved is not None:
                    await self._relieved
        except OSError as error:
            self._broken(_fault(f"the form could not be read again: {error.strerror}"))
        finally:
            self._pouring = False
        exchange.task = None

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self._transport is not None
        self.heard = self._loop.time()
        self._transport.write(data)

    def pause_writing(self) -> None:
        """The engine reads too slowly."""
        self._relieved = self._loop.create_future()
        if self._tunnel is not None:
            self._tunnel.congested_engine(congested=True)

    def resume_writing(self) -> None:
        """The engine reads on."""
        relieved, self._relieved = self._relieved, None
        if relieved is not None and not relieved.done():
            relieved.set_result(None)
        if self._tunnel is not None and not self._tunnel.over:
            self._tunnel.congested_engine(congested=False)

    def carry(self, carried: ResponseHandler, request: bytes) -> None:
        """Write a request that was composed elsewhere; its answer goes to `carried` as it comes."""
        self.exchange = carried
        self.write(request)
        carried.attach(self)

    def abandon(self) -> None:
        """Close at once; the exchange hears nothing more. Idempotent."""
        self.exchange, self.settles_at = None, 0.0
        self._pool.closing(self)
        if self._transport is not None:
            self._transport.abort()

    def send_back(self, why: str) -> bool:
        """Have the request sent to another replica if no byte of an answer has come; return whether it is."""
        exchange = self.exchange
        if self._head_bytes or self._tunnel or not isinstance(exchange, Exchange):
            return False
        self.abandon()
        exchange.release()
        exchange.on_lost(Lost.UNREAD, why)
        return True

    def reset(self) -> None:
        """Close an idle connection at both ends at once.

        With an RST, not a FIN: the engine's socket must not linger half closed when its process is
        dumped. Nothing is lost, because nothing is in flight.
        """
        if self._transport is not None:
            reset_on_close(self._transport)
        self.abandon()

    def pause(self) -> None:
        """Stop reading; the engine's own back-pressure follows."""
        if not self.paused and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused and self._transport is not None:
            self.paused = False
            self.heard = self._loop.time()
            self._transport.resume_reading()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the pool."""
        self._transport = transport  # type: ignore[assignment]
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then pass on what it found: a head, pieces of a body, the end."""
        exchange = self.exchange
        if exchange is None:  # an unsolicited answer
            self.abandon()
            return
        self.heard = self._loop.time()
        if self.tunnels and self._tunnel is not None:
            self._tunnel.response.write(data)
            return
        self._pool.answered(self.heard)
        announced = self._relaying
        if not announced:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error, httptools.HttpParserUpgrade) and self._tunnel is not None:
                self._switch(self._tunnel, data[error.args[0] :])
                return
            cause = error.__context__
            self._broken(
                cause
                if isinstance(cause, EngineFault)
                else _fault(f"the engine's answer is not HTTP: {error}")
            )
            return
        if not announced:
            if not self._relaying:
                if self._head_bytes > _HEAD_BYTES_MAX:
                    self._broken(_fault("the head of the engine's answer is too large"))
                return
            self._announce(exchange)
        if self._parts:
            parts, self._parts = self._parts, []
            exchange.on_body(parts)
        elif not announced and not self._complete:
            exchange.flush()
        if self._complete:
            self._done(exchange)

    def eof_received(self) -> bool:
        """Close; if a reused connection ends before an answer, once the reset that may follow has come."""
        self._ended = True
        reach = self._pool.reach
        plain = not self._pool.relayed and (reach is None or reach.tls is None)  # asyncio closes TLS itself
        waits = plain and self.exchange is not None and self.used and not self._head_bytes
        if waits:
            self._await_reset(self._loop.time() + _RESET_FOLLOWS_S)
        return waits

    def _await_reset(self, until: float) -> None:
        """Close once the connection has been reset; asyncio does not tell, since it reads no more."""
        assert self._transport is not None
        if self._transport.is_closing() or self._loop.time() >= until or closed_unread(self._transport):
            self._transport.close()
        else:
            self._loop.call_later(_RESET_LOOK_S, self._await_reset, until)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool and tell the exchange; its policy decides what follows."""
        exchange, self.exchange = self.exchange, None
        self._pool.closed(self)
        self.resume_writing()
        if self.settles_at and self._loop.time() - self.settles_at < _RESET_AT_ONCE_S:
            self._pool.ends_streams = True
        if exchange is None:
            return
        if self._relaying and not self._framed and exc is None:
            exchange.on_end()  # a body that ends with the connection
        else:
            exchange.on_lost(self._known(exc), str(exc) if exc else "closed by the engine")

    # -- httptools

    def on_message_begin(self) -> None:
        """Refuse a second response: no request is waiting for it."""
        if self._complete:
            raise _fault("the engine sent more than one response to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the headers that are for the client."""
        if self._relaying:
            return  # a trailer: dropped, as RFC 9110 section 6.5.1 allows
        lower = name.lower()
        if lower not in HOP:
            if lower == b"content-type":
                self._content_type = value.lower()
            self._headers.append((name, value))
        elif lower == b"content-length":
            self._length = int(value)
            self._framed = True
        elif lower == b"transfer-encoding":
            if self._framed or value.strip().lower() != b"chunked":
                raise _fault("the engine framed its answer in a way other than a length or `chunked`")
            self._framed = True
        elif lower == b"connection":
            self._nominated += b"," + value.lower() if self._nominated else value.lower()

    def on_headers_complete(self) -> None:
        """Tell a final head from an interim one."""
        self._status = status = self._parser.get_status_code()
        self._relaying = status >= 200
        if status == 304:
            self._length = None  # of the body that it does not have
        elif status in _BODYLESS_STATUS or not self._relaying:
            if self._framed:
                raise _fault(f"the engine framed a body for the status {status}, which has none")
            self._framed = self._relaying
        if self._relaying and self._pool.reach is not None:
            self._as_from_elsewhere(self._pool.reach)

    def _as_from_elsewhere(self, reach: Reach) -> None:
        """Refuse what a proxy says in the engine's place, and what could end too early unnoticed."""
        if self._status in PROXY_STATUSES and b"json" not in self._content_type:
            code = ErrorCode.UPSTREAM_TIMEOUT if self._status in _TOO_LONG else ErrorCode.UPSTREAM_CONNECT
            raise EngineFault(code, f"a proxy answers {self._status} in the engine's place")
        if reach.tls is not None and not self._framed and self._status not in (204, 304):
            # Without a close_notify, which asyncio does not tell, anybody may have ended it (RFC 9112, 9.8).
            raise _fault("the engine's answer over TLS says nothing of its length")

    def on_body(self, data: bytes) -> None:
        """Collect the pieces of one read."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """Note the end, and whether the connection survives it."""
        if self._relaying:
            self._complete = True
            self._keep = self._parser.should_keep_alive()
        elif self._status != 101:
            # An interim response was for this hop alone: nothing of it may frame the final one.
            self._headers, self._content_type, self._nominated = [], b"", b""

    @property
    def tunnels(self) -> bool:
        """Whether it carries a tunnel, which may be silent for long."""
        return self._tunnel is not None and self._tunnel.open

    def _switch(self, exchange: Exchange, rest: bytes) -> None:
        if self._status != 101:
            self._broken(_fault("the engine upgraded the connection without a 101"))
            return
        headers, self._headers = self._headers, []
        exchange.on_switch(headers)
        if rest:
            exchange.response.write(rest)

    def _announce(self, exchange: ResponseHandler) -> None:
        headers, self._headers = self._headers, []
        if self._nominated not in (b"", b"close", b"keep-alive"):
            named = {word.strip() for word in self._nominated.split(b",")}
            headers = [pair for pair in headers if pair[0].lower() not in named]
        exchange.on_head(self._status, headers, length=self._length, content_type=self._content_type)

    def _done(self, exchange: ResponseHandler) -> None:
        """Return to the pool first, so a drain that sees the lease come back finds the connection."""
        assert self._transport is not None
        self.exchange = None
        streamed = self._content_type.startswith(b"text/event-stream")
        self._keep &= not (streamed and self._pool.ends_streams)
        # An engine may answer before it has read the whole request; the rest must not be taken for the next.
        if self._keep and not self._pouring and not self._transport.get_write_buffer_size():
            self.used = True
            self.settles_at = self._loop.time() + _SETTLES_S if streamed else 0.0
            self._await_response()
            self.resume()
            self._pool.rest(self)
        else:
            self.abandon()
        exchange.on_end()

    def _known(self, exc: Exception | None) -> Lost:
        """Return what the end of the connection says of the request that was on it.

        An engine that has not taken all of a request, or closes with some unread, resets the connection. One
        that had read all of it ends it cleanly, even if it is killed; but so do servers that were about to
        end it, and throw away what has come in meanwhile (RFC 9112, section 9.6). A relay passes the engine's
        own end on; where its host or its service dies instead, the engine is not to blame.
        """
        if self._pool.relayed and not (self._ended or self._head_bytes or self._tunnel):
            return Lost.UNREAD
        if not self.used or self._head_bytes or self._transport is None:
            return Lost.BEGUN
        at_once = self._loop.time() - self.heard < _RESET_AT_ONCE_S
        if isinstance(exc, ConnectionError):
            return Lost.UNREAD if at_once else Lost.BEGUN
        if exc is None and closed_unread(self._transport):
            return Lost.UNREAD
        return Lost.STALE if exc is None and at_once and self._tunnel is None else Lost.BEGUN

    def _broken(self, why: EngineFault) -> None:
        exchange = self.exchange
        self.abandon()
        if exchange is not None:
            exchange.fail(why)
