"""uvicorn as a listener among others: no signal handlers, no log configuration, stopped by a call.

Two of uvicorn's defaults are changed here: signals belong to the process that runs poorwill, and cancelling
`Server.serve` would leave its socket accepting, so it is asked to stop and awaited instead.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from poorwill.gateway.admin.events import EventStreams


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, stopped: asyncio.Event) -> None:
        super().__init__(config)
        self._stopped = stopped

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def main_loop(self) -> None:
        """Sleep until `stop`, instead of waking ten times a second to look."""
        await self._stopped.wait()


class AdminListener:
    """Serves an application on a bound socket until `stop`."""

    def __init__(self, *, app: ASGIApp, streams: EventStreams) -> None:
        self._streams = streams
        self._stopped = asyncio.Event()
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                http="httptools",
                timeout_graceful_shutdown=2,
                server_header=False,
                date_header=False,
            ),
            stopped=self._stopped,
        )

    async def serve(self, sock: socket.socket) -> None:
        """Serve until `stop` was called and the requests in work are done, within two seconds."""
        await self._server.serve(sockets=[sock])

    def stop(self) -> None:
        """Ask `serve` to return; event streams end at once."""
        self._server.should_exit = True
        self._stopped.set()
        self._streams.end_all()
