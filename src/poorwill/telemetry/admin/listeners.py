"""The admin listener for this machine, and those beside it: for other machines, and for metrics alone."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poorwill.core.ports.clock import Clock
from poorwill.core.ports.keys import OperatorKeys
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import FleetView
from poorwill.core.settings import GatewaySettings
from poorwill.telemetry.admin.app import EXPOSITION, admin_app
from poorwill.telemetry.admin.certificate import Certificate
from poorwill.telemetry.admin.listener import Tls, UvicornListener
from poorwill.telemetry.admin.local_users import LocalUsers
from poorwill.telemetry.admin.peer_user import user_ids
from poorwill.telemetry.admin.remote import RemoteOperators, Sessions
from poorwill.telemetry.admin.shown import Dashboard, Gateway


class AdminListeners:
    """The admin listener, and others on sockets of their own. Implements the gateway's `AdminListener`."""

    def __init__(
        self, admin: UvicornListener, beside: Sequence[tuple[UvicornListener, socket.socket]]
    ) -> None:
        self._admin = admin
        self._beside = beside

    async def serve(self, sock: socket.socket) -> None:
        """Serve all until `stop` was called and the requests in work are done, within two seconds."""
        async with asyncio.TaskGroup() as group:
            for listener, own in self._beside:
                group.create_task(listener.serve(own))
            await self._admin.serve(sock)

    def stop(self) -> None:
        """Ask `serve` to return."""
        for listener in (self._admin, *(listener for listener, _ in self._beside)):
            listener.stop()


def admin_listeners(
    gateway: Gateway,
    *,
    fleet: FleetView,
    dashboard: Dashboard,
    settings: GatewaySettings,
    keys: OperatorKeys,
    bind: Callable[[str, int], socket.socket],
    clock: Clock,
    log: Log,
) -> AdminListeners:
    """Return the admin listener of a gateway and those beside it, not running yet.

    Raises OperatorFault if an address is taken or the certificate cannot be used.
    """

    def answering(guard: Middleware) -> Starlette:
        return admin_app(gateway, fleet=fleet, dashboard=dashboard, guard=guard, clock=clock, log=log)

    beside = []
    remote = settings.remote_admin
    if settings.metrics is not None:
        beside.append((_listener(gateway, _metrics_app(gateway)), bind(*settings.metrics)))
    if remote is not None:
        certificate = None  # a proxy in front speaks TLS
        if not remote.behind_proxy:
            certificate = Certificate(remote.certificate, remote.private_key, log).context
        sessions = Sessions(keys=keys, now_us=clock.now_us)
        app = answering(Middleware(RemoteOperators, gateway=gateway, sessions=sessions, log=log))
        beside.append((_listener(gateway, app, tls=certificate), bind(*remote.listen)))
    users = {0, os.geteuid(), *user_ids(settings.admin_users)}
    local = answering(Middleware(LocalUsers, gateway=gateway, host=settings.admin.host, users=users))
    return AdminListeners(_listener(gateway, local, end_streams=dashboard.end_streams), beside)


def _listener(
    gateway: Gateway,
    app: Starlette,
    *,
    end_streams: Callable[[], None] = lambda: None,
    tls: Tls | None = None,
) -> UvicornListener:
    return UvicornListener(app=app, end_streams=end_streams, accept=gateway.accept, tls=tls)


def _metrics_app(gateway: Gateway) -> Starlette:
    """Return what answers with metrics alone: for a Prometheus on another machine."""

    async def metrics(request: Request) -> Response:
        return Response(await gateway.metrics_text(), headers={"content-type": EXPOSITION})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": gateway.health()["status"]})

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", health)])
