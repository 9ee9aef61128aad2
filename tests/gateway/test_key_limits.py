"""Limits of each key: models, requests and tokens a minute, at once, held; priority among the held."""

import asyncio
import json

import httpx2
import openai
import pytest

from poorwill.core.errors import PoorwillError
from poorwill.core.ports.keys import KeyLimits
from poorwill.core.words import SECOND_US, ModelName
from poorwill.policies.requests.key_limits import KeyLimiter

from .site import M1, SkippingClock, ToyKeys, post, running_site
from .talk import talk
from .toy_upstream import EVENTS_HEAD, Asked, answer, chat, delta, event

ASK = {"model": "m1", "messages": [{"role": "user", "content": "hi"}]}
KEYS = {b"sk-ann": "ann", b"sk-bob": "bob"}
ANN, BOB = {"authorization": "Bearer sk-ann"}, {"authorization": "Bearer sk-bob"}
PAD = b" " * 20_000
BY_ANN = ("Authorization: Bearer sk-ann",)


def limits_of(got: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in got.headers.items() if name.startswith("x-ratelimit-")}


async def test_requests_a_minute() -> None:
    async with running_site(keys=KEYS) as site, httpx2.AsyncClient(headers=ANN) as client:
        site.keys.limited["ann"] = KeyLimits(requests_minute=2)
        url = f"{site.url}/chat/completions"
        first, second, third = [await client.post(url, json=ASK) for _ in range(3)]
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert limits_of(first)["x-ratelimit-limit-requests"] == "2"
        assert [limits_of(one)["x-ratelimit-remaining-requests"] for one in (first, second, third)] == [
            "1",
            "0",
            "0",
        ]
        assert limits_of(first)["x-ratelimit-reset-requests"] in ("30s", "29.9s")
        error = third.json()["error"]
        assert (error["code"], error["type"]) == ("rate_limited", "rate_limit_error")
        assert 25 <= int(third.headers["retry-after"]) <= 30
        assert (await client.post(url, json=ASK, headers=BOB)).status_code == 200
        site.clock.skipped_us += 30 * SECOND_US
        assert (await client.post(url, json=ASK)).status_code == 200


async def test_tokens_a_minute() -> None:
    async with running_site(keys=KEYS) as site, httpx2.AsyncClient(headers=ANN) as client:
        site.keys.limited["ann"] = KeyLimits(tokens_minute=15)
        url = f"{site.url}/chat/completions"
        first, second, third = [await client.post(url, json=ASK) for _ in range(3)]
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert limits_of(first)["x-ratelimit-limit-tokens"] == "15"
        assert limits_of(second)["x-ratelimit-remaining-tokens"] == "5"
        assert limits_of(third)["x-ratelimit-remaining-tokens"] == "0"
        assert 20 <= int(third.headers["retry-after"]) <= 24, "5 are owed and 1 is needed, at 15 a minute"


async def test_the_official_client_knows_the_limit() -> None:
    async with running_site(keys=KEYS) as site:
        site.keys.limited["ann"] = KeyLimits(requests_minute=1)
        async with openai.AsyncOpenAI(base_url=site.url, api_key="sk-ann", max_retries=0) as client:
            raw = await client.chat.completions.with_raw_response.create(**ASK)  # type: ignore[call-overload]
            assert raw.headers["x-ratelimit-remaining-requests"] == "0"
            with pytest.raises(openai.RateLimitError) as failed:
                await client.chat.completions.create(**ASK)  # type: ignore[call-overload]
        assert failed.value.response.headers["x-ratelimit-limit-requests"] == "1"


async def test_no_more_than_so_many_at_once() -> None:
    go_on = asyncio.Event()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await chat(asked, writer)

    async with running_site(slow, keys=KEYS) as site, talk(site.port) as one, talk(site.port) as other:
        site.keys.limited["ann"] = KeyLimits(at_once=1)
        one.send(post(ASK, headers=BY_ANN))
        await site.upstream.until(lambda: bool(site.upstream.asked))
        other.send(post(ASK, headers=BY_ANN))
        refused = await other.answer()
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (429, "rate_limited")
        go_on.set()
        assert (await one.answer()).status == 200
        async with talk(site.port) as third:
            third.send(post(ASK, headers=BY_ANN))
            assert (await third.answer()).status == 200


async def test_a_held_request_that_leaves_makes_room() -> None:
    async with running_site(keys=KEYS, parked=True) as site:
        site.keys.limited["ann"] = KeyLimits(held=1)
        async with talk(site.port) as first:
            first.send(post(ASK, headers=BY_ANN))
            await site.held()
            async with talk(site.port) as second:
                second.send(post(ASK, headers=BY_ANN))
                refused = await second.answer()
                assert (refused.status, refused.headers["retry-after"]) == (429, "2")
        await site.activator.until(lambda: site.activator.withdrawn == 1)
        async with talk(site.port) as third:
            third.send(post(ASK, headers=BY_ANN))
            await site.held()
            site.wake()
            assert (await third.answer()).status == 200


async def test_a_key_may_use_its_models_alone() -> None:
    async with running_site(keys=KEYS, models=["m2"]) as site, httpx2.AsyncClient(headers=ANN) as client:
        site.keys.limited["ann"] = KeyLimits(models=("m1",))
        url = f"{site.url}/chat/completions"
        assert (await client.post(url, json=ASK)).status_code == 200
        for name in ("m2", "nonsense"):
            got = await client.post(url, json=ASK | {"model": name})
            assert (got.status_code, got.json()["error"]["code"]) == (403, "forbidden")
            assert f"may not use {name}" in got.json()["error"]["message"]
        listed = (await client.get(f"{site.url}/models")).json()["data"]
        assert [one["id"] for one in listed] == ["m1"]
        assert (await client.get(f"{site.url}/models/m2")).status_code == 404
        assert (await client.get(f"{site.url}/models/m2", headers=BOB)).status_code == 200
        assert (await client.post(url, json=ASK)).status_code == 200
        assert [(await site.ledger.row(number)).model for number in (0, 1)] == [M1, M1]


async def test_the_priority_of_a_key_reaches_the_queue() -> None:
    async with running_site(keys=KEYS, parked=True) as site, talk(site.port) as client:
        site.keys.limited["ann"] = KeyLimits(priority=7)
        client.send(post(ASK, headers=BY_ANN))
        await site.held()
        assert site.activator.queue[0].priority == 7


async def test_what_cannot_be_counted_is_taken_for_its_bytes() -> None:
    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.target == "/v1/audio/speech":
            writer.write(answer(200, PAD, content_type="audio/mpeg"))
        elif asked.json().get("stream"):
            writer.write(EVENTS_HEAD + event(delta("m1", "a")) + b"0\r\n\r\n")
        elif asked.json().get("bad"):
            writer.write(answer(400, b'{"error": {}}'))
        else:
            writer.write(answer(200, b'{"choices": []}' + PAD))

    async with running_site(streams, keys=KEYS) as site, httpx2.AsyncClient(headers=ANN) as client:
        site.keys.limited["ann"] = KeyLimits(tokens_minute=100_000)

        async def taken(ask: dict[str, object], path: str = "chat/completions") -> float:
            """Return how many times PAD was taken, less what came in meanwhile."""
            before = site.server.limiter.tokens_left("ann")
            got = await client.post(f"{site.url}/{path}", content=json.dumps(ask | {"pad": PAD.decode()}))
            assert got.status_code in (200, 400)
            await site.settled()
            return round((before - site.server.limiter.tokens_left("ann")) / len(PAD))

        assert await taken(ASK) == 2
        assert await taken(ASK | {"stream": True}) == 1
        assert await taken(ASK | {"bad": True}) == 0
        assert await taken(ASK, "audio/speech") == 0


def limiter(limits: KeyLimits) -> tuple[KeyLimiter, SkippingClock]:
    clock = SkippingClock.started()
    assert isinstance(clock, SkippingClock)
    return KeyLimiter(keys=ToyKeys(limited={"ann": limits}), clock=clock, at_once=0), clock


def test_limits_that_change_hold_at_once() -> None:
    clock = SkippingClock.started()
    assert isinstance(clock, SkippingClock)
    keys = ToyKeys(limited={"ann": KeyLimits(requests_minute=2)})
    limits = KeyLimiter(keys=keys, clock=clock, at_once=0)
    for _ in range(2):
        limits.admit("ann", M1)
    keys.limited["ann"] = KeyLimits(requests_minute=4)
    for _ in range(2):
        limits.admit("ann", M1)
    with pytest.raises(PoorwillError, match="used its 4 requests a minute"):
        limits.admit("ann", M1)
    del keys.limited["ann"]
    assert limits.admit("ann", M1) is None


def test_nothing_is_saved_up_beyond_a_minute() -> None:
    limits, clock = limiter(KeyLimits(requests_minute=3))
    clock.skipped_us += 3600 * SECOND_US
    for _ in range(3):
        limits.admit("ann", ModelName("any"))
    with pytest.raises(PoorwillError, match="used its 3 requests"):
        limits.admit("ann", ModelName("any"))
