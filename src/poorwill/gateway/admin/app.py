"""The admin listener's application: status, metrics, events, wake and park, the dashboard.

Starlette, because nothing here is warm. Handlers are closures over what they need; errors have the same
shape as on the inference listener. It answers only to its own names: a page on another site must not
reach it through a browser, neither by a cross-origin POST nor by a name that resolves to loopback (DNS
rebinding).
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

from msgspec import to_builtins
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import FleetView
from poorwill.core.words import SECOND_US, ModelName, Tier
from poorwill.gateway import wire
from poorwill.gateway.admin.listener import PEER_USER
from poorwill.gateway.routes import Action, NoRoute, admin_routes
from poorwill.gateway.web_origin import foreign_page
from poorwill.gateway.wire import Dialect

Endpoint = Callable[[Request], Awaitable[Response]]
Health = Callable[[], Mapping[str, object]]
_FOR_EVERY_USER = frozenset({"/healthz", "/metrics"})
"""Paths that every user of this machine may ask for: they say nothing of clients and change nothing."""
Bridges = Callable[[], Sequence[Mapping[str, object]]]
"""How each bridge stands."""


class Dashboard(Protocol):
    """What people look at: a page, what it asks, and events as they happen."""

    async def page(self, request: Request) -> Response:
        """Answer with the page."""
        ...

    async def past(self, request: Request) -> Response:
        """Answer the question about the past that the path names."""
        ...

    async def events(self, request: Request) -> Response:
        """Answer with a stream of events."""
        ...

    def end_streams(self) -> None:
        """End every open stream of events."""
        ...


def admin_app(
    *,
    fleet: FleetView,
    dashboard: Dashboard,
    clock: Clock,
    log: Log,
    metrics_text: Callable[[], str],
    health: Health,
    bridges: Bridges,
    host: str,
    users: Collection[int],
) -> Starlette:
    """Return the application of the admin listener."""
    endpoints: Mapping[Action, Endpoint] = {
        Action.DASHBOARD: dashboard.page,
        Action.HEALTH: _health(health=health),
        Action.STATUS: _status(fleet=fleet, clock=clock, health=health, bridges=bridges),
        Action.METRICS: _metrics(metrics_text=metrics_text),
        Action.EVENTS: dashboard.events,
        Action.HISTORY: dashboard.past,
        Action.WAKE: _wake(fleet=fleet, log=log),
        Action.PARK: _park(fleet=fleet, log=log),
    }
    return Starlette(
        routes=[
            StarletteRoute(route.path, endpoints[route.action], methods=list(route.methods))
            for route in admin_routes()
        ],
        middleware=[Middleware(OperatorsOnly, host=host, users=users)],
        exception_handlers={
            PoorwillError: _tell_error,
            HTTPException: _tell_http_error,
            Exception: _tell_defect(log),
        },
    )


def _health(*, health: Health) -> Endpoint:
    async def handle(request: Request) -> Response:
        return JSONResponse(dict(health()))

    return handle


def _status(*, fleet: FleetView, clock: Clock, health: Health, bridges: Bridges) -> Endpoint:
    async def handle(request: Request) -> Response:
        now_us = clock.now_us()
        replicas = [
            asdict(status) | {"since_s": (now_us - status.since_us) / SECOND_US} for status in fleet.status()
        ]
        limits = to_builtins([limit.document(now_us) for limit in fleet.limits()])
        fleet_state = {"replicas": replicas, "bridges": bridges(), "limits": limits}
        return JSONResponse({"now_us": now_us, **health(), **fleet_state})

    return handle


def _metrics(*, metrics_text: Callable[[], str]) -> Endpoint:
    async def handle(request: Request) -> Response:
        return Response(metrics_text(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    return handle


def _asked(log: Log, request: Request, what: str, model: ModelName) -> None:
    """Write down who asked for something that costs money or makes others wait."""
    agent = request.headers.get("user-agent", "")[:200]
    log.info("an operator asked", what=what, model=model, user=request.state.peer_user, program=agent)


def _wake(*, fleet: FleetView, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        model = ModelName(request.path_params["model"])
        _asked(log, request, "wake", model)
        await fleet.wake(model)
        return JSONResponse({"model": model, "state": "ready"})

    return handle


def _park(*, fleet: FleetView, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        model = ModelName(request.path_params["model"])
        asked = _tier(request.query_params.get("tier"))
        _asked(log, request, f"park {asked or ''}".strip(), model)
        await fleet.park(model, asked)
        (now,) = [each for each in fleet.status() if each.model == model]
        answer = {"model": model, "state": now.state, "tier": now.tier}
        if asked is not None and now.tier is not asked and now.last_error:
            answer["why"] = now.last_error
        return JSONResponse(answer)

    return handle


def _tier(name: str | None) -> Tier | None:
    if not name:
        return None
    try:
        return Tier(name)
    except ValueError:
        tiers = ", ".join(Tier)
        raise RequestFault(
            ErrorCode.INVALID_REQUEST, f"there is no tier {name[:50]!r}; the tiers are {tiers}"
        ) from None


def _error_response(error: PoorwillError) -> Response:
    document = wire.error_document(error, dialect=Dialect.OPENAI, request_id="")
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, NoRoute) and error.allowed:
        headers["allow"] = ", ".join(error.allowed)
    return JSONResponse(document, status_code=wire.http_status(error.code), headers=headers)


async def _tell_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PoorwillError)
    return _error_response(error)


async def _tell_http_error(request: Request, error: Exception) -> Response:
    """Shape Starlette's own 404 and 405, the only ones it raises here."""
    assert isinstance(error, HTTPException)
    allow = (error.headers or {}).get("Allow", "")
    allowed = [name.strip() for name in allow.split(",") if name]
    return _error_response(NoRoute(method=request.method, path=request.url.path, allowed=allowed))


def _tell_defect(log: Log) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def tell(request: Request, error: Exception) -> Response:
        log.error("admin request failed by a defect", path=request.url.path, error=error)
        return _error_response(PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why"))

    return tell


class OperatorsOnly:
    """ASGI middleware: refuses requests of web pages on other sites and of other users of this machine."""

    def __init__(self, app: ASGIApp, *, host: str, users: Collection[int]) -> None:
        self._app = app
        self._names = (host.lower(),)
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            problem = self._page_problem(scope) or self._user_problem(scope)
            if problem is not None:
                await _error_response(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _page_problem(self, scope: Scope) -> RequestFault | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        problem = foreign_page(
            host=headers.get(b"host"),
            origin=headers.get(b"origin"),
            # A link on another page may lead here: what it shows stays with the person who follows it.
            fetch_site="" if scope["method"] == "GET" else headers.get(b"sec-fetch-site", ""),
            names=self._names,
            origins=(),
        )
        return RequestFault(ErrorCode.FORBIDDEN, problem) if problem else None

    def _user_problem(self, scope: Scope) -> RequestFault | None:
        user = scope["state"][PEER_USER]
        if user in self._users or scope["path"] in _FOR_EVERY_USER:
            return None
        whose = "a user that this machine cannot name" if user is None else f"the user with the id {user}"
        return RequestFault(
            ErrorCode.FORBIDDEN,
            f"the admin listener takes no requests from {whose}",
            hint="be the user that runs poorwill, or root, or one of gateway.admin_users",
        )
