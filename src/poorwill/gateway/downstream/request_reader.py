"""The requests that arrive on one connection: from bytes to complete requests, or to the fault that ends it.

Owns one parser and the request that is arriving; checks every limit as the bytes come, and the route and
the key as soon as a head is complete, before a byte of its body is waited for. Knows no socket and no
time.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import httptools

from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.settings import GatewaySettings
from poorwill.gateway.downstream.head_checks import Head, read_head, refusal
from poorwill.gateway.downstream.incoming import Checks, Incoming
from poorwill.gateway.downstream.request_memory import UNCOUNTED_BYTES, RequestMemory
from poorwill.gateway.downstream.spool import SPOOL_FROM_BYTES, Spool, no_disk
from poorwill.gateway.routes import (
    PREFLIGHT,
    Action,
    NoRoute,
    Route,
    inference_methods,
    inference_route,
    path_meant,
    vendor_route,
)
from poorwill.policies.requests.key_limits import key_name

_FRAMING_SHARE = 8
"""Bytes of chunk framing allowed for each byte of data: five are fair for chunks of one byte."""
_SLICE_BYTES = 4 * 1024
"""How much is parsed at once: a read of 256 KB has room for nine thousand small requests."""
_CHUNKED_SLICE_BYTES = 16 * 1024


_Line = tuple[bytes, bytes, str, bool, GatewaySettings]
"""What a head is known by besides its headers; a reload makes all unknown."""


class Stage(Enum):
    """How much of a request is here."""

    NONE = auto()
    HEAD = auto()
    BODY = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckedHead:
    """The last head of a connection: a client repeats all of it but the length of the body."""

    line: _Line
    """Method, target and version, and whether keys are required: then none reaches the engine."""
    headers: list[tuple[bytes, bytes]]
    head: Head
    route: Route


class RequestReader:
    """Parses what one client sends. `feed` never raises."""

    __slots__ = (
        *("_body", "_checks", "_counted", "_headers", "_keeps_alive", "_key", "_last", "_length"),
        *("_most_headers", "_offer_ignored", "_parser", "_size", "_target", "_unread_at", "head"),
        *("over", "part", "ready", "route", "spool", "stage", "unread"),
    )

    def __init__(self, *, checks: Checks) -> None:
        self._checks = checks
        self._most_headers = checks.settings.max_headers
        self._parser: Any = None
        self.ready: list[Incoming | PoorwillError] = []
        """Complete requests, in order; a fault is always last."""
        self.over = False
        """Whatever arrives from now on is ignored."""
        self.part = 0
        """Grows with each part of a request that is complete or has begun: tells one wait from the next."""
        self._last: _CheckedHead | None = None
        self.unread = b""
        """What arrived and is not parsed yet, from `_unread_at` on."""
        self._unread_at = 0
        self._forget()

    def _forget(self) -> None:
        self.stage = Stage.NONE
        self.head: Head | None = None
        self.route: Route | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._size = 0
        self._key = ""
        self._body: bytes | bytearray = b""
        self._counted = 0
        self.spool: Spool | None = None
        self._keeps_alive = False
        self._offer_ignored = False

    def feed(self, data: bytes) -> None:
        """Parse a slice of what arrived, see `ready`; `read_on` parses the rest."""
        if not self.unread and len(data) <= _SLICE_BYTES:
            if not self.over:
                self._parse(data)
            return
        if self.unread:
            data = self.unread[self._unread_at :] + data
        self.unread, self._unread_at = data, 0
        self.read_on()

    def read_on(self) -> bool:
        """Parse the next slice of what arrived. Returns False if there is none."""
        data, begin = self.unread, self._unread_at
        if self.over or not data:
            self.unread = b""
            return False
        end = begin + self._slice_bytes()
        if end < len(data):
            self._unread_at = end
        else:
            self.unread = b""
        self._parse(data[begin:end])
        return True

    def _slice_bytes(self) -> int:
        if self.stage is not Stage.BODY:
            return _SLICE_BYTES
        if self._length is None:
            return _CHUNKED_SLICE_BYTES
        return max(self._length - self._arrived(), _SLICE_BYTES)

    def _arrived(self) -> int:
        return len(self._body) if self.spool is None else self.spool.size

    def _parse(self, data: bytes) -> None:
        self._size += len(data)
        while True:
            if self._parser is None:
                self._parser = httptools.HttpRequestParser(self)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                if self.over:  # it is taken: what follows is for the other end of the tunnel
                    for one in self.ready[-1:]:
                        if isinstance(one, Incoming):
                            one.body = data
                    return
                self._ignore_offer()
                if data and not self.over:
                    continue
            except httptools.HttpParserError as error:
                if not self.over:  # else only what follows the last request is wrong
                    self._stop(self._fault_of(error))
                return
            break
        if self.stage is not Stage.NONE:
            self._check_growth()

    def _ignore_offer(self) -> None:
        """Go on as if no other protocol were offered (RFC 9110, 7.8).

        The parser takes what follows the head for the other protocol, so a new one is told how the body is
        framed; a head that is known already is not looked at again.
        """
        assert self.head is not None
        framing = b""
        if self.head.chunked:
            framing = b"transfer-encoding: chunked\r\n"
        elif self._length is not None:
            framing = b"content-length: %d\r\n" % self._length
        kept = b"keep-alive" if self._keeps_alive else b"close"
        self._offer_ignored = True
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\nconnection: %b\r\n%b\r\n" % (kept, framing))

    def rest(self) -> None:
        """Release the memory that only the next request needs, which may be long in coming."""
        self._last = None
        if self.stage is Stage.NONE and not self.ready and not self.unread:
            self._parser = None
            self.ready = []

    def drop(self) -> None:
        """Forget everything and ignore what follows."""
        self.over = True
        self.unread = b""
        for one in self.ready:
            if isinstance(one, Incoming):
                one.drop_body()
        self.ready.clear()
        self._uncount()
        if self.spool is not None:
            self.spool.close()
        self._forget()

    # -- httptools

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self.head is not None:
            return
        self.stage = Stage.HEAD
        self.part += 1

    def on_url(self, fragment: bytes) -> None:
        """Add to the target: it comes in fragments if the request line was split."""
        self._target += fragment

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; one after the head is a trailer, which may be dropped (RFC 9110, 6.5.1)."""
        if self.head is not None:
            return
        if len(self._headers) >= self._most_headers:  # a tiny one takes 20 times its size
            raise refusal(f"more than {self._most_headers} headers")
        if len(name) == 14 and name.lower() == b"content-length":
            self._length = int(value)  # digits, once: the parser checked
            return
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head, the route and the key."""
        if self.head is not None:
            return
        checks = self._checks
        limits = checks.settings
        if self._counted:
            self._uncount()
        if self._size > limits.max_header_bytes:
            self._measure_head()
        parser = self._parser
        line = (
            parser.get_method(),
            self._target,
            parser.get_http_version(),
            checks.keys.required,
            limits,
        )
        known = self._last
        if known is None or known.headers != self._headers or known.line != line:
            known = self._last = self._examine(line)
        self.head, self.route = known.head, known.route
        self._check_size(self._length or 0)
        if known.route.needs_key:
            self._key = key_name(checks.keys, known.head.credential, public=checks.public)
        self.stage = Stage.BODY
        self.part += 1

    def _examine(self, line: _Line) -> "_CheckedHead":
        """Check a head that differs from the last one."""
        method, target, version, *_ = line
        head = self.head = read_head(
            method=method, target=target, version=version, headers=self._headers, rules=self._checks.rules()
        )
        head.offers_upgrade = self._parser.should_upgrade()
        added = self._checks.settings.paths
        route = PREFLIGHT if head.preflight else added and vendor_route(head.path_text, added)
        route = route or inference_route(head.method, head.path)
        if route is None:
            raise NoRoute(
                method=head.method.decode(),
                path=head.path_text,
                allowed=inference_methods(head.path),
                meant=path_meant(head.path),
            )
        if route.needs_key and head.foreign_page:
            raise RequestFault(ErrorCode.FORBIDDEN, head.foreign_page)
        return _CheckedHead(line=line, headers=self._headers, head=head, route=route)

    def _measure_head(self) -> None:
        size = len(self._target) + sum(len(n) + len(v) + 4 for n, v in self._headers)
        if size > self._checks.settings.max_header_bytes:
            raise self._head_too_large()

    def on_body(self, data: bytes) -> None:
        """Add to the body, within its limit."""
        if self.spool is not None:
            self.spool.add(data)
        elif not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
            if len(self._body) > SPOOL_FROM_BYTES and self._is_form:
                self._begin_spool()
        self._check_size(self._arrived())

    @property
    def _is_form(self) -> bool:
        return self.head is not None and self.head.content_type[:19].lower() == b"multipart/form-data"

    def _begin_spool(self) -> None:
        self._uncount()
        try:
            self.spool = self._checks.new_spool()
        except OSError as error:
            raise no_disk(error) from error
        self.spool.add(bytes(self._body))
        self._body = b""

    def on_message_complete(self) -> None:
        """Queue the request; asked anywhere else, the parser has forgotten about keep-alive."""
        assert self.head is not None and self.route is not None
        keep_alive = self._parser.should_keep_alive()
        tunnel = self.head.websocket and self.route.action is Action.TUNNEL
        if self.head.offers_upgrade and not self._offer_ignored and not tunnel:
            self._keeps_alive = keep_alive
            return
        if self._arrived() > UNCOUNTED_BYTES:
            self._count(self._arrived())
        self.ready.append(
            Incoming(
                head=self.head,
                route=self.route,
                key=self._key,
                body=bytes(self._body),
                keep_alive=keep_alive,
                arrived_us=self._checks.clock.now_us(),
                memory=self._memory,
                counted_bytes=self._counted,
                spool=self.spool,
            )
        )
        self.over = tunnel or not keep_alive
        self._forget()

    def _check_growth(self) -> None:
        """Count what has arrived; refuse a head, or the framing of a chunked body, that grows without end."""
        arrived = self._arrived() if self.head is not None else self._size
        if arrived > UNCOUNTED_BYTES:
            try:
                self._count(arrived)
            except PoorwillError as error:
                self._stop(error)
                return
        limit = self._checks.settings.max_header_bytes
        if self.head is None:
            if self._size > limit:
                self._stop(self._head_too_large())
        elif self.head.chunked and self._size > limit + _FRAMING_SHARE * (arrived + 1024):
            self._stop(refusal("the chunks of the body carry more framing than data"))

    @property
    def _memory(self) -> RequestMemory:
        return self._checks.memory if self.spool is None else self._checks.disk

    def _count(self, size: int) -> None:
        """Count the request's bytes. Raises TryLater if there is no room for them."""
        if size > self._counted:
            self._memory.take(self._key, size - self._counted)
            self._counted = size

    def _uncount(self) -> None:
        if self._counted:
            self._memory.give_back(self._key, self._counted)
            self._counted = 0

    def _stop(self, fault: PoorwillError) -> None:
        self.over = True
        self._uncount()
        self.ready.append(fault)

    def _fault_of(self, error: Exception) -> PoorwillError:
        cause = error.__context__
        if not isinstance(error, httptools.HttpParserCallbackError):
            return refusal(f"the request is not valid HTTP: {error}")
        if isinstance(cause, PoorwillError):
            return cause
        self._checks.log.error("parsing failed by a defect", error=cause or error)
        return PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why")

    def _head_too_large(self) -> RequestFault:
        limit = self._checks.settings.max_header_bytes
        return refusal(f"the head is larger than the limit of {limit} bytes")

    def _check_size(self, size: int) -> None:
        """Raises RequestFault if the body is, or will be, too large: for memory, or a form for the disk."""
        limits = self._checks.settings
        if size > limits.max_body_bytes and not (self._is_form and size <= limits.max_upload_bytes):
            limit = max(limits.max_body_bytes, limits.max_upload_bytes if self._is_form else 0)
            what = f"the body is larger than the limit of {limit} bytes"
            raise RequestFault(ErrorCode.PAYLOAD_TOO_LARGE, what)
