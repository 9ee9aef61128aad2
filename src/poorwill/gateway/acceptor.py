"""Accepts connections on a listening socket, within limits: in all and by address.

asyncio's own server accepts whatever comes and stops for a second when descriptors run out, so idle strangers
could keep everybody else out and take the descriptors that engines and the ledger need. Here a connection is
counted before anything is made for it. At a limit, connections that have been idle the longest make room; if
none is idle, the new one is answered with a 503 and closed, which costs one write.
"""

import asyncio
import errno
import ipaddress
import os
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from poorwill.core.errors import ErrorCode, OperatorFault, TryLater
from poorwill.core.ports.log import Log
from poorwill.gateway.downstream.response import Ending, Response
from poorwill.gateway.wire import Dialect
from poorwill.hosts.tcp import stay_alive

BACKLOG = 4096
_LEAST_CONNECTIONS = 8
MOST_DESCRIPTORS = 65_536
"""What is assumed, and asked for, where there is no limit."""
_ACCEPTS_A_TURN = 32
SHORT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of this machine that say nothing of the other side."""
_PAUSE_S = 0.1
_HANDSHAKE_S = 10.0
_RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections may be open."""

    in_all: int
    per_address: int


def connection_limits(*, in_all: int, per_address: int, reserved: int) -> ConnectionLimits:
    """Return what the limit of file descriptors leaves of the configured limits.

    Each client connection may need another one to an engine; `reserved` descriptors are for everything else:
    the ledger, the log, wakes, the admin listener.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        descriptors = MOST_DESCRIPTORS
    in_all = max(min(in_all, (descriptors - reserved) // 2), _LEAST_CONNECTIONS)
    return ConnectionLimits(in_all=in_all, per_address=min(per_address or -(-in_all // 2), in_all))


@dataclass(slots=True, kw_only=True)
class Acceptor:
    """One listening socket. `make` returns the protocol for a peer's address; who makes it says `left` when
    that connection is closed. `make_room` closes idle connections, of an address or of all, and returns
    whether there were any. `tls` returns what secures a new connection."""

    limits: ConnectionLimits
    make: Callable[[str], asyncio.Protocol]
    make_room: Callable[[str | None], bool]
    refused: Callable[[ErrorCode], None]
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    log: Log
    tls: Callable[[], ssl.SSLContext] | None = None
    _open: int = 0
    _opening: int = 0
    _by_address: Counter[str] = field(default_factory=Counter)
    _sock: socket.socket | None = None

    def start(self, sock: socket.socket) -> None:
        """Accept from now on. The socket is closed by `stop`."""
        sock.setblocking(False)
        stay_alive(sock)
        self._sock = sock
        self._listen()

    def stop(self) -> None:
        """Accept no more; connections stay open. Idempotent."""
        sock, self._sock = self._sock, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    def left(self, address: str) -> None:
        """Take note that a connection is closed."""
        self._open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _listen(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        """Accept some of those who wait; the others have their turn in the loop's next one."""
        for _ in range(_ACCEPTS_A_TURN):
            if self._sock is None:
                return
            try:
                connection, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            address = _peer(peer[0])
            if self._full(address):
                self._refuse(connection)
            else:
                self._open += 1
                self._by_address[address] += 1
                self.spawn(self._serve(connection, address))
                self._opening += self.tls is None  # a handshake may take long: it counts as open

    def _full(self, address: str) -> bool:
        """Return whether there is no room for one more. Room that is being made counts as room.

        While others are on their way in, nobody can be told from them to be idle: one more is let in.
        """
        if self._by_address[address] >= self.limits.per_address:
            return not (self.make_room(address) or self._opening)
        return self._open >= self.limits.in_all and not (self.make_room(None) or self._opening)

    async def _serve(self, connection: socket.socket, address: str) -> None:
        protocol = self.make(address)
        try:
            accept, tls = asyncio.get_running_loop().connect_accepted_socket, self.tls and self.tls()
            await accept(
                lambda: protocol, connection, ssl=tls, ssl_handshake_timeout=_HANDSHAKE_S if tls else None
            )
        except OSError as error:  # the peer has left already
            connection.close()
            self.left(address)
            self.log.info("a connection failed as it was accepted", error=error)
        finally:
            self._opening -= self.tls is None

    def _refuse(self, connection: socket.socket) -> None:
        self.refused(ErrorCode.OVERLOADED)
        written: list[bytes] = []
        response = Response(
            write=written.append,
            request_id=b"-",
            http11=True,
            ending=Ending.CLOSE,
            bodyless=False,
            dialect=Dialect.OPENAI,
        )
        error = TryLater(ErrorCode.OVERLOADED, "poorwill has as many connections as it may have")
        response.fail(error, retry_after_s=_RETRY_AFTER_S)
        try:
            connection.setblocking(False)
            connection.send(b"".join(written))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        connection.close()

    def _pause(self, error: OSError) -> None:
        """Wait for descriptors; the machine's trouble must not end the listener."""
        assert self._sock is not None
        if error.errno not in SHORT_OF_RESOURCES:
            self.log.error("accepting a connection failed", error=error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        self.make_room(None)
        loop.call_later(_PAUSE_S, self._listen)


def _peer(host: str) -> str:
    """Return what a peer is counted by: its address, or the network of 2**64 that it may choose from."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OperatorFault(IN_USE) with the reason if that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as error:
        hints = {
            errno.EADDRINUSE: "another program has it; port 0 takes a free one",
            errno.EACCES: "ports below 1024 need a privilege",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }
        # The exception's own message repeats the address.
        what = os.strerror(error.errno) if error.errno in hints else error.strerror or str(error)
        raise OperatorFault(
            ErrorCode.IN_USE,
            f"cannot listen on {host}:{port}: {what}",
            hint=hints.get(error.errno or 0),
        ) from error
