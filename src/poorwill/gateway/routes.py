"""The one route table of both listeners: every path poorwill answers, and what it does there.

Data only. The inference listener matches on raw path bytes, so that the warm path costs one dictionary
look-up; the admin listener turns its rows into Starlette routes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.gateway.wire import Dialect


class Listener(StrEnum):
    """Which of the two listeners a route is on."""

    INFERENCE = "inference"
    ADMIN = "admin"


_NOT_OLLAMAS = "models are in fleet.toml; poorwill pull and poorwill models have their files"


class NoRoute(RequestFault):
    """Nothing answers this request: its path is unknown, or known by other methods, which `allowed` names.

    `meant` is a path that does exist.
    """

    def __init__(self, *, method: str, path: str, allowed: Sequence[str], meant: str = "") -> None:
        if allowed:
            code = ErrorCode.METHOD_NOT_ALLOWED
            what = f"{path[:200]} takes {' or '.join(allowed)}, not {method}"
        else:
            code, what = ErrorCode.ROUTE_NOT_FOUND, f"nothing here answers {method} {path[:200]}"
        ollamas = _NOT_OLLAMAS if not allowed and path.startswith("/api/") else None
        super().__init__(code, what, hint=f"{meant} is there" if meant else ollamas)
        self.allowed = tuple(allowed)


class Action(StrEnum):
    """What is done with a request; each has one handler."""

    RELAY = "relay"
    TUNNEL = "tunnel"
    OLLAMA = "ollama"
    LIST_MODELS = "list_models"
    SHOW_MODEL = "show_model"
    HEALTH = "health"
    PREFLIGHT = "preflight"
    DASHBOARD = "dashboard"
    STATUS = "status"
    METRICS = "metrics"
    EVENTS = "events"
    WAKE = "wake"
    PARK = "park"
    RELOAD = "reload"
    LIFT = "lift"
    CHAT = "chat"
    PULL = "pull"
    PROMPT = "prompt"
    HISTORY = "history"
    LEDGER = "ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table."""

    listener: Listener
    methods: tuple[str, ...]
    path: str
    """A trailing `*` matches any rest, `{model}` one segment or, on the inference listener, several."""
    action: Action
    dialect: Dialect = Dialect.OPENAI
    json_answer: bool = False
    """Whether it answers JSON, or events if a stream is asked for: then heartbeats may precede it."""
    takes_stream_options: bool = False
    """Whether a streamed request may ask for usage by `stream_options`."""
    needs_key: bool = True


def _relay(path: str, *methods: str, action: Action = Action.RELAY, **more: Any) -> Route:
    return Route(
        listener=Listener.INFERENCE,
        methods=methods or ("POST",),
        path=path,
        action=action,
        json_answer=True,
        **more,
    )


def _read(path: str, action: Action, **more: Any) -> Route:
    return Route(listener=Listener.INFERENCE, methods=("GET", "HEAD"), path=path, action=action, **more)


def _admin(methods: str, path: str, action: Action) -> Route:
    listener, taken = Listener.ADMIN, tuple(methods.split())
    return Route(listener=listener, methods=taken, path=path, action=action, needs_key=False)


OLLAMA_PATHS = (
    *(("/api/chat", "POST"), ("/api/generate", "POST"), ("/api/embed", "POST"), ("/api/embeddings", "POST")),
    *(("/api/show", "POST"), ("/api/tags", "GET", "HEAD"), ("/api/ps", "GET", "HEAD")),
    *(("/api/version", "GET", "HEAD"), ("/", "GET", "HEAD")),
)
"""Paths of Ollama's API and their methods."""
_OLLAMA: Mapping[str, Any] = MappingProxyType({"dialect": Dialect.OLLAMA, "takes_stream_options": True})

ROUTES: tuple[Route, ...] = (
    _relay("/v1/chat/completions", takes_stream_options=True),
    _relay("/v1/completions", takes_stream_options=True),
    _relay("/v1/embeddings"),
    _relay("/v1/responses"),
    _relay("/v1/messages", dialect=Dialect.ANTHROPIC),
    _relay("/v1/messages/count_tokens", dialect=Dialect.ANTHROPIC),
    *(_relay(path, *methods, action=Action.OLLAMA, **_OLLAMA) for path, *methods in OLLAMA_PATHS),
    Route(listener=Listener.INFERENCE, methods=("GET",), path="/v1/realtime", action=Action.TUNNEL),
    _read("/v1/models", Action.LIST_MODELS),
    _read("/v1/models/*", Action.SHOW_MODEL),
    *(
        _read(path, Action.HEALTH, needs_key=False)
        for path in ("/healthz", "/health", "/livez", "/readyz", "/ping")
    ),
    Route(
        listener=Listener.INFERENCE,
        methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        path="/v1/*",
        action=Action.RELAY,
    ),
    _admin("GET", "/", Action.DASHBOARD),
    _admin("GET", "/healthz", Action.HEALTH),
    _admin("GET", "/status", Action.STATUS),
    _admin("GET", "/metrics", Action.METRICS),
    _admin("GET", "/events", Action.EVENTS),
    _admin("GET", "/history/{question}", Action.HISTORY),
    _admin("GET", "/ledger", Action.LEDGER),
    _admin("POST", "/models/{model:path}/wake", Action.WAKE),
    _admin("POST", "/models/{model:path}/park", Action.PARK),
    _admin("POST", "/reload", Action.RELOAD),
    _admin("POST", "/chat", Action.CHAT),
    _admin("POST", "/limits/{limit:path}/lift", Action.LIFT),
    _admin("POST DELETE", "/pulls/{model:path}", Action.PULL),
    _admin("GET", "/prompts/{request}", Action.PROMPT),
)

PREFLIGHT = Route(
    listener=Listener.INFERENCE,
    methods=("OPTIONS",),
    path="*",
    action=Action.PREFLIGHT,
    needs_key=False,
)
"""What a browser asks before it lets a page send a request; pages are admitted by configuration."""

VENDOR = Route(
    listener=Listener.INFERENCE,
    methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    path="*",
    action=Action.RELAY,
)
"""Paths that the configuration adds; the engine is asked whether it serves them."""

_EXACT: Mapping[tuple[bytes, bytes], Route] = MappingProxyType(
    {
        (method.encode(), route.path.encode()): route
        for route in ROUTES
        for method in route.methods
        if route.listener is Listener.INFERENCE and not route.path.endswith("*")
    }
)
_METHODS: Mapping[bytes, tuple[str, ...]] = MappingProxyType(
    {
        route.path.encode(): route.methods
        for route in ROUTES
        if route.listener is Listener.INFERENCE and not route.path.endswith("*")
    }
)
_PREFIXES: tuple[tuple[bytes, bytes, Route], ...] = tuple(
    (method.encode(), route.path[:-1].encode(), route)
    for route in ROUTES
    for method in route.methods
    if route.listener is Listener.INFERENCE and route.path.endswith("*")
)


def inference_route(method: bytes, path: bytes) -> Route | None:
    """Return the inference listener's route for a request, None if there is none.

    A path that the table names takes the methods named with it and no others.
    """
    if path in _METHODS:
        return _EXACT.get((method, path))
    if path.endswith(b"/") or path.startswith(b"/v1/v1/"):
        return None  # a base URL that was put together wrongly; an engine would be woken for its 404
    for allowed, prefix, route in _PREFIXES:
        if method == allowed and path.startswith(prefix) and len(path) > len(prefix):
            return route
    return None


def unrouted_dialect(path: bytes) -> Dialect:
    """Return how a client that asks for a path that nothing answers reads an error."""
    return Dialect.OLLAMA if path.startswith(b"/api/") else Dialect.OPENAI


def vendor_route(path: str, configured: Sequence[str]) -> Route | None:
    """Return the route of a path that the configuration adds, None if it does not."""
    for pattern in configured:
        if path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-1])):
            return VENDOR
    return None


def path_meant(path: bytes) -> str:
    """Return the path of the table that a wrong one was meant to be, empty if there is none.

    Clients put paths together with or without `/v1`, or twice, and with a slash at the end.
    """
    bare = path.rstrip(b"/")
    for candidate in (bare, b"/v1" + bare, bare.removeprefix(b"/v1")):
        if candidate != path and candidate in _METHODS:
            return candidate.decode()
    return ""


def inference_methods(path: bytes) -> tuple[str, ...]:
    """Return the methods that the inference listener answers a path with, empty if the path is unknown."""
    if path.endswith(b"/") or path.startswith(b"/v1/v1/"):
        return ()
    prefixed = [
        allowed.decode()
        for allowed, prefix, _ in _PREFIXES
        if path.startswith(prefix) and len(path) > len(prefix)
    ]
    return _METHODS.get(path) or tuple(dict.fromkeys(prefixed))


def admin_routes() -> tuple[Route, ...]:
    """Return the admin listener's rows."""
    return tuple(route for route in ROUTES if route.listener is Listener.ADMIN)
