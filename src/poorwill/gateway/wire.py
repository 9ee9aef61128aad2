"""What the gateway says when it speaks for itself: statuses, error bodies, heads, chunks and events.

Owns the one table from error code to HTTP status and the two dialects of error bodies. Pure
functions from values to bytes; no sockets, no state.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType

from poorwill.core.errors import ErrorCode, PoorwillError

SOURCE = "poorwill"
"""Names who failed, in every error that poorwill itself raises; an engine's errors carry `engine`."""


class Dialect(StrEnum):
    """Whose error format a client expects."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How one error code is sent over HTTP."""

    status: int
    openai_type: str
    anthropic_type: str


_FAULT = ("invalid_request_error", "invalid_request_error")
_LATER = ("server_error", "overloaded_error")
_BROKEN = ("server_error", "api_error")

ERROR_SHAPES: Mapping[ErrorCode, ErrorShape] = MappingProxyType(
    {
        ErrorCode.INVALID_REQUEST: ErrorShape(400, *_FAULT),
        ErrorCode.PAYLOAD_TOO_LARGE: ErrorShape(413, "invalid_request_error", "request_too_large"),
        ErrorCode.UNSUPPORTED_MEDIA: ErrorShape(415, *_FAULT),
        ErrorCode.ROUTE_NOT_FOUND: ErrorShape(404, "invalid_request_error", "not_found_error"),
        ErrorCode.METHOD_NOT_ALLOWED: ErrorShape(405, *_FAULT),
        ErrorCode.UNAUTHENTICATED: ErrorShape(401, "authentication_error", "authentication_error"),
        ErrorCode.FORBIDDEN: ErrorShape(403, "permission_error", "permission_error"),
        ErrorCode.MODEL_NOT_FOUND: ErrorShape(404, "invalid_request_error", "not_found_error"),
        ErrorCode.HOLD_QUEUE_FULL: ErrorShape(429, "rate_limit_error", "rate_limit_error"),
        ErrorCode.RATE_LIMITED: ErrorShape(429, "rate_limit_error", "rate_limit_error"),
        ErrorCode.SPEND_LIMIT: ErrorShape(429, "rate_limit_error", "rate_limit_error"),
        ErrorCode.WAKE_FAILED: ErrorShape(503, *_LATER),
        ErrorCode.NO_CAPACITY: ErrorShape(503, *_LATER),
        ErrorCode.DRAINING: ErrorShape(503, *_LATER),
        ErrorCode.OVERLOADED: ErrorShape(503, *_LATER),
        ErrorCode.WAKE_TIMEOUT: ErrorShape(504, "server_error", "timeout_error"),
        ErrorCode.UPSTREAM_CONNECT: ErrorShape(502, *_BROKEN),
        ErrorCode.UPSTREAM_PROTOCOL: ErrorShape(502, *_BROKEN),
        ErrorCode.REPLICA_LOST: ErrorShape(502, *_BROKEN),
        ErrorCode.UPSTREAM_TIMEOUT: ErrorShape(504, "server_error", "timeout_error"),
        ErrorCode.CLIENT_GONE: ErrorShape(499, *_BROKEN),
        ErrorCode.LEDGER_UNAVAILABLE: ErrorShape(503, *_LATER),
        ErrorCode.CONFIG_INVALID: ErrorShape(500, *_BROKEN),
        ErrorCode.IN_USE: ErrorShape(409, *_BROKEN),
        ErrorCode.NOT_RUNNING: ErrorShape(503, *_LATER),
        ErrorCode.INTERNAL: ErrorShape(500, *_BROKEN),
    }
)
"""The HTTP status of every error code: total, checked by a test."""

_MOST_MESSAGE = 200
_RETRYABLE = frozenset({429, 503, 504})

_STATUS_LINES: Mapping[int, bytes] = MappingProxyType(
    {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
)


def http_status(code: ErrorCode) -> int:
    """Return the HTTP status of an error code."""
    return ERROR_SHAPES[code].status


def may_retry(code: ErrorCode) -> bool:
    """Return whether a response with this code carries `Retry-After`."""
    return ERROR_SHAPES[code].status in _RETRYABLE


def error_document(error: PoorwillError, *, dialect: Dialect, request_id: str) -> dict[str, object]:
    """Return the error body as a JSON object in the client's dialect."""
    reply = ERROR_SHAPES[error.code]
    if dialect is Dialect.OLLAMA:
        return {"error": str(error), "code": error.code.value, "source": SOURCE}
    if dialect is Dialect.ANTHROPIC:
        inner = {
            "type": reply.anthropic_type,
            "message": str(error),
            "code": error.code.value,
            "source": SOURCE,
        }
        return {"type": "error", "error": inner, "request_id": request_id}
    return {
        "error": {
            "message": str(error),
            "type": reply.openai_type,
            "code": error.code.value,
            "param": "model" if error.code is ErrorCode.MODEL_NOT_FOUND else None,
            "source": SOURCE,
        }
    }


def engine_error_document(
    status: int, body: bytes, *, dialect: Dialect, request_id: str
) -> dict[str, object]:
    """Return what an engine answered instead of 200, for a client that has already been promised a 200.

    The engine's own `error` object is kept if it sent one; otherwise its first words are quoted.
    """
    inner: dict[str, object] = {}
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        inner.update(document["error"])
    else:
        words = body[:300].decode("utf-8", "replace").strip()
        inner["message"] = f"the engine answered {status}: {words}"
    inner.setdefault("type", "api_error" if dialect is Dialect.ANTHROPIC else "server_error")
    inner["code"] = inner.get("code") or ErrorCode.UPSTREAM_PROTOCOL.value
    inner["source"] = "engine"
    inner["status"] = status
    if dialect is Dialect.OLLAMA:
        return {"error": inner.get("message", ""), "source": "engine", "status": status}
    if dialect is Dialect.ANTHROPIC:
        return {"type": "error", "error": inner, "request_id": request_id}
    return {"error": inner}


def json_bytes(document: object) -> bytes:
    """Return a JSON document as bytes."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def error_event(document: dict[str, object], *, dialect: Dialect) -> bytes:
    """Return an error document as the one event that ends a failed stream.

    OpenAI's clients look at `data` alone (measured: with or without an event name); Anthropic's
    dispatch on the event name `error`.
    """
    if dialect is Dialect.OLLAMA:
        return json_bytes(document) + b"\n"
    name = b"event: error\n" if dialect is Dialect.ANTHROPIC else b""
    return b"%bdata: %b\n\n" % (name, json_bytes(document))


def status_line(status: int) -> bytes:
    """Return the status line; an unknown status gets an empty phrase (RFC 9112 section 4)."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a whole response head, with its empty line."""
    lines = [b"%b: %b\r\n" % pair for pair in headers]
    return b"%b%b\r\n" % (status_line(status), b"".join(lines))


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of the chunked coding. Empty data is not allowed: it would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def broken_chunk(document: dict[str, object], *, size: bool) -> bytes:
    """Return a failure in the place of a chunk: no client takes what then ends for the end of an answer.

    Most clients for Python quote it in the error they raise, so that the user reads why, where a connection
    that is merely cut says no more than that. aiohttp 3.14 waits for ever after a size that is none. With
    `size` there is one, and the failure is its extension: aiohttp then misses the chunk at the end, and h11
    quotes the line because the size has more digits than it takes. Not for all, since Node takes the end
    for the answer's if the client asked for `Connection: close`, and `requests` quotes only a wrong size.
    """
    error = document.get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    printable = "".join(c if " " <= c <= "~" else "?" for c in message)[:_MOST_MESSAGE]
    if not size:
        return f"poorwill: {printable}\r\n".encode()
    quotable = printable.translate({ord('"'): "'", ord("\\"): "/"})
    return f'{"fff":0>24};poorwill="{quotable}"\r\n'.encode()


LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
