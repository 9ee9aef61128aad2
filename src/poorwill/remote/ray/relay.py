"""The host's listener for the fleet: requests to its engines, and signs of life, over TLS.

A connection proves that it holds the fleet's key, then says in one line what it wants: `engine PORT`, and
everything after that is between the gateway and the engine; `beats`; or `call`, where Ray carries none.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from poorwill.core.ports.log import Log
from poorwill.hosts.files.aside import aside
from poorwill.remote.ray.calls import line
from poorwill.remote.ray.service import HostService, nobody

BEAT_S = 0.5
CONNECT_S = 5.0
_PIECE = 256 * 1024
_MOST_LINE = 64


@asynccontextmanager
async def relaying(
    service: HostService,
    *,
    address: tuple[str, int],
    tls: ssl.SSLContext,
    proven: Callable[[str, int], Awaitable[bool]],
    log: Log,
) -> AsyncIterator[None]:
    """Listen meanwhile, on a thread of its own: a host whose service is busy is no silent one.

    `proven` as `is_proven`: only engines of this host are reached. Raises OSError.
    """
    closing, news = asyncio.Event(), asyncio.Event()
    relay = _Relay(service=service, news=news, proven=proven, log=log)

    async def listen() -> None:
        server = await asyncio.start_server(
            relay.attend, sock=door, ssl=tls, limit=_PIECE, ssl_handshake_timeout=CONNECT_S
        )
        await closing.wait()
        server.close()

    def run() -> None:
        with runner:  # which ends the connections
            runner.run(listen())

    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    door = socket.create_server(tuple(address), family=family)
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    tell = runner.get_loop().call_soon_threadsafe
    service.news = partial(tell, news.set)
    thread = threading.Thread(target=run, name="relay")
    thread.start()
    try:
        yield
    finally:
        service.news = nobody
        tell(closing.set)
        await aside(thread.join)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relay:
    """What a connection may want, and a service to give it."""

    service: HostService
    news: asyncio.Event
    proven: Callable[[str, int], Awaitable[bool]]
    log: Log

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            async with asyncio.timeout(CONNECT_S):
                wanted = (await reader.readuntil(b"\n"))[:_MOST_LINE].split()
            if wanted == [b"beats"]:
                await _beats(self.service, self.news, writer)
            elif wanted == [b"call"]:
                await _join(reader, writer, *await asyncio.open_unix_connection(self.service.socket))
            elif len(wanted) == 2 and wanted[0] == b"engine":
                await _relay(self.service, int(wanted[1]), reader, writer, self.proven)
        except (
            OSError,
            ValueError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as e:
            self.log.info("a connection of the fleet ended", why=str(e) or type(e).__name__)
        except asyncio.CancelledError:
            self.log.info("the relay closes")  # nobody awaits this task
        finally:
            writer.transport.abort()


async def _beats(service: HostService, news: asyncio.Event, writer: asyncio.StreamWriter) -> None:
    while True:
        news.clear()
        writer.write(line(service.beat()))
        await writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT_S):
                await news.wait()


async def _relay(
    service: HostService,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    proven: Callable[[str, int], Awaitable[bool]],
) -> None:
    """Join the connection with one to an engine. Raises OSError if there is none."""
    if port not in {running.port for running in list(service.engines.values())}:
        raise ConnectionRefusedError(f"no engine of this host listens on port {port}")
    async with asyncio.timeout(CONNECT_S):
        to_engine, engine = await asyncio.open_connection("127.0.0.1", port, limit=_PIECE)
    try:
        if not await proven("127.0.0.1", port):
            raise ConnectionRefusedError(f"what listens on port {port} is not the engine")
        writer.write(b"+")
        await _join(reader, writer, to_engine, engine)
    finally:
        engine.transport.abort()


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    from_there: asyncio.StreamReader,
    there: asyncio.StreamWriter,
) -> None:
    """Pass on what comes from either until one of them ends, which ends both."""
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_pump(reader, there))
            down = group.create_task(_pump(from_there, writer))
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            if down.done() and down.result():  # it has ended it in order: what it said goes out first
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            up.cancel()
            down.cancel()
    finally:
        there.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    """Pass on what comes; return whether it ended in order."""
    try:
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
    except OSError:
        return False
    return True
