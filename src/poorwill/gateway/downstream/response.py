"""What one client has been sent so far, and so what can still be sent.

Owns the client's side of the framing: the head, the body in the right coding, heartbeats after an early
200, and how a failure is reported in each state. It writes to a callable and knows no socket, engine or
clock.

| sent so far | failure is reported as |
| --- | --- |
| nothing, or interim responses | the real status and an error body |
| an event stream, at the end of an event | one error event, then a clean end and a close |
| white space before JSON | the error object less its last brace, a chunk whose size is the message, a cut |
| anything else | a cut |

A cut is seen by every client: the chunked coding or the content length is left incomplete, and an
HTTP/1.0 connection, whose end is its only framing, is reset.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto

import msgspec

from poorwill.core.errors import PoorwillError
from poorwill.gateway import wire
from poorwill.gateway.routes import NoRoute
from poorwill.gateway.wire import Dialect

Headers = list[tuple[bytes, bytes]]


_CORS = (
    b"access-control-allow-origin: %b\r\nvary: origin\r\n"
    b"access-control-expose-headers: x-request-id, x-poorwill-wake, x-poorwill-bridge, retry-after, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens\r\n"
)


class Sent(Enum):
    """How far a response has gone."""

    NOTHING = auto()
    EVENTS = auto()  # an early 200 whose body is an event stream
    SPACES = auto()  # an early 200 whose body is JSON after white space
    HEAD = auto()  # the engine's own head
    ALL = auto()


class Ending(Enum):
    """What the connection must do after the response."""

    KEEP = auto()
    CLOSE = auto()
    CUT = auto()


class Response(msgspec.Struct, kw_only=True, eq=False):
    """The response to one request, as its client sees it. A Struct: there is one for every request."""

    write: Callable[[bytes], None]
    request_id: bytes
    http11: bool
    bodyless: bool
    dialect: Dialect
    ending: Ending
    """What the connection must do after the response; known for sure when the response is over."""

    readable_by: bytes = b""
    """The origin of a web page that may read it."""
    chunk_sizes_only: bool = False
    """Whether the client may wait for ever after a chunk's size that is none."""
    sent: Sent = Sent.NOTHING
    status: int = 0
    wake_header: bytes = b""
    limits: bytes = b""
    """Header lines that say what its key has left."""
    size_bytes: int = 0
    """Of the body so far, without its framing."""
    chunked: bool = False
    events: bool = False
    lines: bool = False
    """Whether it is a stream of JSON lines."""
    tail: bytes = b"\n\n"
    """The last bytes of the body: an error event may follow the end of an event only."""
    pending: bytes = b""
    """A head that waits for the first piece of its body, to be one write."""

    def interim(self, headers: Headers) -> None:
        """Send a 102: the real status can still follow (RFC 2518 section 10.1)."""
        self.write(wire.head(102, headers))

    def commit_events(self) -> None:
        """Promise a 200 with an event stream, so that comments can keep the connection open."""
        self.sent = Sent.EVENTS
        self.events = True
        self._begin(
            200,
            [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
            ],
            length=None,
        )

    def commit_spaces(self) -> None:
        """Promise a 200 with a JSON body, so that white space can keep the connection open.

        Only for HTTP/1.1: without the chunked coding a cut would look like an end.
        """
        assert self.http11
        self.sent = Sent.SPACES
        kind = b"application/x-ndjson" if self.lines else b"application/json"
        self._begin(200, [(b"content-type", kind)], length=None)

    def filler(self, data: bytes) -> None:
        """Send a comment or white space after a commitment."""
        self._frame(data)

    def switch(self, headers: Headers) -> None:
        """Send a 101: from now on the connection carries another protocol."""
        self.sent, self.status = Sent.HEAD, 101
        ours = [(b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"x-request-id", self.request_id)]
        self.write(wire.head(101, [*headers, *ours]))

    def relay_head(self, status: int, headers: Headers, *, length: int | None, events: bool) -> None:
        """Send the engine's head: `headers` are its own without those of its hop."""
        self.sent = Sent.HEAD
        self.events = events
        self._begin(status, headers, length=length)

    def body(self, parts: Sequence[bytes]) -> None:
        """Send pieces of the body as they came."""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.tail = data[-4:]
        self.size_bytes += len(data)
        if self.chunked:
            data = b"%b%x\r\n%b\r\n" % (self.pending, len(data), data)
        elif self.pending:
            data = self.pending + data
        self.pending = b""
        self.write(data)

    def flush(self) -> None:
        """Send the head if its body has not come yet."""
        if self.pending:
            pending, self.pending = self.pending, b""
            self.write(pending)

    def end(self) -> None:
        """Mark the body as complete."""
        if self.chunked:
            self.pending += wire.LAST_CHUNK
        self.flush()
        self.sent = Sent.ALL

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response of our own. Nothing may have been sent before."""
        assert self.sent is Sent.NOTHING
        self._begin(status, headers, length=len(body))
        if not self.bodyless:
            self.pending += body
        self.flush()
        self.sent = Sent.ALL

    def fail(self, error: PoorwillError, *, retry_after_s: int | None = None) -> None:
        """Report a failure to the client in whichever way is still open."""
        document = wire.error_document(error, dialect=self.dialect, request_id=self.request_id.decode())
        if self.sent is not Sent.NOTHING:
            self.fail_late(document)
            return
        status = wire.http_status(error.code)
        headers: Headers = [(b"content-type", b"application/json")]
        if retry_after_s is not None and wire.may_retry(error.code):
            headers.append((b"retry-after", b"%d" % retry_after_s))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, NoRoute) and error.allowed:
            headers.append((b"allow", ", ".join(error.allowed).encode()))
        self.whole(status, headers, wire.json_bytes(document))

    def fail_late(self, document: dict[str, object]) -> None:
        """Report a failure after a head was sent."""
        self.flush()
        between = self.events and self.tail.endswith((b"\n\n", b"\r\n\r\n"))
        if between or (self.lines and self.tail.endswith(b"\n")):
            self._frame(wire.error_event(document, dialect=self.dialect))
            self.end()
            self.ending = Ending.CLOSE
            return
        if self.sent is Sent.SPACES:
            shown = wire.json_bytes(document)
            # Caddy turns a cut into a clean end; Go's and Jackson's readers of streams stop at an object's.
            self._frame(shown[: shown.rindex(b"}")])
            self.write(wire.broken_chunk(document, size=self.chunk_sizes_only))
        self.sent = Sent.ALL
        self.ending = Ending.CUT

    def _begin(self, status: int, headers: Headers, *, length: int | None) -> None:
        self.status = status
        lines = [wire.status_line(status), *[b"%b: %b\r\n" % pair for pair in headers]]
        if length is not None:
            lines.append(b"content-length: %d\r\n" % length)
        elif status not in (204, 304):
            if self.http11:
                self.chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.ending = Ending.CLOSE
        lines.append(b"x-request-id: %b\r\n" % self.request_id)
        if self.dialect is Dialect.ANTHROPIC:
            lines.append(b"request-id: %b\r\n" % self.request_id)
        if self.readable_by:
            lines.append(_CORS % self.readable_by)
        if self.wake_header:
            lines.append(b"x-poorwill-wake: %b\r\n" % self.wake_header)
        if self.limits:
            lines.append(self.limits)
        if self.ending is not Ending.KEEP:
            lines.append(b"connection: close\r\n")
        elif not self.http11:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self.pending = b"".join(lines)

    def _frame(self, data: bytes) -> None:
        self.pending += wire.chunk(data) if self.chunked else data
        self.flush()
