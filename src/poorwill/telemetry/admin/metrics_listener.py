"""Metrics alone, on an address of their own: for a Prometheus on another machine."""

import asyncio
import socket
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poorwill.telemetry.admin.app import Gateway
from poorwill.telemetry.admin.listener import UvicornListener

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class WithMetrics:
    """The admin listener, and beside it one for metrics. Implements the gateway's `AdminListener`."""

    def __init__(self, admin: UvicornListener, gateway: Gateway, sock: socket.socket) -> None:
        async def metrics(request: Request) -> Response:
            return Response(gateway.metrics_text(), headers={"content-type": EXPOSITION})

        async def health(request: Request) -> Response:
            return JSONResponse({"status": gateway.health()["status"]})

        app = Starlette(routes=[Route("/metrics", metrics), Route("/healthz", health)])
        self._admin = admin
        self._sock = sock
        self._metrics = UvicornListener(app=app, end_streams=lambda: None, accept=gateway.accept)

    async def serve(self, sock: socket.socket) -> None:
        """Serve both until `stop` was called and the requests in work are done, within two seconds."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._metrics.serve(self._sock))
            await self._admin.serve(sock)

    def stop(self) -> None:
        """Ask `serve` to return."""
        self._admin.stop()
        self._metrics.stop()


def with_metrics(
    make: Callable[[Gateway], UvicornListener], bound: Callable[[], socket.socket]
) -> Callable[[Gateway], WithMetrics]:
    """Return what makes the admin listener with one for metrics beside it, on the socket `bound` makes."""
    return lambda gateway: WithMetrics(make(gateway), gateway, bound())
