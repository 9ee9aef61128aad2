"""The host's listener for the fleet: requests to its engines, and signs of life, over TLS.

A connection proves that it holds the fleet's key, then says in one line what it wants: `engine PORT`, and
everything after that is between the gateway and the engine; `beats`; or `call`, where Ray carries none.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from poorwill.core.ports.log import Log
from poorwill.remote.ray.calls import line
from poorwill.remote.ray.service import HostService

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
    """Listen meanwhile. `proven` as `is_proven`: only engines of this host are reached. Raises OSError."""
    attending: set[asyncio.Task[None]] = set()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attending.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(CONNECT_S):
                wanted = (await reader.readuntil(b"\n"))[:_MOST_LINE].split()
            if wanted == [b"beats"]:
                await _beats(service, writer)
            elif wanted == [b"call"]:
                await service.converse(reader, writer)
            elif len(wanted) == 2 and wanted[0] == b"engine":
                await _relay(service, int(wanted[1]), reader, writer, proven)
        except (
            OSError,
            ValueError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as e:
            log.info("a connection of the fleet ended", why=str(e) or type(e).__name__)
        except asyncio.CancelledError:
            log.info("the relay closes")  # `attending` is cancelled by nobody else, and nobody awaits it
        finally:
            attending.discard(asyncio.current_task())
            writer.transport.abort()

    server = await asyncio.start_server(
        attend, *address, ssl=tls, limit=_PIECE, ssl_handshake_timeout=CONNECT_S, reuse_address=True
    )
    try:
        yield
    finally:
        server.close()
        for task in list(attending):
            task.cancel()


async def _beats(service: HostService, writer: asyncio.StreamWriter) -> None:
    while True:
        service.news.clear()
        writer.write(line(service.beat()))
        await writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT_S):
                await service.news.wait()


async def _relay(
    service: HostService,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    proven: Callable[[str, int], Awaitable[bool]],
) -> None:
    """Join the connection with one to an engine until either ends; either's end ends both."""
    if port not in {running.port for running in service.engines.values()}:
        raise ConnectionRefusedError(f"no engine of this host listens on port {port}")
    to_engine, engine = None, None
    try:
        async with asyncio.timeout(CONNECT_S):
            to_engine, engine = await asyncio.open_connection("127.0.0.1", port, limit=_PIECE)
        if not await proven("127.0.0.1", port):
            raise ConnectionRefusedError(f"what listens on port {port} is not the engine")
        writer.write(b"+")
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_pump(reader, engine))
            down = group.create_task(_pump(to_engine, writer))
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            if down.done() and down.result():  # the engine has ended it: what it said goes out first
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            up.cancel()
            down.cancel()
    finally:
        if engine is not None:
            engine.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    """Pass on what comes; return whether it ended in order."""
    try:
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
    except OSError:
        return False
    return True
