"""Tokens of each request in the ledger: reported, asked for on the client's behalf, or counted."""

import asyncio
import json

from poorwill.core.tokens import TokenParts

from .bridge_site import NAME, bridged_site
from .site import Site, post, running_site
from .talk import talk
from .toy_upstream import EVENTS_HEAD, LAST, USAGE, Asked, answer, chunk, completion, delta, event

STREAM = {"model": "m1", "messages": [{"role": "user", "content": "hi"}], "stream": True}
KEEP = post(STREAM)


async def tells_if_asked(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer like vLLM: usage comes in a last chunk, if it was asked for."""
    writer.write(EVENTS_HEAD)
    for text in ("a", "b"):
        writer.write(event(delta("m1", text)))
    options = asked.json().get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        writer.write(event(delta("m1", "", usage=USAGE) | {"choices": []}))
    writer.write(chunk(b"data: [DONE]\n\n") + LAST)


def shown(*texts: str) -> bytes:
    events = [b"data: " + json.dumps(delta("m1", text)).encode() + b"\n\n" for text in texts]
    return b"".join(events) + b"data: [DONE]\n\n"


async def body_of(site: Site, request: bytes = KEEP) -> bytes:
    async with talk(site.port) as client:
        client.send(request)
        got = await client.answer()
    assert got.clean
    return got.body


async def test_usage_is_asked_for_and_not_shown() -> None:
    async with running_site(tells_if_asked, tells_usage=True) as site:
        assert await body_of(site) == shown("a", "b")
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out, row.counted) == (7, 3, False)
        (asked,) = site.upstream.asked
        assert asked.body == b'{"stream_options":{"include_usage":true},' + json.dumps(STREAM).encode()[1:]


async def test_a_held_stream_hides_it_as_well() -> None:
    async with running_site(tells_if_asked, tells_usage=True, parked=True) as site, talk(site.port) as client:
        client.send(KEEP)
        await client.answer(until=b": poorwill")
        site.wake()
        got = await client.answer()
        assert got.clean and b"usage" not in got.body and got.body.endswith(shown("a", "b"))
        assert (await site.ledger.row()).tokens_out == 3


async def test_a_stream_of_known_length_loses_it() -> None:
    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        body = shown("a").replace(b"data: [", b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\ndata: [')
        writer.write(answer(200, body, content_type="text/event-stream"))

    async with running_site(streams, tells_usage=True) as site:
        assert await body_of(site) == shown("a")


async def test_who_asks_for_usage_gets_it() -> None:
    async with running_site(tells_if_asked, tells_usage=True) as site:
        asks = STREAM | {"stream_options": {"include_usage": True}}
        assert b'"usage"' in await body_of(site, post(asks))
        assert site.upstream.asked[0].json() == asks


async def test_who_wants_no_usage_is_not_overruled() -> None:
    async with running_site(tells_if_asked, tells_usage=True) as site:
        asks = STREAM | {"stream_options": {"include_usage": False}}
        assert await body_of(site, post(asks)) == shown("a", "b")
        assert site.upstream.asked[0].json() == asks
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out, row.counted) == (None, 2, True)


async def test_an_engine_that_tells_none_is_counted() -> None:
    async with running_site(tells_if_asked) as site:
        assert await body_of(site) == shown("a", "b")
        assert site.upstream.asked[0].json() == STREAM
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out, row.counted) == (None, 2, True)


async def test_what_is_no_stream_stays_as_it_is() -> None:
    async def answers(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, json.dumps(completion("m1")).encode()))

    async with running_site(answers, tells_usage=True) as site:
        assert json.loads(await body_of(site, post(STREAM | {"stream": False}))) == completion("m1")
        assert "stream_options" not in site.upstream.asked[0].json()


async def test_a_client_that_left_is_counted() -> None:
    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD)
        for _ in range(5):
            writer.write(event(delta("m1", "x")))
        await writer.drain()
        await asyncio.Event().wait()

    async with running_site(streams, tells_usage=True) as site:
        async with talk(site.port) as client:
            client.send(KEEP)
            await client.answer(until=shown(*"xxxxx").removesuffix(b"data: [DONE]\n\n"))
        row = await site.ledger.row()
        assert (row.outcome, row.tokens_out, row.counted) == ("client_gone", 5, True)


async def test_a_hosted_api_is_asked_for_usage() -> None:
    async with bridged_site(tells_if_asked, api={"provider": "openai"}) as (site, fake):
        assert await body_of(site) == shown("a", "b")
        row = await site.ledger.row()
        assert (row.bridge, row.bridge_nusd, row.bridge_untold) == (NAME, 7 * 101 + 3 * 307, False)
        assert fake.asked[0].json()["stream_options"] == {"include_usage": True}


async def test_a_hosted_api_may_not_know_the_wish() -> None:
    async with bridged_site(tells_if_asked, api={"provider": "mistral"}) as (site, fake):
        assert await body_of(site) == shown("a", "b")
        assert "stream_options" not in fake.asked[0].json()
        row = await site.ledger.row()
        assert row.counted and row.bridge_untold
        assert row.bridge_unknown_nusd == site.activator.reserved[0]


async def test_cached_tokens_have_their_own_price() -> None:
    async def answers(asked: Asked, writer: asyncio.StreamWriter) -> None:
        usage = {"input_tokens": 12, "cache_read_input_tokens": 1000, "output_tokens": 50}
        writer.write(answer(200, json.dumps({"type": "message", "usage": usage}).encode()))

    async with bridged_site(answers, api={"provider": "anthropic"}) as (site, _):
        request = post({"model": "m1", "max_tokens": 50}, path="/v1/messages")
        await body_of(site, request)
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out, row.parts) == (1012, 50, TokenParts(cache_read=1000))
        assert (row.bridge_nusd, row.bridge_unknown_nusd) == (12 * 101 + 1000 * 11 + 50 * 307, 0)


async def test_a_class_without_a_price_is_not_free() -> None:
    async def answers(asked: Asked, writer: asyncio.StreamWriter) -> None:
        usage = {"input_tokens": 12, "cache_creation_input_tokens": 1000, "output_tokens": 50}
        writer.write(answer(200, json.dumps({"type": "message", "usage": usage}).encode()))

    async with bridged_site(answers, api={"provider": "anthropic"}) as (site, _):
        await body_of(site, post({"model": "m1", "max_tokens": 50}, path="/v1/messages"))
        row = await site.ledger.row()
        assert (row.bridge_nusd, row.bridge_unknown_nusd) == (12 * 101 + 50 * 307, 1000 * 2 * 101)
        assert row.bridge_untold
        assert site.activator.paid == [row.bridge_nusd + row.bridge_unknown_nusd]
