"""A client may leave at every await; what it held is free at once, and exactly once."""

import asyncio

import pytest

from poorwill.core.words import ModelName
from poorwill.gateway.request_policy import TRIES

from .site import Site, post, running_site
from .talk import talk
from .toy_upstream import EVENTS_HEAD, Asked, chunk, takes

ASK = {"model": "m1", "messages": []}
STREAM = ASK | {"stream": True}


async def gone(site: Site) -> None:
    row = await site.ledger.row()
    assert (row.status, row.outcome) == (499, "client_gone")
    await site.settled()
    assert len(site.ledger.rows) == 1


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize("ask", [ASK, STREAM])
async def test_leaving_the_queue_frees_the_place(ask: dict[str, object], polite: bool) -> None:
    async with running_site(parked=True) as site:
        async with talk(site.port) as client:
            client.send(post(ask))
            await site.held()
            if polite:
                client.writer.close()
            else:
                client.leave()
            await site.activator.until(lambda: not site.activator.queue)
        assert site.activator.withdrawn == 1
        await gone(site)


async def test_leaving_after_a_commitment() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(STREAM))
        await client.answer(until=b": poorwill")
        client.leave()
        await site.activator.until(lambda: not site.activator.queue)
        row = await site.ledger.row()
        assert (row.outcome, row.wake) == ("client_gone", "wake-1")


async def test_a_lease_granted_too_late_returns() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        [connection] = site.server.connections
        exchange = connection.exchange
        assert exchange is not None
        site.wake()
        exchange.gone()
        await gone(site)
        assert site.activator.granted == 1
        assert site.upstream.asked == []


async def test_leaving_at_once_holds_nothing() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        original = site.activator.claim

        def claim(model: ModelName, last: object) -> None:
            asyncio.get_running_loop().call_soon(client.leave)
            [connection] = site.server.connections
            asyncio.get_running_loop().call_soon(connection.connection_lost, None)
            site.activator.claim = original  # type: ignore[method-assign]

        site.activator.claim = claim  # type: ignore[method-assign, assignment]
        client.send(post(ASK))
        await gone(site)
        assert site.activator.queue == []


async def test_leaving_while_connecting() -> None:
    async with running_site() as site, talk(site.port) as client:
        original = site.pool.connect
        connecting = asyncio.Event()

        async def connect(host: str, port: int) -> object:
            connecting.set()
            upstream = await original(host, port)
            raise AssertionError(f"{upstream!r} outlived its request")

        site.pool.connect = connect  # type: ignore[method-assign, assignment]
        client.send(post(ASK))
        await connecting.wait()
        [connection] = site.server.connections
        assert connection.exchange is not None
        connection.exchange.gone()
        await gone(site)
        await site.pool.close(site.upstream.host, site.upstream.port)
        assert site.upstream.open_connections == 0


async def test_leaving_before_a_retry() -> None:
    async with running_site() as site, talk(site.port) as client:
        tried = asyncio.Event()

        async def connect(host: str, port: int) -> object:
            tried.set()
            raise ConnectionRefusedError(111, "refused")

        site.pool.connect = connect  # type: ignore[method-assign, assignment]
        client.send(post(ASK))
        await tried.wait()
        client.leave()
        await gone(site)
        assert site.activator.granted < TRIES


async def _thinks(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS_HEAD + chunk(b"data: 1\n\n"))
    await writer.drain()
    await asyncio.Event().wait()


@pytest.mark.parametrize("polite", [True, False])
async def test_leaving_early_aborts_the_request(polite: bool) -> None:
    async with running_site(_thinks) as site, talk(site.port) as client:
        client.send(post(ASK))
        await site.upstream.arrived.wait()
        if polite:
            client.writer.close()
        else:
            client.leave()
        await gone(site)
        await _upstream_closed(site)


@pytest.mark.parametrize("polite", [True, False])
async def test_leaving_mid_stream_aborts_it(polite: bool) -> None:
    async with running_site(_streams) as site, talk(site.port) as client:
        client.send(post(STREAM))
        await client.answer(until=b"data: 1")
        if polite:
            client.writer.close()
        else:
            client.leave()
        await gone(site)
        await _upstream_closed(site)


async def test_a_half_closed_client_is_gone() -> None:
    async with running_site(_thinks) as site, talk(site.port) as client:
        client.send(post(ASK))
        await site.upstream.arrived.wait()
        client.writer.write_eof()
        await gone(site)


async def test_random_leaving_loses_nothing() -> None:
    async with running_site(_streams, parked=True) as site:
        site.activator.limit = 5

        async def one(n: int) -> None:
            async with talk(site.port) as client:
                client.send(post(STREAM))
                for _ in range(n % 7):
                    await takes(0.001)
                client.leave()

        async with asyncio.TaskGroup() as group:
            for n in range(60):
                group.create_task(one(n))
                if n == 20:
                    group.create_task(_wake_soon(site))
        await site.activator.until(lambda: not site.activator.queue)
        await site.settled()
        await site.server.drained()


async def _wake_soon(site: Site) -> None:
    await takes(0.002)
    site.wake()


async def _upstream_closed(site: Site) -> None:
    """The toy notices a lost client only when it reads or writes; ask the pool instead."""
    async with asyncio.timeout(5):
        await site.pool.close(site.upstream.host, site.upstream.port)
    assert site.pool.open_connections(site.upstream.host, site.upstream.port) == 0


async def test_a_cancelled_drain() -> None:
    async with running_site(_thinks) as site, talk(site.port) as client:
        client.send(post(ASK))
        await site.upstream.arrived.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await site.server.drained()
        assert site.server.active == 1
        client.leave()
        await site.server.drained()


async def test_closing_the_pool_can_be_abandoned() -> None:
    async with running_site() as site:
        await site.raw(post(ASK, headers=["Connection: close"]))
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(site.pool.close(site.upstream.host, site.upstream.port))
            await takes(0)
            closing.cancel()
        await site.pool.close(site.upstream.host, site.upstream.port)
