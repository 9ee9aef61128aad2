"""WebSockets at /v1/realtime: bytes pass both ways under a lease that ends with the connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.waiting import until
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from poorwill.core.ports.keys import KeyLimits

from .site import Site, running_site
from .talk import talk
from .toy_upstream import Asked, answer

Serve = Callable[[ServerConnection], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def realtime_site(handler: Serve = echo, **options: object) -> AsyncIterator[Site]:
    async with running_site(**options) as site, serve(handler, "127.0.0.1", 0, max_size=None) as server:  # type: ignore[arg-type]
        port: int = next(iter(server.sockets)).getsockname()[1]
        site.upstream.port = port
        yield site


def dial(site: Site, query: str = "model=m1", **options: object) -> connect:
    url = f"ws://127.0.0.1:{site.port}/v1/realtime?{query}"
    return connect(url, proxy=None, max_size=None, compression=None, **options)  # type: ignore[arg-type]


async def refused(site: Site, query: str, **options: object) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as failed:
        async with dial(site, query, **options):
            pass
    answer = failed.value.response
    return answer.status_code, json.loads(answer.body)["error"]["code"]


async def test_messages_pass_both_ways() -> None:
    async with realtime_site() as site:
        async with dial(site, subprotocols=["realtime"], additional_headers={"X-Mine": "1"}) as client:
            for message in ("hello", b"\x00\xff" * 70_000, ""):
                await client.send(message)
                assert await client.recv() == message
            assert site.server.active == 1 and len(site.activator.out) == 1
        await site.settled()
        row = await site.ledger.row()
        assert (row.status, row.outcome, row.path, row.model) == (101, "ok", "/v1/realtime", "m1")


async def test_the_engine_sees_its_own_name_of_the_model() -> None:
    seen: list[str] = []

    async def notes(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.extend((connection.request.path, connection.request.headers.get("Authorization", "-")))
        await echo(connection)

    async with realtime_site(notes, keys={b"sk-ann": "ann"}) as site:
        site.activator.engine_model = "big model"
        options = {"additional_headers": {"Authorization": "Bearer sk-ann"}}
        async with dial(site, "model=m1&intent=x", **options) as client:
            await client.send("a")
            assert await client.recv() == "a"
    assert seen == ["/v1/realtime?model=big+model&intent=x", "-"], "a key stays here"


async def test_a_tunnel_waits_for_a_wake() -> None:
    async with realtime_site(parked=True) as site, asyncio.TaskGroup() as group:

        async def talks() -> None:
            async with dial(site) as client:
                await client.send("after the wake")
                assert await client.recv() == "after the wake"

        task = group.create_task(talks())
        await site.held()
        site.wake()
        await task


async def test_a_client_that_leaves_while_held() -> None:
    async with realtime_site(parked=True) as site:
        async with talk(site.port) as client:
            client.send(
                b"GET /v1/realtime?model=m1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            await site.held()
        await site.activator.until(lambda: site.activator.withdrawn == 1)
        assert (await site.ledger.row()).outcome == "client_gone"


async def test_either_end_may_close() -> None:
    async def leaves(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1001, "bye")

    async with realtime_site(leaves) as site:
        async with dial(site) as client:
            await client.send("go")
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.reason == "bye"
        await site.settled()


async def test_an_engine_that_dies_ends_the_tunnel() -> None:
    async def dies(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    async with realtime_site(dies) as site:
        async with dial(site) as client:
            await client.send("go")
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await site.settled()


async def test_a_park_cuts_the_tunnel() -> None:
    async with realtime_site() as site:
        async with dial(site) as client:
            await client.send("a")
            await client.recv()
            site.pool.cut(site.upstream.host, site.upstream.port, "the replica is parked")
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await site.settled()
        assert (await site.ledger.row()).outcome == "draining"


@pytest.mark.parametrize("slow_client", [True, False])
async def test_whoever_reads_slowly_slows_the_other(*, slow_client: bool) -> None:
    """The faster end stops once the buffers between are full, and all of it arrives in the end."""
    sent, piece, most, go_on = 0, bytes(2**20), 200, asyncio.Event()

    async def pours(connection: ServerConnection | ClientConnection) -> None:
        nonlocal sent
        for _ in range(most):
            await connection.send(piece)
            sent += 1

    async def drinks(connection: ServerConnection | ClientConnection) -> None:
        await go_on.wait()
        for _ in range(most):
            assert len(await connection.recv()) == len(piece)

    ends = (pours, drinks) if slow_client else (drinks, pours)
    over = asyncio.Event()

    async def engine(connection: ServerConnection) -> None:
        await ends[0](connection)
        over.set()
        await connection.wait_closed()

    async with realtime_site(engine) as site, dial(site) as client, asyncio.TaskGroup() as group:
        group.create_task(ends[1](client))
        seen = [0]

        def nothing_more_goes_in() -> bool:
            seen.append(sent)
            return sent > 0 and len(seen) > 200 and seen[-200] == sent

        await until(nothing_more_goes_in)
        assert 0 < sent < most / 2
        go_on.set()
        await until(lambda: sent == most, within_s=60)
        await over.wait()


async def test_silence_on_both_sides_ends_it() -> None:
    async with realtime_site(upstream_timeout_us=300_000) as site:
        async with dial(site) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await site.settled()
        assert (await site.ledger.row()).outcome == "ok"


async def test_what_is_refused() -> None:
    keys = {b"sk-ann": "ann"}
    async with realtime_site(keys=keys, models=["m2"]) as site:
        site.keys.limited["ann"] = KeyLimits(models=("m1",))
        ann = {"additional_headers": {"Authorization": "Bearer sk-ann"}}
        assert await refused(site, "model=m1") == (401, "unauthenticated")
        assert await refused(site, "model=m2", **ann) == (403, "forbidden")
        assert await refused(site, "", **ann) == (400, "invalid_request")


async def test_an_unknown_model_and_a_plain_request() -> None:
    async with realtime_site() as site:
        assert await refused(site, "model=none") == (404, "model_not_found")
        async with talk(site.port) as client:
            client.send(b"GET /v1/realtime?model=m1 HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, b"Upgrade: websocket" in answer.body) == (400, True)


async def test_an_engine_without_websockets_says_so() -> None:
    async def knows_none(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(404, b'{"error": {"code": "not here"}}'))

    async with running_site(knows_none) as site:
        assert await refused(site, "model=m1") == (404, "not here")
        await site.settled()
