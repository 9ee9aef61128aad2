"""The controller's contact with one host: whether it lives, what lives there, and the way to engines."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import msgspec

from poorwill.core.launch import Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Report
from poorwill.core.ports.log import Log
from poorwill.core.ports.silence import HostSilent
from poorwill.core.words import ReplicaId
from poorwill.remote.ray.calls import Beat, Call, CallAnswer, line, read_answer, read_beat

AGAIN_S = 0.25
LOOKS = 9
"""A host that sent no beat in so many looks in a row is silent: four beats, and known within the 3 s that are
promised. Counted in looks, `AGAIN_S` apart: a controller that was stopped itself has heard nobody."""
SILENT_S = LOOKS * AGAIN_S
_MOST_BEAT_BYTES = 4 * 2**20

Protocols = Callable[[], asyncio.BaseProtocol]


@dataclass(slots=True, kw_only=True, eq=False)
class Contact:
    """One host as the controller sees it. `follow` keeps it up to date."""

    name: str
    address: tuple[str, int]
    tls: ssl.SSLContext
    clock: Clock
    log: Log
    up: bool = False
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while it answers."""
    last: Beat | None = None
    reports: dict[tuple[ReplicaId, int], Report] = field(default_factory=dict)
    """Who wants the phases of a wake, by replica and generation."""
    expected: dict[tuple[int, int], int] = field(default_factory=dict)
    """Engines told of by an answer, and the last beat that cannot know of them."""
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)
    _unheard: int = 0
    """Looks since the last beat."""
    _why: str = ""
    """What ended the last connection that brought beats."""

    async def follow(self) -> None:
        """Follow the host's beats until cancelled. Never raises otherwise."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                await asyncio.sleep(AGAIN_S)
                self._unheard += 1
                if self.up and self._unheard > LOOKS:
                    self._fall_silent()

    async def _listen(self) -> None:
        """Take beats, over another connection whenever one fails or brings nothing."""
        while True:
            try:
                async with asyncio.timeout(SILENT_S) as limit:
                    reader, writer = await asyncio.open_connection(
                        *self.address, ssl=self.tls, limit=_MOST_BEAT_BYTES, server_hostname=""
                    )
                    try:
                        writer.write(b"beats\n")
                        while text := await reader.readline():
                            limit.reschedule(asyncio.get_running_loop().time() + SILENT_S)
                            self._take(read_beat(text))
                    finally:
                        writer.transport.abort()
            except (OSError, TimeoutError, ValueError, msgspec.DecodeError) as error:
                self._why = str(error)
            await asyncio.sleep(AGAIN_S)

    def _take(self, beat: Beat) -> None:
        if self.last is not None and beat.session != self.last.session:
            self.expected.clear()  # another service runs there now, and knows what it has found
        self.last, self._unheard, self._why = beat, 0, ""
        for key in [key for key, number in self.expected.items() if number < beat.number]:
            del self.expected[key]
        offset_us = self.clock.now_us() - beat.now_us
        for marked in beat.marks:
            report = self.reports.get((marked.replica, marked.generation))
            if report is not None:
                at_us = min(marked.mark.at_us + offset_us, self.clock.now_us())
                report(replace(marked.mark, at_us=at_us))
        if not self.up:
            self.up = True
            self.seen.set()
            self.log.info("a host answers", host=self.name)
        self._tell()

    def _fall_silent(self) -> None:
        self.up = False
        self.seen.clear()
        self.log.error("a host is silent", host=self.name, why=self._why or "it sends nothing")
        self._tell()

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def now(self) -> Mapping[str, object]:
        """Return how the host stands, as `/status` has it."""
        last = self.last
        told = msgspec.to_builtins(last.disks) if last is not None else ()
        return {
            "name": self.name,
            "answers": self.up,
            "engines": len(last.engines) if last is not None else 0,
            "disks": told,
        }

    async def changed(self) -> None:
        """Wait for the next beat, or for silence."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def back(self) -> None:
        """Return when the host answers."""
        await self.seen.wait()

    async def silent(self) -> None:
        """Return when the host does not answer."""
        while self.up:
            await self.changed()

    def check(self) -> None:
        """Raise HostSilent unless the host answers."""
        if not self.up:
            raise HostSilent(f"the host {self.name} is silent", back=self.back)

    def expect(self, running: Running, beat: int) -> None:
        """Take an engine for alive until a beat after that one says otherwise."""
        self.expected[running.pid, running.pid_started] = beat

    def alive(self, running: Running) -> bool:
        """Return whether the host answers and has said that the engine lives."""
        return self.up and self.knows(running)

    def knows(self, running: Running) -> bool:
        """Return whether the engine lived, by what the host said last."""
        key = running.pid, running.pid_started
        return key in self.expected or (self.last is not None and key in self.last.engines)

    async def ended(self, running: Running) -> str:
        """Wait until the engine has ended and return why. Raises HostSilent when the host falls silent."""
        while True:
            self.check()
            if not self.alive(running) and self.last is not None:
                key = f"{running.pid}:{running.pid_started}"
                return self.last.ended.get(key, "it ended while nobody watched it")
            await self.changed()

    async def connect(self, new: Protocols, port: int) -> None:
        """Connect a protocol to one of the host's engines. Cancelled: nothing is left.

        A relay that does not listen may be a moment from listening again: it is tried until the host is
        silent. Raises OSError then, or if there is no such engine.
        """
        while True:
            door = _Door(new, port, asyncio.get_running_loop().create_future())
            try:
                transport = await self._reach(door)
                break
            except OSError:
                if not self.up:
                    raise
                await asyncio.sleep(AGAIN_S)
        try:
            await door.opened
        except BaseException:
            transport.abort()
            raise

    async def carry(self, call: Call) -> CallAnswer:
        """Have the host's service answer over its relay. Raises DriverError. Cancelled: it sees that."""
        try:
            reader, writer = await asyncio.open_connection(
                *self.address, ssl=self.tls, limit=_MOST_BEAT_BYTES, server_hostname=""
            )
            try:
                writer.write(b"call\n" + line(call))
                return read_answer(await reader.readline())
            finally:
                writer.transport.abort()
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise DriverError(f"the relay of {self.name}: {error}") from error

    async def _reach(self, door: "_Door") -> asyncio.Transport:
        async with asyncio.timeout(SILENT_S):
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: door, *self.address, ssl=self.tls, server_hostname=""
            )
        return transport


class _Door(asyncio.Protocol):
    """Asks the relay for an engine, and steps aside once it is reached."""

    def __init__(self, new: Protocols, port: int, opened: "asyncio.Future[None]") -> None:
        self._new = new
        self._port = port
        self._transport: asyncio.Transport | None = None
        self.opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = door = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        door.write(f"engine {self._port}\n".encode())

    def data_received(self, data: bytes) -> None:
        """Hand the connection over: the relay has reached the engine."""
        if self._transport is not None and not self.opened.done():
            protocol = self._new()
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that there is no such engine."""
        if not self.opened.done():
            self.opened.set_exception(ConnectionRefusedError("the host's relay has no such engine"))
            self.opened.exception()  # who waits for it may have left
