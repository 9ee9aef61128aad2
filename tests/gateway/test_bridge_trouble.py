"""The bridge when something fails: what turns back, who leaves, whom a certificate does not prove."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest

from poorwill.compose.bridges import bridged
from poorwill.core.errors import ErrorCode, TryLater

from .bridge_site import (
    ASK,
    NAME,
    STREAM,
    ask,
    babbles,
    bridged_site,
    certificate,
    fake_api,
    hangs_up,
    nothing,
    says,
    serving_tls,
)
from .site import M1, post, running_site
from .talk import talk
from .toy_upstream import (
    Asked,
    chat,
    closes_unread,
    toy_upstream,
)

WAKE_FAILED = TryLater(ErrorCode.WAKE_FAILED, "m1 could not be woken: no memory", retry_after_s=9)


# -- turning back


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("script", "why", "rests_s"),
    [
        (says(400), "status 400", 0),
        (says(401), "status 401", 10),
        (says(404), "status 404", 10),
        (says(429, "retry-after: 7"), "status 429", 7),
        (says(429, "retry-after: 86400"), "status 429", 300),
        (says(503, "retry-after: " + "9" * 5000), "status 503", 10),
        (says(429), "status 429", 10),
        (says(302, "location: /elsewhere"), "status 302", 10),
        (says(500), "status 500", 10),
        (hangs_up, "connection lost", 10),
        (babbles, "its answer is not HTTP", 10),
        (nothing, "silent for too long", 10),
    ],
)
async def test_a_silent_api_means_a_hold(
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
        assert site.activator.paid == [0]


async def test_a_dead_api_rests() -> None:
    async with bridged_site(api={"url": "http://127.0.0.1:1/v1"}) as (site, _):
        async with talk(site.port) as first, talk(site.port) as second:
            first.send(post(ASK))
            await site.held(1)
            second.send(post(ASK))
            await site.held(2)
            assert site.activator.bridged == ["anonymous"]
            site.wake()
            assert (await first.answer()).status == (await second.answer()).status == 200


async def test_stale_api_connections_are_replaced() -> None:
    async def closes(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await chat(asked, writer)
        if asked.connection == 1:
            await closes_unread(writer)

    async with bridged_site(closes) as (site, fake):
        assert (await ask(site)).status == 200
        assert (await ask(site)).headers["x-poorwill-bridge"] == NAME
        assert (fake.connections, len(fake.asked)) == (2, 2)
        assert not site.activator.queue


async def test_what_may_not_cross_is_held() -> None:
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
async def test_a_failed_wake_crosses(code: str, body: dict[str, object]) -> None:
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


async def test_promised_json_from_the_hosted_api() -> None:
    async with bridged_site(api=FAILED) as (site, _), talk(site.port) as client:
        client.send(post(ASK))
        await client.answer(until=b" ")
        site.activator.fail(WAKE_FAILED)
        response = await client.answer()
        assert response.clean and response.json()["model"] == "fake-8b"


@pytest.mark.parametrize("script", [says(500), hangs_up], ids=["refused", "lost"])
async def test_when_both_fail_the_wake_is_named(
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


async def test_the_bridge_is_tried_once() -> None:
    async with bridged_site(says(500)) as (site, fake), talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        site.activator.fail(WAKE_FAILED)
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (503, "wake_failed")
        assert len(fake.asked) == 1


@pytest.mark.parametrize("code", ["spend_limit", "hold_queue_full", "draining"])
async def test_a_refused_hold_is_no_failed_wake(code: str) -> None:
    async with bridged_site(api=FAILED) as (site, fake):
        site.activator.refuse = TryLater(ErrorCode(code), "no", retry_after_s=1)
        response = await ask(site)
        assert response.error()["code"] == code
        assert fake.connections == 0


async def test_a_refused_hold_in_back_off_crosses() -> None:
    async with bridged_site(api=FAILED) as (site, _):
        site.activator.refuse = WAKE_FAILED
        assert (await ask(site)).headers["x-poorwill-bridge"] == NAME


# -- TLS


async def test_a_hosted_api_over_tls(
    tmp_path: Path,
) -> None:
    path = certificate(tmp_path)
    async with toy_upstream(tls=serving_tls(path)) as fake:
        url = f"https://localhost:{fake.port}/v1"
        api = fake_api(fake, url=url, tls=ssl.create_default_context(cafile=str(path)))
        async with running_site(parked=True, hosted=bridged({M1: api})) as site:
            for body in (ASK, STREAM):
                response = await ask(site, body)
                assert response.clean and response.headers["x-poorwill-bridge"] == NAME
            assert fake.connections == 1, "the connection is kept"


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example"])
async def test_a_bad_certificate_gets_nothing(tmp_path: Path, name: str) -> None:
    path = certificate(tmp_path, name)
    trusts = None if name == "localhost" else str(path)  # not the name, or not the issuer
    async with toy_upstream(tls=serving_tls(path)) as fake:
        url = f"https://localhost:{fake.port}/v1"
        api = fake_api(fake, url=url, tls=ssl.create_default_context(cafile=trusts))
        async with running_site(parked=True, hosted=bridged({M1: api})) as site, talk(site.port) as client:
            client.send(post(ASK))
            await site.held()
            assert fake.asked == []
            [warning] = [line for line in site.log.lines if line[0] == "warning"]
            assert "certificate" in str(warning[2]["why"]).lower()
            client.leave()
