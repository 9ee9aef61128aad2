"""Every error a user can meet, by code. The HTTP and exit statuses are two total tables at the edges.

One exception class per reaction of a caller: fix the request, retry later, blame the engine, fix the
configuration. `code` says what happened; `message` says it to a person; `hint` says how to fix it.
"""

from collections.abc import Sequence
from enum import StrEnum


class ErrorCode(StrEnum):
    """The closed list of error codes; see design.md section 6."""

    INVALID_REQUEST = "invalid_request"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA = "unsupported_media"
    ROUTE_NOT_FOUND = "route_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    HOLD_QUEUE_FULL = "hold_queue_full"
    RATE_LIMITED = "rate_limited"
    SPEND_LIMIT = "spend_limit"
    WAKE_FAILED = "wake_failed"
    NO_CAPACITY = "no_capacity"
    DRAINING = "draining"
    OVERLOADED = "overloaded"
    WAKE_TIMEOUT = "wake_timeout"
    UPSTREAM_CONNECT = "upstream_connect"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    REPLICA_LOST = "replica_lost"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    CLIENT_GONE = "client_gone"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    CONFIG_INVALID = "config_invalid"
    IN_USE = "in_use"
    NOT_RUNNING = "not_running"
    INTERNAL = "internal"


class PoorwillError(Exception):
    """The root of all errors that are meant for a user."""

    def __init__(
        self, code: ErrorCode, message: str, *, hint: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class RequestFault(PoorwillError):
    """The request itself is wrong: the client must change it."""


class TryLater(PoorwillError):
    """The request is fine but cannot be served now; `retry_after_s` is set."""


class EngineFault(PoorwillError):
    """The engine behind the gateway failed; retried only before the first byte."""


class OperatorFault(PoorwillError):
    """The person running poorwill must change something: a file, a port, a permission."""


def unknown_model(name: str, known: Sequence[str], *, where: str = "this fleet") -> RequestFault:
    """Return the error for a model that does not exist; it lists those that do."""
    return RequestFault(
        ErrorCode.MODEL_NOT_FOUND,
        f"{where} has no model {name[:200]!r}; it has {', '.join(known[:50]) or 'none'}",
    )
