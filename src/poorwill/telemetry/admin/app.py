"""The admin listener's application: status, metrics, events, wake and park, the dashboard.

Starlette, because nothing here is warm. Handlers are closures over what they need; errors have the same
shape as on the inference listener. It answers only to its own names: a page on another site must not
reach it through a browser, neither by a cross-origin POST nor by a name that resolves to loopback (DNS
rebinding).
"""

import asyncio
import os
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
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US, ModelName, Tier
from poorwill.telemetry.admin.listener import PEER_USER, Accepting, UvicornListener
from poorwill.telemetry.admin.peer_user import user_ids

Endpoint = Callable[[Request], Awaitable[Response]]
_FOR_EVERY_USER = frozenset({"/healthz", "/metrics"})
"""Paths that every user of this machine may ask for: they say nothing of clients and change nothing."""


class Gateway(Protocol):
    """What the admin listener shows of the gateway, and what both listeners speak alike."""

    @property
    def admin_routes(self) -> Sequence[tuple[str, Sequence[str], str]]:
        """The admin listener's rows of the route table: path, methods, action."""
        ...

    def health(self) -> Mapping[str, object]:
        """Return how the gateway itself is."""
        ...

    def bridges(self) -> Sequence[Mapping[str, object]]:
        """Return how each bridge stands."""
        ...

    def metrics_text(self) -> str:
        """Return everything counted, in Prometheus' text format."""
        ...

    def error_answer(self, error: PoorwillError) -> tuple[int, Mapping[str, object], Mapping[str, str]]:
        """Return an error's status, body and headers."""
        ...

    def no_route(self, *, method: str, path: str, allowed: Sequence[str]) -> PoorwillError:
        """Return the error of a request that no route answers."""
        ...

    def accept(
        self, make: Callable[[str], asyncio.Protocol], make_room: Callable[[str | None], bool]
    ) -> Accepting:
        """Return what accepts the listener's connections, within its limit."""
        ...

    def foreign_page(self, *, method: str, headers: Mapping[str, str], names: Collection[str]) -> str:
        """Return why a web page may not ask this, or nothing. `names` are the listener's own."""
        ...


class Dashboard(Protocol):
    """What people look at: a page, what it asks, and events as they happen."""

    async def page(self, request: Request) -> Response:
        """Answer with the page."""
        ...

    async def chat(self, request: Request) -> Response:
        """Answer with what a model answers to an operator."""
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


def admin_listener(
    gateway: Gateway,
    *,
    fleet: FleetView,
    dashboard: Dashboard,
    settings: GatewaySettings,
    clock: Clock,
    log: Log,
) -> UvicornListener:
    """Return the admin listener of a gateway, not running yet."""
    app = _app(
        gateway,
        fleet=fleet,
        dashboard=dashboard,
        clock=clock,
        log=log,
        host=settings.admin.host,
        users={0, os.geteuid(), *user_ids(settings.admin_users)},
    )
    return UvicornListener(app=app, end_streams=dashboard.end_streams, accept=gateway.accept)


def _app(
    gateway: Gateway,
    *,
    fleet: FleetView,
    dashboard: Dashboard,
    clock: Clock,
    log: Log,
    host: str,
    users: Collection[int],
) -> Starlette:
    endpoints: Mapping[str, Endpoint] = {
        "dashboard": dashboard.page,
        "health": _health(gateway),
        "status": _status(gateway, fleet=fleet, clock=clock),
        "metrics": _metrics(gateway),
        "events": dashboard.events,
        "history": dashboard.past,
        "wake": _wake(fleet=fleet, log=log),
        "park": _park(fleet=fleet, log=log),
        "reload": _reload(fleet=fleet, log=log),
        "chat": _chat(dashboard, log=log),
        "lift": _lift(fleet=fleet, clock=clock, log=log),
    }
    return Starlette(
        routes=[
            StarletteRoute(path, endpoints[action], methods=list(methods))
            for path, methods, action in gateway.admin_routes
        ],
        middleware=[Middleware(OperatorsOnly, gateway=gateway, host=host, users=users)],
        exception_handlers={
            PoorwillError: _tell_error(gateway),
            HTTPException: _tell_http_error(gateway),
            Exception: _tell_defect(gateway, log),
        },
    )


def _health(gateway: Gateway) -> Endpoint:
    async def handle(request: Request) -> Response:
        return JSONResponse(dict(gateway.health()))

    return handle


def _status(gateway: Gateway, *, fleet: FleetView, clock: Clock) -> Endpoint:
    async def handle(request: Request) -> Response:
        now_us = clock.now_us()
        replicas = [
            asdict(status) | {"since_s": (now_us - status.since_us) / SECOND_US} for status in fleet.status()
        ]
        fleet_state = {
            "replicas": replicas,
            "bridges": gateway.bridges(),
            "limits": to_builtins([limit.document(now_us) for limit in fleet.limits()]),
            "configuration": asdict(fleet.configuration()),
            "devices": await fleet.devices(),
        }
        return JSONResponse({"now_us": now_us, **gateway.health(), **fleet_state})

    return handle


def _metrics(gateway: Gateway) -> Endpoint:
    async def handle(request: Request) -> Response:
        text = gateway.metrics_text()
        return Response(text, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    return handle


def _asked(log: Log, request: Request, what: str, **about: str) -> str:
    """Write down, and return, who asked for something that costs money or makes others wait."""
    agent = request.headers.get("user-agent", "")[:200]
    log.info("an operator asked", what=what, user=request.state.peer_user, program=agent, **about)
    return f"user {request.state.peer_user} with {agent or 'a program without a name'}"


def _wake(*, fleet: FleetView, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        model = ModelName(request.path_params["model"])
        _asked(log, request, "wake", model=model)
        await fleet.wake(model)
        return JSONResponse({"model": model, "state": "ready"})

    return handle


def _park(*, fleet: FleetView, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        model = ModelName(request.path_params["model"])
        asked = _tier(request.query_params.get("tier"))
        _asked(log, request, f"park {asked or ''}".strip(), model=model)
        await fleet.park(model, asked)
        parked = [each for each in fleet.status() if model in (each.model, each.replica)]
        now = next((each for each in parked if each.tier is not asked), parked[0])
        answer = {"model": model, "state": now.state, "tier": now.tier}
        if asked is not None and now.tier is not asked and now.last_error:
            answer["why"] = now.last_error
        return JSONResponse(answer)

    return handle


def _reload(*, fleet: FleetView, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        _asked(log, request, "reload")
        return JSONResponse(asdict(await fleet.reload()))

    return handle


def _chat(dashboard: Dashboard, *, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        _asked(log, request, "chat")
        return await dashboard.chat(request)

    return handle


def _lift(*, fleet: FleetView, clock: Clock, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        limit = request.path_params["limit"]
        lifted = await fleet.lift(limit, by=_asked(log, request, "lift a spend limit", limit=limit))
        return JSONResponse(to_builtins(lifted.document(clock.now_us())))

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


Teller = Callable[[Request, Exception], Awaitable[Response]]


def _error_response(gateway: Gateway, error: PoorwillError) -> Response:
    status, document, headers = gateway.error_answer(error)
    return JSONResponse(document, status_code=status, headers=headers)


def _tell_error(gateway: Gateway) -> Teller:
    async def tell(request: Request, error: Exception) -> Response:
        assert isinstance(error, PoorwillError)
        return _error_response(gateway, error)

    return tell


def _tell_http_error(gateway: Gateway) -> Teller:
    """Shape Starlette's own 404 and 405, the only ones it raises here."""

    async def tell(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        allow = (error.headers or {}).get("Allow", "")
        allowed = [name.strip() for name in allow.split(",") if name]
        path = request.url.path
        return _error_response(gateway, gateway.no_route(method=request.method, path=path, allowed=allowed))

    return tell


def _tell_defect(gateway: Gateway, log: Log) -> Teller:
    async def tell(request: Request, error: Exception) -> Response:
        log.error("admin request failed by a defect", path=request.url.path, error=error)
        fault = PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why")
        return _error_response(gateway, fault)

    return tell


class OperatorsOnly:
    """ASGI middleware: refuses requests of web pages on other sites and of other users of this machine."""

    def __init__(self, app: ASGIApp, *, gateway: Gateway, host: str, users: Collection[int]) -> None:
        self._app = app
        self._gateway = gateway
        self._names = (host.lower(),)
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            problem = self._page_problem(scope) or self._user_problem(scope)
            if problem is not None:
                await _error_response(self._gateway, problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _page_problem(self, scope: Scope) -> RequestFault | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self._gateway.foreign_page(method=scope["method"], headers=headers, names=self._names)
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
