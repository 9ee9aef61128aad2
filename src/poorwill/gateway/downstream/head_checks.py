"""Checks on a request's head that the parser leaves to us.

httptools (llhttp in its strict mode) refuses bare line feeds, folded headers, both lengths at once,
duplicate or malformed lengths, bad chunks and control characters. This module refuses the rest of what
h11 refuses, sorts the headers into those for us, those for this hop and those for the engine, and never
touches a socket. Known differences from h11 are listed in `tests/gateway/test_edge_against_h11.py`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from poorwill.core.errors import ErrorCode, RequestFault

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})

# Hop-by-hop by RFC 9110 section 7.6.1, what this hop writes anew, and `accept-encoding`: heartbeats and
# token counts need the identity coding, and compression on loopback buys nothing.
_OURS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"host",
        b"content-length",
        b"expect",
        b"accept-encoding",
        b"x-request-id",
    }
)
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_NOTED = frozenset({b"user-agent", b"prefer", b"anthropic-version"})
_LOOKED_AT = _OURS | _CREDENTIALS | _NOTED


@dataclass(slots=True, kw_only=True)
class Head:
    """A request head that passed the checks. It leaves out the body's length, so that requests that
    differ in nothing else share one."""

    method: bytes
    target: bytes
    """In origin form, with its query: what the engine is asked for."""
    path: bytes
    """The target without its query."""
    path_text: str
    """The same as text."""
    http11: bool
    forward: bytes = b""
    """Header lines for the engine, as they came, each with its line end."""
    chunked: bool = False
    credential: bytes = b""
    agent: bytes = b""
    prefer: bytes = b""
    anthropic: bool = False
    expects_continue: bool = False


def read_head(
    *,
    method: bytes,
    target: bytes,
    version: str,
    headers: Sequence[tuple[bytes, bytes]],
    strip_credentials: bool,
) -> Head:
    """Check a parsed head and sort its headers, of which the length is not one.

    Raises RequestFault(INVALID_REQUEST).
    """
    if version not in ("1.1", "1.0"):
        raise refusal(f"HTTP version {version} is not supported")
    if method not in METHODS:
        raise refusal(f"the method {method.decode('latin-1')} is not supported")
    target = _origin_form(target)
    path = target.partition(b"?")[0]
    _check_path(path)
    forward: list[tuple[bytes, bytes]] = []
    special: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _LOOKED_AT:
            known = special.get(lower)
            special[lower] = value if known is None else _both(lower, known, value)
        if lower not in _OURS and not (strip_credentials and lower in _CREDENTIALS):
            forward.append((name, value))
    head = Head(
        method=method,
        target=target,
        path=path,
        path_text=sys.intern(path.decode("latin-1")),  # one text for all connections that ask for it
        http11=version == "1.1",
    )
    _read_special(head, special)
    nominated = _nominated(special.get(b"connection", b"").lower())
    head.forward = b"".join(b"%b: %b\r\n" % pair for pair in forward if pair[0].lower() not in nominated)
    return head


def _both(name: bytes, first: bytes, second: bytes) -> bytes:
    """Join a repeated list header; refuse one that may appear only once."""
    if name in (b"host", b"transfer-encoding", b"authorization", b"x-api-key"):
        raise refusal(f"the header {name.decode()} is given twice")
    return first + b", " + second


def _read_special(head: Head, special: dict[bytes, bytes]) -> None:
    get = special.get
    if head.http11 and not get(b"host"):
        raise refusal("an HTTP/1.1 request needs a Host header")
    coding = get(b"transfer-encoding")
    if coding is not None:
        if coding.strip().lower() != b"chunked":
            raise refusal("only the transfer coding `chunked` is supported")
        if not head.http11:
            raise refusal("an HTTP/1.0 request cannot be chunked")
        head.chunked = True
    if b"upgrade" in special:
        raise refusal("upgrading the connection is not supported")
    head.credential = _credential(get(b"authorization", b""), get(b"x-api-key", b""))
    head.agent = get(b"user-agent", b"")
    head.prefer = get(b"prefer", b"").lower()
    head.anthropic = b"anthropic-version" in special
    head.expects_continue = head.http11 and get(b"expect", b"").lower() == b"100-continue"


def _nominated(connection: bytes) -> frozenset[bytes]:
    """Return the headers that `Connection` names: they are for this hop (RFC 9110 section 7.6.1)."""
    if connection in (b"", b"keep-alive", b"close"):
        return frozenset()
    return frozenset(word.strip() for word in connection.split(b","))


def _credential(authorization: bytes, api_key: bytes) -> bytes:
    scheme, _, secret = authorization.partition(b" ")
    if scheme.lower() == b"bearer" and secret:
        return secret.strip()
    return api_key.strip()


def _origin_form(target: bytes) -> bytes:
    """Return the target in origin form; an absolute one loses its authority (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/"):
        return target
    scheme, mark, rest = target.partition(b"://")
    if mark and scheme.lower() in (b"http", b"https"):
        authority, slash, path = rest.partition(b"/")
        if authority and b"?" not in authority:
            return slash + path or b"/"
    raise refusal("the request target must be a path")


def _check_path(path: bytes) -> None:
    if b"#" in path:
        raise refusal("a request target has no fragment")
    if b"/." in path or b"%2e" in path.lower():
        # An engine that resolves dot segments would be reached outside /v1/.
        if any(part.lower().replace(b"%2e", b".") in (b".", b"..") for part in path.split(b"/")):
            raise refusal("dot segments are not allowed in the path")


def refusal(message: str) -> RequestFault:
    """Return the fault of a request that cannot be understood."""
    return RequestFault(ErrorCode.INVALID_REQUEST, message)
