"""The bridge when something fails: what turns back, who leaves, whom a certificate does not prove."""

import asyncio
import random
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest

from poorwill.core.errors import ErrorCode, TryLater

from .bridge_site import (
    ASK,
    NAME,
    STREAM,
    ask,
    bridged_site,
    certificate,
    fake_api,
    serving_tls,
)
from .site import M1, Site, post, running_site
from .talk import talk
from .toy_upstream import (
    EVENTS_HEAD,
    LAST,
    Asked,
    ToyUpstream,
    answer,
    chat,
    delta,
    event,
    toy_upstream,
)

WAKE_FAILED = TryLater(ErrorCode.WAKE_FAILED, "m1 could not be woken: no memory", retry_after_s=9)


async def _nothing(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


# -- turning back


def _says(status: int, *headers: str) -> Any:
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status, b'{"error":{"message":"no"}}', *headers))

    return script


async def _hangs_up(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _babbles(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"this is not HTTP\r\n\r\n")


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("script", "why", "rests_s"),
    [
        (_says(400), "status 400", 0),
        (_says(401), "status 401", 10),
        (_says(404), "status 404", 10),
        (_says(429, "retry-after: 7"), "status 429", 7),
        (_says(429, "retry-after: 86400"), "status 429", 300),
        (_says(429), "status 429", 10),
        (_says(302, "location: /elsewhere"), "status 302", 10),
        (_says(500), "status 500", 10),
        (_hangs_up, "connection lost", 10),
        (_babbles, "its answer is not HTTP", 10),
        (_nothing, "silent for too long", 10),
    ],
)
async def test_what_the_hosted_api_does_not_answer_is_held_for_the_wake(
    script: Any, why: str, rests_s: int, body: dict[str, object]
) -> None:
    async with (
        bridged_site(script, upstream_timeout_us=200_000) as (site, fake),
        talk(site.port) as client,
    ):
        client.send(post(body))
        await site.held()
        assert len(fake.asked) == 1
        async with httpx2.AsyncClient() as http:
            [bridge] = (await http.get(f"{site.admin}/status")).json()["bridges"]
            metrics = (await http.get(f"{site.admin}/metrics")).text
        assert bridge["failures"] == 1 and bridge["requests"] == 0 and bridge["under_way"] == 0
        assert rests_s - 2 <= bridge["rests_s"] <= rests_s
        assert "1 not answered there" in bridge["what"]
        assert ("not used for another" in bridge["what"]) is (rests_s > 0)
        assert f'poorwill_bridge_failures_total{{model="m1",why="{why}"}} 1' in metrics
        [warning] = [line for line in site.log.lines if line[0] == "warning"]
        assert str(warning[2]["why"]).startswith(why)
        site.wake()
        response = await client.answer()
        assert response.status == 200 and b"hello" in response.body
        assert "x-poorwill-bridge" not in response.headers
        row = await site.ledger.row()
        assert (row.replica, row.bridge, row.bridge_nusd) == ("m1-0", "", 0)
        assert site.paid == []


async def test_where_nobody_listens_requests_are_held_and_the_next_one_does_not_try() -> None:
    async with bridged_site(api={"url": "http://127.0.0.1:1/v1"}) as (site, _):
        async with talk(site.port) as first, talk(site.port) as second:
            first.send(post(ASK))
            await site.held(1)
            second.send(post(ASK))
            await site.held(2)
            assert site.activator.bridged == ["anonymous"]
            site.wake()
            assert (await first.answer()).status == (await second.answer()).status == 200


async def test_a_connection_that_went_stale_is_replaced_and_nobody_is_held() -> None:
    async def closes(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.connection == 1 and len(fake.asked) > 1:
            writer.transport.abort()
        else:
            await chat(asked, writer)

    async with bridged_site(closes) as (site, fake):
        assert (await ask(site)).status == 200
        assert (await ask(site)).headers["x-poorwill-bridge"] == NAME
        assert (fake.connections, len(fake.asked)) == (2, 3)
        assert not site.activator.queue


async def test_what_may_not_cross_is_held_and_no_connection_is_opened() -> None:
    async with bridged_site() as (site, fake), talk(site.port) as client:
        site.activator.no_bridge = True
        client.send(post(ASK))
        await site.held()
        assert fake.connections == 0
        site.wake()
        assert (await client.answer()).status == 200


# -- only after a failed wake

FAILED = {"at_once": False}


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["json", "stream"])
@pytest.mark.parametrize("code", ["wake_failed", "wake_timeout", "no_capacity"])
async def test_a_request_whose_wake_failed_goes_over_the_bridge(
    code: str, body: dict[str, object]
) -> None:
    async with bridged_site(api=FAILED) as (site, fake), talk(site.port) as client:
        client.send(post(body))
        early = await client.answer(until=b": poorwill") if "stream" in body else None
        await site.held()
        assert fake.connections == 0, "it waits for the wake first"
        site.activator.fail(TryLater(ErrorCode(code), "no", retry_after_s=1))
        response = await client.answer()
        assert response.clean and b"hello" in response.body
        if early is None:
            assert response.headers["x-poorwill-bridge"] == NAME
        row = await site.ledger.row()
        assert (row.outcome, row.bridge, row.bridge_nusd) == ("ok", NAME, 7 * 101 + 3 * 307)
        assert row.leased_us is not None and row.leased_us > row.arrived_us


async def test_one_whose_answer_was_promised_as_json_gets_it_from_the_hosted_api() -> None:
    async with bridged_site(api=FAILED) as (site, _), talk(site.port) as client:
        client.send(post(ASK))
        await client.answer(until=b" ")
        site.activator.fail(WAKE_FAILED)
        response = await client.answer()
        assert response.clean and response.json()["model"] == "fake-8b"


@pytest.mark.parametrize("script", [_says(500), _hangs_up], ids=["refused", "lost"])
async def test_where_the_hosted_api_fails_as_well_the_client_is_told_of_the_wake(
    script: Any,
) -> None:
    async with bridged_site(script, api=FAILED) as (site, fake), talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        site.activator.fail(WAKE_FAILED)
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (503, "wake_failed")
        assert response.headers["retry-after"] == "9"
        assert len(fake.asked) == 1
        assert (await site.ledger.row()).bridge == ""


async def test_a_wake_that_fails_after_the_hosted_api_did_is_not_tried_there_again() -> None:
    async with bridged_site(_says(500)) as (site, fake), talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        site.activator.fail(WAKE_FAILED)
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (503, "wake_failed")
        assert len(fake.asked) == 1


@pytest.mark.parametrize("code", ["spend_limit", "hold_queue_full", "draining"])
async def test_other_refusals_are_no_failed_wakes(code: str) -> None:
    async with bridged_site(api=FAILED) as (site, fake):
        site.activator.refuse = TryLater(ErrorCode(code), "no", retry_after_s=1)
        response = await ask(site)
        assert response.error()["code"] == code
        assert fake.connections == 0


async def test_a_hold_refused_in_the_back_off_of_a_failed_wake_goes_over_the_bridge() -> None:
    async with bridged_site(api=FAILED) as (site, _):
        site.activator.refuse = WAKE_FAILED
        assert (await ask(site)).headers["x-poorwill-bridge"] == NAME


# -- leaving


async def _gone(site: Site, *, sent: bool) -> None:
    row = await site.ledger.row()
    assert (row.status, row.outcome) == (499, "client_gone")
    assert (row.bridge, row.bridge_untold) == ((NAME, True) if sent else ("", False))
    assert site.activator.crossing == 0


async def test_leaving_while_connecting_leaves_no_connection() -> None:
    async with bridged_site() as (site, fake), talk(site.port) as client:
        original, connecting = site.pool.connect, asyncio.Event()

        async def connect(host: str, port: int, **more: Any) -> object:
            connecting.set()
            upstream = await original(host, port, **more)
            raise AssertionError(f"{upstream!r} outlived its request")

        site.pool.connect = connect  # type: ignore[method-assign, assignment]
        client.send(post(ASK))
        await connecting.wait()
        [connection] = site.server._house.connections
        assert connection.exchange is not None
        connection.exchange.gone()
        await _gone(site, sent=False)
        assert fake.asked == []


async def _until_closed(site: Site, fake: ToyUpstream) -> None:
    """Wait until no connection to the hosted API is open; a toy notices only when it reads or writes."""
    async with asyncio.timeout(5):
        await site.pool.close(fake.host, fake.port)
    assert not site.pool._addresses[fake.host, fake.port].open


@pytest.mark.parametrize("polite", [True, False])
async def test_leaving_before_the_first_byte_stops_the_hosted_api(polite: bool) -> None:
    async with bridged_site(_nothing) as (site, fake):
        async with talk(site.port) as client:
            client.send(post(ASK))
            await fake.until(lambda: bool(fake.asked))
            client.writer.close() if polite else client.leave()
            await _gone(site, sent=True)
            await _until_closed(site, fake)


async def test_leaving_mid_stream_stops_the_hosted_api() -> None:
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


async def test_leaving_while_a_stale_connection_is_replaced_leaves_nothing() -> None:
    stuck = asyncio.Event()

    async def closes(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if len(fake.asked) > 1:
            writer.transport.abort()
        else:
            await chat(asked, writer)

    async with bridged_site(closes) as (site, fake), talk(site.port) as client:
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


async def test_leaving_while_held_after_the_hosted_api_failed_frees_the_place() -> None:
    async with bridged_site(_says(500)) as (site, _), talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        client.leave()
        await site.activator.until(lambda: not site.activator.queue)
        await _gone(site, sent=False)


async def test_a_gateway_that_closes_ends_what_is_on_the_bridge_with_draining() -> None:
    async with bridged_site(_nothing) as (site, fake), talk(site.port) as client:
        client.send(post(ASK))
        await fake.until(lambda: bool(fake.asked))
        site.server._policy.fail_all("poorwill is shutting down")
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (503, "draining")
        await _until_closed(site, fake)


async def test_many_cross_turn_back_and_leave_at_random_and_nothing_is_lost() -> None:
    chance = random.Random(7)

    async def anything(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(chance.random() / 50)
        script = chance.choice([chat, chat, chat, _says(400), _hangs_up, _babbles, _streams_on])
        await script(asked, writer)

    async def visits(site: Site) -> None:
        async with talk(site.port) as client:
            client.send(post(chance.choice([ASK, STREAM])))
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() / 20)
                client.leave()
            else:
                answer = await client.answer()
                assert answer.status == 200 or answer.body == b"", answer

    async with bridged_site(anything) as (site, fake):
        async with asyncio.TaskGroup() as group:
            for _ in range(150):
                group.create_task(visits(site))
                await asyncio.sleep(chance.random() / 500)
                for bridge in site.server._policy.bridges.values():
                    bridge._rests_until_us = 0  # no rest: the next one is to try as well
            site.wake()
        for number in range(150):
            row = await site.ledger.row(number)
            assert bool(row.bridge) != bool(row.replica) or row.outcome == "client_gone"
        await site.settled()
        [bridge] = site.server._policy.bridges.values()
        assert bridge.under_way == 0 and bridge.failures > 10
        paid = sum(row.bridge_nusd for row in site.ledger.rows)  # type: ignore[union-attr]
        assert (
            not site.activator.queue
            and paid == bridge.nusd == sum(nusd for _, _, nusd in site.paid) > 0
        )
        await _until_closed(site, fake)


async def _streams_on(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS_HEAD + event(delta("fake-8b", "hi")))
    await asyncio.sleep(0.02)
    writer.write(event(delta("fake-8b", "ho")) + LAST)


# -- TLS


async def test_a_hosted_api_over_tls_is_reached_where_its_certificate_holds(
    tmp_path: Path,
) -> None:
    path = certificate(tmp_path)
    async with toy_upstream(tls=serving_tls(path)) as fake:
        url = f"https://localhost:{fake.port}/v1"
        api = fake_api(fake, url=url, tls=ssl.create_default_context(cafile=str(path)))
        async with running_site(parked=True, hosted={M1: api}) as site:
            for body in (ASK, STREAM):
                response = await ask(site, body)
                assert response.clean and response.headers["x-poorwill-bridge"] == NAME
            assert fake.connections == 1, "the connection is kept"


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example"])
async def test_nothing_is_sent_to_somebody_whose_certificate_does_not_hold(
    tmp_path: Path, name: str
) -> None:
    path = certificate(tmp_path, name)
    trusts = None if name == "localhost" else str(path)  # not the name, or not the issuer
    async with toy_upstream(tls=serving_tls(path)) as fake:
        url = f"https://localhost:{fake.port}/v1"
        api = fake_api(fake, url=url, tls=ssl.create_default_context(cafile=trusts))
        async with running_site(parked=True, hosted={M1: api}) as site, talk(site.port) as client:
            client.send(post(ASK))
            await site.held()
            assert fake.asked == []
            [warning] = [line for line in site.log.lines if line[0] == "warning"]
            assert "certificate" in str(warning[2]["why"]).lower()
            client.leave()
