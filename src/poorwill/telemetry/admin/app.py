"""The admin listener's application: status, metrics, events, wake and park, the dashboard.

Starlette, because nothing here is warm. Handlers are closures over what they need; errors have the same
shape as on the inference listener.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from typing import BinaryIO

from msgspec import to_builtins
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as StarletteRoute

from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import FleetView
from poorwill.core.words import SECOND_US, ModelName, Tier
from poorwill.telemetry.admin.local_users import error_response
from poorwill.telemetry.admin.shown import Dashboard, Gateway

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
PIECE_BYTES = 2**18
Endpoint = Callable[[Request], Awaitable[Response]]


def admin_app(
    gateway: Gateway,
    *,
    fleet: FleetView,
    dashboard: Dashboard,
    guard: Middleware,
    clock: Clock,
    log: Log,
) -> Starlette:
    """Return what answers operators; `guard` says which requests are theirs."""
    endpoints: Mapping[str, Endpoint] = {
        "dashboard": dashboard.page,
        "health": _health(gateway),
        "status": _status(gateway, fleet=fleet, dashboard=dashboard, clock=clock),
        "metrics": _metrics(gateway),
        "events": dashboard.events,
        "history": dashboard.past,
        "ledger": _ledger(gateway, dashboard, log=log),
        "wake": _wake(fleet=fleet, log=log),
        "park": _park(fleet=fleet, log=log),
        "reload": _reload(fleet=fleet, log=log),
        "chat": _chat(dashboard, log=log),
        "lift": _lift(fleet=fleet, clock=clock, log=log),
        "pull": _pull(dashboard, log=log),
        "prompt": _prompt(dashboard, log=log),
    }
    return Starlette(
        routes=[
            StarletteRoute(path, endpoints[action], methods=list(methods))
            for path, methods, action in gateway.admin_routes
        ],
        middleware=[guard],
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


def _status(gateway: Gateway, *, fleet: FleetView, dashboard: Dashboard, clock: Clock) -> Endpoint:
    async def handle(request: Request) -> Response:
        now_us = clock.now_us()
        replicas = [
            to_builtins(status) | {"since_s": (now_us - status.since_us) / SECOND_US}
            for status in fleet.status()
        ]
        fleet_state = {
            "replicas": replicas,
            "bridges": gateway.bridges(),
            "limits": to_builtins([limit.document(now_us) for limit in fleet.limits()]),
            "configuration": asdict(fleet.configuration()),
            "devices": await fleet.devices(),
            **dashboard.standing(),
        }
        return JSONResponse({"now_us": now_us, **gateway.health(), **fleet_state})

    return handle


def _metrics(gateway: Gateway) -> Endpoint:
    async def handle(request: Request) -> Response:
        return Response(await gateway.metrics_text(), headers={"content-type": EXPOSITION})

    return handle


def _asked(log: Log, request: Request, what: str, **about: str) -> str:
    """Write down, and return, who asked for something that costs money or makes others wait."""
    agent = request.headers.get("user-agent", "")[:200]
    log.info("an operator asked", what=what, by=request.state.asked_by, program=agent, **about)
    return f"{request.state.asked_by} with {agent or 'a program without a name'}"


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


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _ledger(gateway: Gateway, dashboard: Dashboard, *, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        _asked(log, request, "ledger")
        gateway.post_rows()
        copy = await dashboard.ledger()
        return StreamingResponse(_pieces(copy), media_type="application/vnd.sqlite3")

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


def _pull(dashboard: Dashboard, *, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        name, stops = request.path_params["model"], request.method == "DELETE"
        by = _asked(log, request, "stop a pull" if stops else "pull", model=name[:300])
        pull = dashboard.stop_pull(name) if stops else dashboard.pull(name, by=by)
        return JSONResponse(to_builtins(pull), status_code=200 if stops else 202)

    return handle


def _prompt(dashboard: Dashboard, *, log: Log) -> Endpoint:
    async def handle(request: Request) -> Response:
        asked = request.path_params["request"]
        found = dashboard.prompt(asked)
        _asked(log, request, "read a prompt", of=asked)
        return JSONResponse(to_builtins(found), headers={"cache-control": "no-store"})

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


def _tell_error(gateway: Gateway) -> Teller:
    async def tell(request: Request, error: Exception) -> Response:
        assert isinstance(error, PoorwillError)
        return error_response(gateway, error)

    return tell


def _tell_http_error(gateway: Gateway) -> Teller:
    """Shape Starlette's own 404 and 405, the only ones it raises here."""

    async def tell(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        allow = (error.headers or {}).get("Allow", "")
        allowed = [name.strip() for name in allow.split(",") if name]
        path = request.url.path
        return error_response(gateway, gateway.no_route(method=request.method, path=path, allowed=allowed))

    return tell


def _tell_defect(gateway: Gateway, log: Log) -> Teller:
    async def tell(request: Request, error: Exception) -> Response:
        log.error("admin request failed by a defect", path=request.url.path, error=error)
        fault = PoorwillError(ErrorCode.INTERNAL, "poorwill failed; its log says why")
        return error_response(gateway, fault)

    return tell
