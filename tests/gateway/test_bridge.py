"""The bridge: what crosses to the hosted API, what comes back, and what it costs."""

import asyncio
import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from poorwill.core.errors import ErrorCode, TryLater

from .bridge_site import ASK, HOSTED_KEY, NAME, STREAM, ask, bridged_site, fake_api, nothing
from .site import M1, post, running_site
from .talk import talk
from .toy_upstream import (
    EVENTS_HEAD,
    LAST,
    Asked,
    answer,
    chunk,
    delta,
    event,
)

CLIENT_KEY = "sk-of-the-client"


# -- there and back


async def test_a_parked_model_is_bridged() -> None:
    async with bridged_site() as (site, fake):
        response = await ask(site)
        assert (response.status, response.clean) == (200, True)
        assert response.headers["x-poorwill-bridge"] == NAME
        assert response.json()["model"] == "fake-8b"
        assert fake.asked[0].target == "/openai/v1/chat/completions"
        assert fake.asked[0].json() == ASK | {"model": "fake-8b"}
        assert fake.asked[0].headers["host"] == f"127.0.0.1:{fake.port}"
        assert site.upstream.connections == 0
        assert site.activator.bridged == ["anonymous"] and not site.activator.queue


async def test_the_row_has_provider_and_cost() -> None:
    async with bridged_site(keys={CLIENT_KEY.encode(): "alice"}) as (site, _):
        await ask(site, headers=[f"Authorization: Bearer {CLIENT_KEY}"])
        row = await site.ledger.row()
        assert (row.outcome, row.status, row.replica, row.key) == ("ok", 200, None, "alice")
        assert (row.bridge, row.tokens_in, row.tokens_out) == (NAME, 7, 3)
        assert row.bridge_nusd == 7 * 101 + 3 * 307
        assert row.wake == "wake-1"
        assert row.leased_us is not None and row.first_byte_us is not None
        assert row.arrived_us <= row.leased_us <= row.first_byte_us <= row.ended_us
        assert site.activator.paid == [row.bridge_nusd] and site.activator.reserved[0] > row.bridge_nusd
        assert site.activator.bridged == ["alice"]


@pytest.mark.parametrize(("limit", "tokens"), [(None, 1000), (10, 10), (5000, 5000)])
async def test_the_most_tokens_out_are_reserved(limit: int | None, tokens: int) -> None:
    body = ASK if limit is None else ASK | {"max_tokens": limit}
    async with bridged_site() as (site, fake):
        await ask(site, body)
        [sent] = [len(asked.body) for asked in fake.asked]
        assert site.activator.reserved == [pytest.approx(tokens * 307, abs=2 * sent * 101)]


async def test_crossings_are_bounded_by_key() -> None:
    async with bridged_site(nothing, max_bridged_per_key=2) as (site, fake):
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(ask(site)) for _ in range(3)]
            await fake.until(lambda: len(fake.asked) == 2)
            await site.held()
            site.wake()
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            for task in asking:
                task.cancel()
        assert len(fake.asked) == 2


async def test_a_ready_replica_needs_no_bridge() -> None:
    async with bridged_site(parked=False) as (site, fake):
        response = await ask(site)
        assert response.status == 200 and "x-poorwill-bridge" not in response.headers
        assert fake.connections == 0
        assert (await site.ledger.row()).bridge == ""


async def test_without_a_bridge_it_is_held() -> None:
    async with bridged_site(models=["m2"]) as (site, fake):
        site.activator.ready[M1], site.activator.ready["m2"] = site.upstream, None  # type: ignore[index]
        async with talk(site.port) as client:
            client.send(post(ASK | {"model": "m2"}))
            await site.held()
            client.leave()
        assert fake.connections == 0


async def test_no_client_secret_crosses() -> None:
    async with bridged_site(keys={CLIENT_KEY.encode(): "alice"}) as (site, fake):
        await ask(
            site,
            path="/v1/chat/completions?key=in-the-query",
            headers=[
                f"Authorization: Bearer {CLIENT_KEY}",
                "Cookie: session=1",
                "X-Forwarded-For: 203.0.113.9",
                "OpenAI-Organization: org-of-the-client",
                "Api-Key: another",
                "User-Agent: OpenAI/Python 3.54.0",
                "Idempotency-Key: once",
                "Accept: application/json",
            ],
        )
        [asked] = fake.asked
        assert asked.headers == {
            "host": f"127.0.0.1:{fake.port}",
            "authorization": f"Bearer {HOSTED_KEY}",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "poorwill",
            "content-length": str(len(asked.body)),
            "idempotency-key": "once",
            "accept": "application/json",
        }
        assert "?" not in asked.target


async def test_no_credential_crosses_without_keys() -> None:
    async with bridged_site() as (site, fake):
        secrets = [f"Authorization: Bearer {CLIENT_KEY}", f"x-api-key: {CLIENT_KEY}"]
        await ask(site, headers=secrets)
        assert CLIENT_KEY not in str(fake.asked[0].headers)
        assert fake.asked[0].headers["authorization"] == f"Bearer {HOSTED_KEY}"


async def test_provider_headers_stay_here() -> None:
    async def talks(asked: Asked, writer: asyncio.StreamWriter) -> None:
        headers = (
            "set-cookie: __cf_bm=1",
            "strict-transport-security: max-age=1",
            "openai-organization: org-of-the-operator",
            "x-ratelimit-remaining-tokens: 5",
            "x-poorwill-wake: forged",
            "x-request-id: theirs",
            "connection: x-private",
            "x-private: 1",
            "cache-control: no-store",
        )
        writer.write(answer(200, b"{}", *headers))

    async with bridged_site(talks) as (site, _):
        response = await ask(site)
        assert set(response.headers) == {
            "content-type",
            "cache-control",
            "content-length",
            "x-request-id",
            "x-poorwill-bridge",
        }
        assert response.headers["x-request-id"] != "theirs"


async def test_the_operators_key_is_not_shown() -> None:
    async def refuses(asked: Asked, writer: asyncio.StreamWriter) -> None:
        told = {"error": {"message": f"Incorrect API key provided: {HOSTED_KEY}"}}
        writer.write(answer(401, json.dumps(told).encode()))

    async with bridged_site(refuses) as (site, fake), talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        async with httpx2.AsyncClient() as http:
            told = (await http.get(f"{site.admin}/status")).text
            told += (await http.get(f"{site.admin}/metrics")).text
        told += str(site.log.lines) + repr(fake_api(fake))
        assert 'why="status 401"' in told
        assert HOSTED_KEY not in told
        site.wake()
        response = await client.answer()
        assert response.status == 200 and HOSTED_KEY.encode() not in response.body


# -- who crosses


@pytest.mark.parametrize(
    ("provider", "path", "crosses"),
    [
        ("fakeprovider", "/v1/completions", True),
        ("fakeprovider", "/v1/embeddings", True),
        ("fakeprovider", "/v1/responses", True),
        ("fakeprovider", "/v1/messages", False),
        ("fakeprovider", "/v1/audio/speech", False),
        ("fakeprovider", "/v1/rerank", False),
        ("anthropic", "/v1/messages", True),
        ("anthropic", "/v1/messages/count_tokens", True),
        ("anthropic", "/v1/chat/completions", False),
    ],
)
async def test_only_known_paths_cross(provider: str, path: str, crosses: bool) -> None:
    async with bridged_site(api={"provider": provider}) as (site, fake), talk(site.port) as client:
        client.send(post(ASK, path=path))
        if crosses:
            assert (await client.answer()).headers["x-poorwill-bridge"] == NAME
            [asked] = fake.asked
            header = "x-api-key" if provider == "anthropic" else "authorization"
            assert asked.headers[header].endswith(HOSTED_KEY)
            assert ("authorization" in asked.headers) is (provider != "anthropic")
        else:
            await site.held()
            assert fake.connections == 0
            client.leave()


async def test_prefer_no_bridge() -> None:
    async with bridged_site() as (site, fake), talk(site.port) as client:
        client.send(post(ASK, headers=["Prefer: respond-async, No-Bridge"]))
        await site.held()
        site.activator.fail(TryLater(ErrorCode.WAKE_FAILED, "no", retry_after_s=1))
        assert (await client.answer()).error()["code"] == "wake_failed"
        assert fake.connections == 0


async def test_engines_cannot_claim_a_bridge() -> None:
    async def claims(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"{}", "x-poorwill-bridge: elsewhere/model"))

    async with running_site(claims) as site:
        assert "x-poorwill-bridge" not in (await ask(site)).headers


async def test_embeddings_have_a_price() -> None:
    async with bridged_site() as (site, _):
        await ask(site, {"model": "m1", "input": "hi"}, path="/v1/embeddings")
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out, row.bridge_nusd) == (4, None, 4 * 101)
        assert not row.bridge_untold


# -- streams


async def test_a_stream_is_relayed_in_pieces() -> None:
    go_on = asyncio.Event()

    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + event(delta("fake-8b", "first")))
        await writer.drain()
        await go_on.wait()
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        writer.write(event(delta("fake-8b", "last", usage=usage)) + LAST)

    async with bridged_site(streams) as (site, _), talk(site.port) as client:
        client.send(post(STREAM))
        early = await client.answer(until=b"first")
        assert early.headers["x-poorwill-bridge"] == NAME and b"last" not in early.body
        go_on.set()
        assert (await client.answer()).clean
        assert (await site.ledger.row()).bridge_nusd == 5 * 101 + 2 * 307


async def test_a_stream_without_usage_is_counted() -> None:
    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + event(delta("fake-8b", "hi")) + LAST)

    async with bridged_site(streams) as (site, _):
        assert (await ask(site, STREAM)).clean
        row = await site.ledger.row()
        assert (row.bridge, row.bridge_nusd, row.tokens_in, row.counted) == (NAME, 0, None, True)
        assert row.bridge_untold and row.bridge_unknown_nusd == site.activator.reserved[0]
        assert site.activator.paid == site.activator.reserved, "what is not known counts as reserved"
        async with httpx2.AsyncClient() as http:
            [bridge] = (await http.get(f"{site.admin}/status")).json()["bridges"]
            metrics = (await http.get(f"{site.admin}/metrics")).text
        assert (bridge["requests"], bridge["requests_without_usage"], bridge["nusd"]) == (1, 1, 0)
        assert bridge["what"] == (
            f"bridge to {NAME} while it wakes: 1 request since serve began, $0.00 paid, "
            "1 without usage, whose cost is not known"
        )
        assert f'poorwill_bridged_total{{model="m1",api="{NAME}",usage="no"}} 1' in metrics


async def test_a_slow_client_slows_the_api() -> None:
    stalled = asyncio.Event()
    wrote = 0

    async def floods(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal wrote
        writer.write(EVENTS_HEAD)
        piece = chunk(b"data: " + b"x" * 65_000 + b"\n\n")
        writer.transport.set_write_buffer_limits(high=65_536)
        for _ in range(1000):
            writer.write(piece)
            try:
                async with asyncio.timeout(0.3):
                    await writer.drain()
            except TimeoutError:
                stalled.set()
                await writer.drain()
            wrote += len(piece)
        writer.write(LAST)

    async with bridged_site(floods) as (site, _), talk(site.port) as client:
        client.writer.transport.pause_reading()
        client.send(post(STREAM, headers=["Connection: close"]))
        await stalled.wait()
        assert wrote < 30_000_000, "the gateway took in what its client did not read"
        client.writer.transport.resume_reading()
        assert (await client.closed()).count(b"x") >= 1000 * 65_000


async def test_broken_answers_are_cut_and_unpriced() -> None:
    async def breaks(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + event(delta("fake-8b", "hi")))
        await writer.drain()
        writer.transport.abort()

    async with bridged_site(breaks) as (site, _):
        response = await ask(site, STREAM)
        error = json.loads(response.body.rpartition(b"data: ")[2])["error"]
        assert error["code"] == "upstream_protocol"
        assert error["message"].startswith(f"the hosted API {NAME} broke off its answer")
        row = await site.ledger.row()
        assert (row.outcome, row.bridge, row.bridge_untold) == ("upstream_protocol", NAME, True)
        assert not site.activator.queue, "what was partly answered must not be asked again"


# -- the official clients


async def test_openai_over_the_bridge() -> None:
    async with (
        bridged_site() as (site, _),
        openai.AsyncOpenAI(base_url=site.url, api_key="sk-test", max_retries=0) as client,
    ):
        hello: Any = ASK["messages"]
        whole = await client.chat.completions.create(model="m1", messages=hello)
        assert whole.choices[0].message.content == "hello there"
        stream = await client.chat.completions.create(model="m1", messages=hello, stream=True)
        text = [part.choices[0].delta.content async for part in stream if part.choices]
        assert "".join(filter(None, text)) == "hello there"
        raw = await client.chat.completions.with_raw_response.create(model="m1", messages=hello)
        assert raw.headers["x-poorwill-bridge"] == NAME


async def test_the_anthropic_client_crosses() -> None:
    async with (
        bridged_site(api={"provider": "anthropic"}) as (site, fake),
        anthropic.AsyncAnthropic(
            base_url=site.url.removesuffix("/v1"), api_key=CLIENT_KEY, max_retries=0
        ) as client,
    ):
        hello: Any = ASK["messages"]
        message = await client.messages.create(model="m1", max_tokens=8, messages=hello)
        assert message.content[0].text == "hello there"  # type: ignore[union-attr]
        assert fake.asked[0].headers["x-api-key"] == HOSTED_KEY
        assert fake.asked[0].headers["anthropic-version"]
        row = await site.ledger.row()
        assert row.bridge_nusd == 9 * 101 + 4 * 307
