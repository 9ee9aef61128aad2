"""A client on the bridge may leave at every await; both places are free at once, and exactly once."""

import asyncio
import random
from typing import Any

import pytest

from poorwill.core.words import SECOND_US
from poorwill.gateway.bridge.crossing import REST_S

from .bridge_site import (
    ASK,
    NAME,
    STREAM,
    ask,
    babbles,
    bridged_site,
    bridges,
    hangs_up,
    nothing,
    says,
)
from .site import Site, post
from .talk import talk
from .toy_upstream import (
    EVENTS_HEAD,
    LAST,
    Asked,
    ToyUpstream,
    chat,
    closes_unread,
    delta,
    event,
    takes,
)


async def _gone(site: Site, *, sent: bool) -> None:
    row = await site.ledger.row()
    assert (row.status, row.outcome) == (499, "client_gone")
    assert (row.bridge, row.bridge_untold) == ((NAME, True) if sent else ("", False))
    assert site.activator.crossing == 0


async def test_leaving_while_connecting() -> None:
    async with bridged_site() as (site, fake), talk(site.port) as client:
        original, connecting = site.pool.connect, asyncio.Event()

        async def connect(host: str, port: int, **more: Any) -> object:
            connecting.set()
            upstream = await original(host, port, **more)
            raise AssertionError(f"{upstream!r} outlived its request")

        site.pool.connect = connect  # type: ignore[method-assign, assignment]
        client.send(post(ASK))
        await connecting.wait()
        [connection] = site.server.connections
        assert connection.exchange is not None
        connection.exchange.gone()
        await _gone(site, sent=False)
        assert fake.asked == []


async def _until_closed(site: Site, fake: ToyUpstream) -> None:
    """Wait until no connection to the hosted API is open; a toy notices only when it reads or writes."""
    async with asyncio.timeout(5):
        await site.pool.close(fake.host, fake.port)
    assert site.pool.open_connections(fake.host, fake.port) == 0


@pytest.mark.parametrize("polite", [True, False])
async def test_leaving_early_stops_the_api(polite: bool) -> None:
    async with bridged_site(nothing) as (site, fake):
        async with talk(site.port) as client:
            client.send(post(ASK))
            await fake.until(lambda: bool(fake.asked))
            client.writer.close() if polite else client.leave()
            await _gone(site, sent=True)
            await _until_closed(site, fake)


async def test_leaving_mid_stream_stops_the_api() -> None:
    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + event(delta("fake-8b", "hi")))
        await writer.drain()
        await asyncio.Event().wait()

    async with bridged_site(streams) as (site, fake), talk(site.port) as client:
        client.send(post(STREAM))
        await client.answer(until=b"hi")
        client.leave()
        await _gone(site, sent=True)
        await _until_closed(site, fake)


async def test_leaving_during_a_replacement() -> None:
    stuck = asyncio.Event()

    async def closes(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await chat(asked, writer)
        await closes_unread(writer)

    async with bridged_site(closes) as (site, _), talk(site.port) as client:
        assert (await ask(site)).status == 200

        async def connect(host: str, port: int, **more: Any) -> object:
            stuck.set()
            await asyncio.Event().wait()
            raise AssertionError

        site.pool.connect = connect  # type: ignore[method-assign, assignment]
        client.send(post(ASK))
        await stuck.wait()
        client.leave()
        row = await site.ledger.row(1)
        assert (row.outcome, row.bridge) == ("client_gone", NAME)


async def test_leaving_after_the_api_failed() -> None:
    async with bridged_site(says(500)) as (site, _), talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        client.leave()
        await site.activator.until(lambda: not site.activator.queue)
        await _gone(site, sent=False)


async def test_closing_ends_crossings() -> None:
    async with asyncio.TaskGroup() as group:
        async with bridged_site(nothing) as (site, fake):
            crossing = group.create_task(site.raw(post(ASK)))
            await fake.until(lambda: bool(fake.asked))
        received = await crossing
    assert received.startswith(b"HTTP/1.1 503 ") and b'"draining"' in received
    assert site.pool.open_connections(fake.host, fake.port) == 0


async def test_random_crossings_lose_nothing() -> None:
    chance = random.Random(7)

    async def anything(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await takes(chance.random() / 50)
        script = chance.choice([chat, chat, chat, says(400), hangs_up, babbles, _streams_on])
        if not writer.is_closing():
            await script(asked, writer)

    async def visits(site: Site) -> None:
        async with talk(site.port) as client:
            client.send(post(chance.choice([ASK, STREAM])))
            if chance.random() < 0.5:
                await takes(chance.random() / 20)
                client.leave()
            else:
                answer = await client.answer()
                assert answer.status == 200 or answer.body == b"", answer

    async with bridged_site(anything) as (site, fake):
        async with asyncio.TaskGroup() as group:
            for _ in range(150):
                group.create_task(visits(site))
                await takes(chance.random() / 500)
                site.clock.skipped_us += REST_S * SECOND_US  # no rest: the next one must try as well
            site.wake()
        for number in range(150):
            row = await site.ledger.row(number)
            assert bool(row.bridge) != bool(row.replica) or row.outcome == "client_gone"
        await site.settled()
        [bridge] = await bridges(site)
        assert bridge["under_way"] == 0 and bridge["failures"] > 10
        rows = [row for row in site.ledger.rows if row.bridge]  # type: ignore[union-attr]
        counted = sum(row.bridge_nusd + row.bridge_unknown_nusd for row in rows)
        assert not site.activator.queue and counted == sum(site.activator.paid) > 0
        assert sum(row.bridge_nusd for row in rows) == bridge["nusd"] > 0
        await _until_closed(site, fake)


async def _streams_on(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS_HEAD + event(delta("fake-8b", "hi")))
    await takes(0.02)
    if writer.is_closing():
        return  # its client has left
    writer.write(event(delta("fake-8b", "ho")) + LAST)
