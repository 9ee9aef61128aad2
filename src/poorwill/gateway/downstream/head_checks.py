"""Checks on a request's head that the parser leaves to us.

httptools (llhttp in its strict mode) refuses bare line feeds, folded headers, both lengths at once,
duplicate or malformed lengths, bad chunks and control characters. This module refuses the rest of what
h11 refuses, sorts the headers into those for us, those for this hop and those for the engine, and never
touches a socket. Known differences from h11 are listed in `tests/gateway/test_edge_against_h11.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import GatewaySettings
from poorwill.gateway.web_origin import EVERY_ORIGIN, foreign_page

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
        b"http2-settings",
        b"accept-encoding",
        b"x-request-id",
    }
)
_MOST_DECODINGS = 3
_OURS_AND_CREDENTIALS = _OURS | {b"authorization", b"x-api-key"}
_FORM, _JSON = b"application/x-www-form-urlencoded", b"application/json"
"""What `curl -d` calls every body, and what it is here; vLLM, SGLang and transformers refuse the former."""
_PROXY_MARKS = frozenset({b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip"})
_NOTED = _PROXY_MARKS | frozenset(
    {
        b"user-agent",
        b"x-stainless-lang",
        b"prefer",
        b"anthropic-version",
        b"content-type",
        b"content-encoding",
        b"origin",
        b"sec-fetch-site",
        b"access-control-request-method",
    }
)
_LOOKED_AT = _OURS_AND_CREDENTIALS | _NOTED


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
    sdk_language: bytes = b""
    """The language that official SDKs, and what is built on them, name in `x-stainless-lang`."""
    proxied: bool = False
    """Whether a proxy between says so; one that does not cannot be told."""
    prefer: bytes = b""
    content_type: bytes = b""
    anthropic: bool = False
    expects_continue: bool = False
    offers_upgrade: bool = False
    websocket: bool = False
    foreign_page: str = ""
    """Why the listener, if it asks for no key, must not be used by whoever sent this."""
    readable_by: bytes = b""
    """The origin of the web page that may read the answer, by configuration."""
    preflight: bool = False
    """Whether a browser asks on behalf of such a page."""

    @property
    def maybe_aiohttp(self) -> bool:
        """Whether the client may be built on aiohttp, as LiteLLM is and as the SDKs for Python can be."""
        agent = self.agent
        return b"aiohttp/" in agent or agent.startswith(b"litellm/") or self.sdk_language == b"python"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRules:
    """What a head is checked against, besides HTTP."""

    settings: GatewaySettings
    keys_required: bool

    def page_may_read(self, origin: str) -> bool:
        """Return whether pages of an origin may read answers. A listener without keys is not for all."""
        origins = self.settings.cors_origins
        return origin in origins or (self.keys_required and EVERY_ORIGIN in origins)

    @property
    def kept_from_engines(self) -> frozenset[bytes]:
        """Headers that no engine gets."""
        passed = self.settings.pass_credentials and not self.keys_required
        return _OURS if passed else _OURS_AND_CREDENTIALS


def read_head(
    *,
    method: bytes,
    target: bytes,
    version: str,
    headers: Sequence[tuple[bytes, bytes]],
    rules: HeadRules,
) -> Head:
    """Check a parsed head and sort its headers, of which the length is not one.

    Raises RequestFault(INVALID_REQUEST).
    """
    if version not in ("1.1", "1.0"):
        raise refusal(f"HTTP version {version} is not supported")
    if method not in METHODS:
        raise refusal(f"the method {method.decode('latin-1')} is not supported")
    target_authority, target = _split_target(target)
    path = target.partition(b"?")[0]
    _check_path(path)
    forward: list[tuple[bytes, bytes]] = []
    special: dict[bytes, bytes] = {}
    kept = rules.kept_from_engines
    for name, value in headers:
        lower = name.lower()
        if lower in _LOOKED_AT:
            known = special.get(lower)
            special[lower] = value if known is None else _both(lower, known, value)
        if lower not in kept:
            forward.append((name, _JSON if lower == b"content-type" and value.lower() == _FORM else value))
    head = Head(
        method=method,
        target=target,
        path=path,
        path_text=path.decode("latin-1"),
        http11=version == "1.1",
    )
    _read_special(head, special)
    _read_origin(head, target_authority or special.get(b"host", b""), special, rules)
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
    if get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise RequestFault(
            ErrorCode.UNSUPPORTED_MEDIA,
            "a compressed body is not supported: the gateway must find the `model` in it",
            hint="send it without Content-Encoding",
        )
    head.credential = _credential(get(b"authorization", b""), get(b"x-api-key", b""))
    head.agent = get(b"user-agent", b"")
    head.sdk_language = get(b"x-stainless-lang", b"").strip().lower()
    head.proxied = not _PROXY_MARKS.isdisjoint(special)
    head.content_type = get(b"content-type", b"")
    head.prefer = get(b"prefer", b"").lower()
    head.anthropic = b"anthropic-version" in special
    head.websocket = head.http11 and get(b"upgrade", b"").strip().lower() == b"websocket"
    head.expects_continue = head.http11 and get(b"expect", b"").lower() == b"100-continue"


def _read_origin(head: Head, host: bytes, special: dict[bytes, bytes], rules: HeadRules) -> None:
    raw = special.get(b"origin")
    origin = None if raw is None else raw.decode("latin-1")
    if origin is not None and rules.page_may_read(origin):
        head.readable_by = raw or b""
        head.preflight = head.method == b"OPTIONS" and b"access-control-request-method" in special
    if not rules.keys_required:
        head.foreign_page = foreign_page(
            host=host.decode("latin-1") if host else None,
            origin=origin,
            fetch_site=special.get(b"sec-fetch-site", b"").decode("latin-1"),
            names=(rules.settings.listen.host.lower(), *rules.settings.hosts),
            origins=rules.settings.cors_origins,
        )


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


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return the authority, empty unless the target is absolute, and the rest (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/"):
        return b"", target
    scheme, mark, rest = target.partition(b"://")
    if mark and scheme.lower() in (b"http", b"https"):
        end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        authority, path = rest[:end], rest[end:]
        if authority:
            return authority, path if path.startswith(b"/") else b"/" + path
    raise refusal("the request target must be a path")


def _check_path(path: bytes) -> None:
    """Refuse a path that an engine may resolve to one outside /v1/, however often it decodes it."""
    if b"#" in path:
        raise refusal("a request target has no fragment")
    for _ in range(_MOST_DECODINGS):
        plain = path.replace(b"\\", b"/")
        if any(part.partition(b";")[0] in (b".", b"..") for part in plain.split(b"/")):
            raise refusal("dot segments are not allowed in the path")
        decoded = unquote_to_bytes(path) if b"%" in path else path
        if decoded == path:
            return
        path = decoded
    raise refusal("the path is percent-encoded several times over")


def refusal(message: str) -> RequestFault:
    """Return the fault of a request that cannot be understood."""
    return RequestFault(ErrorCode.INVALID_REQUEST, message)
