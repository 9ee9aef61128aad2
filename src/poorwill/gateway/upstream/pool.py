"""The pool of keep-alive connections to engines, keyed by address; the fleet's `Connections` as well.

Owns every socket to an engine, and to the hosted APIs that stand in for one. The last one used is used
first, so surplus ones grow old and are closed. All methods run on the event loop's thread.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from poorwill.core.errors import EngineFault, ErrorCode, TryLater
from poorwill.core.words import SECOND_US
from poorwill.gateway.downstream.exchange import Lost
from poorwill.gateway.upstream.connection import Upstream
from poorwill.hosts.files.reach import Reach, Relayed
from poorwill.policies.requests.silence import ANSWERING, Suspicion

CONNECT_S = 5.0
IDLE_S = 60.0


class _Address:
    """The connections to one address."""

    __slots__ = (
        *("ending", "ends_streams", "head_lines", "heard", "idle", "open", "reach", "relayed", "silence"),
        "waiters",
    )

    def __init__(self, host: str, port: int, reach: Reach | None, *, relayed: bool) -> None:
        bracketed = f"[{host}]" if ":" in host else host
        self.reach = reach
        self.relayed = relayed
        self.head_lines = f"Host: {reach.url.named if reach else f'{bracketed}:{port}'}\r\n".encode()
        for name, value in reach.headers.items() if reach else ():
            self.head_lines += f"{name}: {value}\r\n".encode()
        self.open: set[Upstream] = set()
        self.idle: list[Upstream] = []
        self.ending: set[Upstream] = set()
        self.waiters: list[asyncio.Future[None]] = []
        self.heard = 0.0
        self.silence = ANSWERING
        self.ends_streams = False

    def answered(self, now: float) -> None:
        self.heard = now
        self.silence = ANSWERING

    def opened(self, upstream: Upstream) -> None:
        self.open.add(upstream)

    def rest(self, upstream: Upstream) -> None:
        self.idle.append(upstream)

    def closing(self, upstream: Upstream) -> None:
        if upstream in self.open:
            self.ending.add(upstream)
        if upstream in self.idle:
            self.idle.remove(upstream)

    def closed(self, upstream: Upstream) -> None:
        self.open.discard(upstream)
        self.ending.discard(upstream)
        if upstream in self.idle:
            self.idle.remove(upstream)
        if not self.ending:
            waiters, self.waiters = self.waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


class UpstreamPool:
    """Connections to engines. `timeout_us`: the longest silence of an engine that owes an answer.

    `proven` tells whether a connection just made reaches the engine that belongs at its address, or raises
    OSError: nothing is sent to anybody else. `elsewhere` tells the engines of other machines by address;
    each is known by its certificate, if it has one. `hosts` connect to their engines themselves.
    """

    def __init__(
        self,
        *,
        timeout_us: int,
        proven: Callable[[str, int], Awaitable[bool]] | None = None,
        elsewhere: Callable[[tuple[str, int]], Reach | None] = lambda at: None,
        hosts: Mapping[str, Relayed] = MappingProxyType({}),
    ) -> None:
        self.timeout_us = timeout_us
        self._proven = proven
        self._elsewhere = elsewhere
        self._hosts = hosts
        self._addresses: dict[tuple[str, int], _Address] = {}

    def take(self, host: str, port: int) -> Upstream | None:
        """Return an idle connection that is now the caller's, or None. The warm path."""
        address = self._addresses.get((host, port))
        if address is None:
            return None
        idle = address.idle
        for place in range(len(idle) - 1, -1, -1):
            upstream = idle[place]
            if upstream.settles_at and upstream.settles_at > asyncio.get_running_loop().time():
                continue
            del idle[place]
            if upstream.usable:
                return upstream
        return None

    async def connect(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, hosted: bool = False
    ) -> Upstream:
        """Open a connection to an engine or, `hosted`, to an API, for which TLS needs a context.

        Raises OSError (TimeoutError after `CONNECT_S`, ssl.SSLError if the certificate does not verify,
        ConnectionRefusedError if what listens is not the engine).
        Cancelled: none is left.
        """
        reach = None if hosted else self._elsewhere((host, port))
        relayed = None if hosted else self._hosts.get(host)
        address = self._addresses.get((host, port))
        if address is None or (address.reach != reach and not address.open):  # its key or authority changed
            address = _Address(host, port, reach, relayed=relayed is not None)
            self._addresses[host, port] = address
        tls = reach.tls if reach else tls
        loop = asyncio.get_running_loop()
        upstream = Upstream(pool=address, loop=loop)
        try:
            async with asyncio.timeout(CONNECT_S):
                if relayed is not None:
                    await relayed.connect(lambda: upstream, port)
                else:
                    there = reach.url.host if reach else host
                    await loop.create_connection(lambda: upstream, there, port, ssl=tls)
            proven = None if hosted or reach or relayed else self._proven
            if proven is not None and not await proven(host, port):
                raise ConnectionRefusedError(f"what listens on port {port} is not the engine")
        except BaseException:
            upstream.abandon()
            address.closed(upstream)  # uvloop does not say so of one that was given up as it connected
            raise
        if not upstream.usable:
            raise ConnectionResetError("closed as soon as it was opened")
        return upstream

    async def close(self, host: str, port: int) -> None:
        """Close every idle connection to this address and return when they are closed.

        Cancelled: they still close, unattended.
        """
        address = self._addresses.get((host, port))
        if address is None:
            return
        for upstream in list(address.idle):
            upstream.reset()
        while address.ending:
            waiter = asyncio.get_running_loop().create_future()
            address.waiters.append(waiter)
            await waiter

    def cut(self, host: str, port: int, why: str, *, again: bool = False) -> None:
        """Abort requests in flight to this address; see `Connections.cut`."""
        address = self._addresses.get((host, port))
        if address is not None:
            address.silence = ANSWERING  # what listens here next is another engine
        for upstream in list(address.open) if address else ():
            if upstream.exchange is not None and not (again and upstream.send_back(why)):
                upstream.exchange.fail(TryLater(ErrorCode.DRAINING, why))

    def open_connections(self, host: str, port: int) -> int:
        """Return how many connections to this address are open."""
        address = self._addresses.get((host, port))
        return len(address.open) if address else 0

    async def aclose(self) -> None:
        """Close everything; requests in flight end with `draining`."""
        for host, port in list(self._addresses):
            self.cut(host, port, "poorwill is shutting down")
            await self.close(host, port)

    def heard(self, host: str, port: int) -> float:
        """Return when an engine last sent a byte, on the loop's clock."""
        return address.heard if (address := self._addresses.get((host, port))) else 0.0

    def sweep(self, now: float) -> Sequence[tuple[str, int, Suspicion]]:
        """End exchanges whose engine has been silent too long, close connections long idle.

        Returns addresses that may answer nobody. `now` is the loop's time. A slow client is no silence.
        """
        suspects = []
        for where, address in self._addresses.items():
            before, owing_since = address.silence, now
            for upstream in list(address.open):
                age = now - upstream.heard
                exchange = upstream.exchange
                if exchange is None:
                    if age > IDLE_S:
                        upstream.abandon()
                elif upstream.tunnels:
                    if age * SECOND_US > self.timeout_us:
                        upstream.abandon()
                        exchange.on_lost(Lost.BEGUN, "nothing passed for long")
                elif not upstream.paused:
                    owing_since = min(owing_since, upstream.heard)
                    if age * SECOND_US > self.timeout_us:
                        address.silence = address.silence.timed_out(sent=upstream.heard, now=now)
                        why = f"the engine sent nothing for {self.timeout_us / SECOND_US:g} s"
                        exchange.fail(EngineFault(ErrorCode.UPSTREAM_TIMEOUT, why))
            owing_since = max(owing_since, address.heard)
            address.silence = address.silence.looked_at(owing_since=owing_since, now=now)
            if suspicion := address.silence.suspicion(before):
                suspects.append((*where, suspicion))
        return suspects
