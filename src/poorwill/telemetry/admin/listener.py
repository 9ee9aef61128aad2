"""uvicorn as a listener among others: no signal handlers, no log configuration, stopped by a call.

Two of uvicorn's habits are changed here: signals belong to the process that runs poorwill, and cancelling
`Server.serve` would leave its socket accepting, so it is asked to stop and awaited instead. Connections are
accepted within limits, and each carries the uid of who made it.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from poorwill.telemetry.admin.peer_user import peer_user

_REQUEST_BYTES = 64 * 1024
"""The most that a request may be: none has a body of interest."""
_PIPELINED = 16
"""The most requests that wait for their turn when more arrive: uvicorn reads on after every answer."""
PEER_USER = "peer_user"
"""The key of the peer's uid in a request's state; None if it cannot be told."""


class Accepting(Protocol):
    """Accepts connections on a socket, within limits."""

    def start(self, sock: socket.socket) -> None:
        """Accept from now on."""
        ...

    def stop(self) -> None:
        """Accept no more; connections stay open. Idempotent."""
        ...

    def left(self, address: str) -> None:
        """Take note that a connection is closed."""
        ...


Tls = Callable[[], ssl.SSLContext]
"""Returns what a new connection is secured with."""
Accept = Callable[[Callable[[str], asyncio.Protocol], Callable[[str | None], bool], Tls | None], Accepting]
"""Makes one, from what makes the protocol for a peer's address, what closes idle connections for room, and
what secures connections, if anything."""


class _Connection(HttpToolsProtocol):
    """One connection to the admin listener."""

    def __init__(self, *, peer: str, left: Callable[[str], None], **parts: Any) -> None:
        super().__init__(**parts)
        self._peer = peer
        self._left = left
        self._request_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Find out whose it is while the other end is there."""
        super().connection_made(transport)
        peer, ours = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.app_state = {PEER_USER: peer_user(peer[:2], ours[:2]) if peer and ours else None}

    def data_received(self, data: bytes) -> None:
        """Pass data on, but no request without end."""
        self._request_bytes += len(data)
        if self._request_bytes > _REQUEST_BYTES or len(self.pipeline) > _PIPELINED:
            self.transport.abort()
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Begin to count anew."""
        self._request_bytes = 0
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        super().connection_lost(exc)
        self._left(self._peer)

    @property
    def idle(self) -> bool:
        """Whether no request is in work."""
        return self.cycle is None or self.cycle.response_complete


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, acceptor: Accepting, stopped: asyncio.Event) -> None:
        super().__init__(config)
        self._acceptor = acceptor
        self._stopped = stopped

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections within limits, where uvicorn would accept any."""
        assert sockets is not None
        self.servers = []
        self._acceptor.start(sockets[0])
        self.started = True

    async def main_loop(self) -> None:
        """Sleep until `stop`, instead of waking ten times a second to look."""
        await self._stopped.wait()


class UvicornListener:
    """Serves an application on a bound socket until `stop`."""

    def __init__(
        self, *, app: ASGIApp, end_streams: Callable[[], None], accept: Accept, tls: Tls | None = None
    ) -> None:
        self._end_streams = end_streams
        self._stopped = asyncio.Event()
        self._acceptor = accept(self._connection, self._make_room, tls)
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            http=_Connection,
            timeout_graceful_shutdown=2,
            server_header=False,
            date_header=False,
        )
        self._server = _Server(config, acceptor=self._acceptor, stopped=self._stopped)

    async def serve(self, sock: socket.socket) -> None:
        """Serve until `stop` was called and the requests in work are done, within two seconds."""
        await self._server.serve(sockets=[sock])

    def stop(self) -> None:
        """Ask `serve` to return; event streams end at once."""
        self._server.should_exit = True
        self._acceptor.stop()
        self._stopped.set()
        self._end_streams()

    def _connection(self, peer: str) -> _Connection:
        return _Connection(
            peer=peer,
            left=self._acceptor.left,
            config=self._server.config,
            server_state=self._server.server_state,
            app_state={},
        )

    def _make_room(self, peer: str | None) -> bool:
        """Close a connection without a request in work; return whether there was one."""
        for one in self._server.server_state.connections:
            if isinstance(one, _Connection) and one.idle and one.transport is not None:
                one.transport.abort()
                return True
        return False
