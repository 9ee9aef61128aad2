"""Ollama's API with its official client, and the calls that Open WebUI makes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import ollama
import pytest

from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.ports.keys import KeyLimits

from .site import Site, post, running_site
from .talk import talk
from .toy_upstream import EVENTS_HEAD, LAST, USAGE, Asked, answer, chunk, delta, event

HELLO = [{"role": "user", "content": "hi"}]
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1'}}
REST = {"index": 0, "function": {"arguments": ', "b": 2}'}}


@asynccontextmanager
async def client(site: Site, **options: object) -> AsyncIterator[ollama.AsyncClient]:
    made = ollama.AsyncClient(host=f"http://127.0.0.1:{site.port}", trust_env=False, **options)
    try:
        yield made
    finally:
        await made.close()


async def thinks(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS_HEAD)
    for part in (
        {"reasoning_content": "hm"},
        {"content": "well"},
        {"tool_calls": [CALL]},
        {"tool_calls": [REST]},
    ):
        document = delta("m1", "")
        document["choices"] = [{"index": 0, "delta": part, "finish_reason": None}]
        writer.write(event(document))
    writer.write(event(delta("m1", "", usage=USAGE) | {"choices": []}) + chunk(b"data: [DONE]\n\n") + LAST)


async def test_a_chat_streams() -> None:
    async with running_site(tells_usage=True) as site, client(site) as asks:
        parts = [part async for part in await asks.chat("m1", HELLO, stream=True)]
        assert "".join(part.message.content or "" for part in parts) == "hello there"
        assert [part.done for part in parts] == [False, False, False, True]
        last = parts[-1]
        assert (last.done_reason, last.prompt_eval_count, last.eval_count) == ("stop", 7, 3)
        assert (last.total_duration or 0) > 0 and last.model == "m1"
        asked = site.upstream.asked[0]
        assert (asked.target, asked.headers["content-type"]) == ("/v1/chat/completions", "application/json")
        assert asked.json()["stream_options"] == {"include_usage": True}
        row = await site.ledger.row()
        assert (row.model, row.tokens_in, row.tokens_out, row.outcome) == ("m1", 7, 3, "ok")


async def test_a_chat_in_one_piece() -> None:
    async with running_site() as site, client(site) as asks:
        got = await asks.chat(
            "m1:latest", HELLO, options={"num_predict": 9, "top_k": 3, "num_ctx": 1}, think=False
        )
        assert (got.message.content, got.done, got.eval_count) == ("hello there", True, 3)
        asked = site.upstream.asked[0].json()
        assert (asked["model"], asked["max_tokens"], asked["top_k"]) == ("m1", 9, 3)
        assert asked["stream"] is False and "num_ctx" not in asked
        assert asked["chat_template_kwargs"] == {"enable_thinking": False}


async def test_thoughts_and_calls_of_tools() -> None:
    async with running_site(thinks) as site, client(site) as asks:
        tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
        parts = [part async for part in await asks.chat("m1", HELLO, tools=[tool], stream=True)]
        assert [part.message.thinking for part in parts] == ["hm", None, None]
        (call,) = parts[-1].message.tool_calls or []
        assert (call.function.name, call.function.arguments) == ("add", {"a": 1, "b": 2})
        again = [*HELLO, parts[-1].message, {"role": "tool", "content": "3", "tool_name": "add"}]
        await anext(await asks.chat("m1", again, stream=True))
        _, said, told = site.upstream.asked[1].json()["messages"]  # type: ignore[misc]
        assert said["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1,"b":2}'}
        assert told["tool_call_id"] == said["tool_calls"][0]["id"]


async def test_images_and_formats() -> None:
    async with running_site() as site, client(site) as asks:
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
        image = {"role": "user", "content": "what?", "images": ["iVBORw0KGgo="]}
        await asks.chat("m1", [image], format=schema)
        asked = site.upstream.asked[0].json()
        assert asked["messages"][0]["content"] == [  # type: ignore[index]
            {"type": "text", "text": "what?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ]
        assert asked["response_format"]["json_schema"]["schema"] == schema  # type: ignore[index]


async def test_a_large_body_is_translated_in_turn() -> None:
    async with running_site(max_body_bytes=2**23) as site, client(site) as asks, asyncio.TaskGroup() as group:
        image = {"role": "user", "content": "what?", "images": ["iVBORw0K" * 250_000]}
        answers = [group.create_task(asks.chat("m1", [image])) for _ in range(3)]
        assert {(await one).message.content for one in answers} == {"hello there"}


async def test_generate() -> None:
    async with running_site() as site, client(site) as asks:
        got = await asks.generate("m1", "hi", system="be kind")
        assert (got.response, got.done, got.done_reason) == ("hello there", True, "stop")
        parts = [part async for part in await asks.generate("m1", "hi", stream=True)]
        assert "".join(part.response for part in parts) == "hello there"
        raw = await asks.generate("m1", "hi", raw=True)
        assert raw.response == "hello"
        first, _, third = site.upstream.asked
        assert [one["role"] for one in first.json()["messages"]] == ["system", "user"]  # type: ignore[attr-defined]
        assert (third.target, third.json()["prompt"]) == ("/v1/completions", "hi")


async def test_no_prompt_loads_the_model() -> None:
    async with running_site(parked=True) as site, client(site) as asks, asyncio.TaskGroup() as group:
        asking = group.create_task(asks.generate("m1", keep_alive="5m"))
        await site.held()
        site.wake()
        got = await asking
        assert (got.response, got.done_reason, got.done) == ("", "load", True)


async def test_embeddings() -> None:
    async with running_site() as site, client(site) as asks:
        got = await asks.embed("m1", ["a"])
        assert (got.embeddings, got.prompt_eval_count) == ([[0.5, 0.25]], 4)
        old = await asks.embeddings("m1", "a")
        assert list(old.embedding) == [0.5, 0.25]


async def test_the_catalogue() -> None:
    async with running_site(models=["m2"], keys={b"sk-ann": "ann"}) as site:
        site.keys.limited["ann"] = KeyLimits(models=("m1",))
        async with client(site, headers={"Authorization": "Bearer sk-ann"}) as asks:
            assert [one.model for one in (await asks.list()).models] == ["m1"]
            assert [one.model for one in (await asks.ps()).models] == ["m1"]
            shown = await asks.show("m1:latest")
            assert "completion" in (shown.capabilities or [])
            assert (shown.modelinfo or {})["unknown.context_length"] == 4096
            with pytest.raises(ollama.ResponseError) as unknown:
                await asks.show("m2")
            assert unknown.value.status_code == 404
        async with client(site) as nobody:
            with pytest.raises(ollama.ResponseError, match="API key is needed"):
                await nobody.list()
        assert not site.upstream.asked


async def test_what_is_not_served_reads_as_ollamas_error() -> None:
    async with running_site() as site, client(site) as asks:
        for asked in (asks.pull("x"), asks.delete("x"), asks.create(model="x", from_="m1")):
            with pytest.raises(ollama.ResponseError, match=r"^nothing here answers .*fleet.toml") as unknown:
                await asked
            assert unknown.value.status_code == 404


async def test_errors_have_ollamas_shape() -> None:
    async def refuses(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(400, b'{"error": {"message": "too long", "type": "x"}}'))

    async with running_site(refuses) as site, client(site) as asks:
        with pytest.raises(ollama.ResponseError, match="too long") as engines:
            await asks.chat("m1", HELLO)
        assert engines.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="no model 'none'") as unknown:
            await asks.chat("none", HELLO, stream=False)
        assert unknown.value.status_code == 404
        async with talk(site.port) as raw:
            raw.send(post({"messages": HELLO}, path="/api/chat"))
            got = await raw.answer()
            assert (got.status, json.loads(got.body)["error"]) == (400, "model is required")


@pytest.mark.parametrize("stream", [True, False])
async def test_heartbeats_are_space_that_its_client_takes(*, stream: bool) -> None:
    async with running_site(parked=True) as site, asyncio.TaskGroup() as group, client(site) as asks:

        async def text() -> str:
            if not stream:
                return (await asks.chat("m1", HELLO)).message.content or ""
            parts = [part async for part in await asks.chat("m1", HELLO, stream=True)]
            return "".join(part.message.content or "" for part in parts)

        asking = group.create_task(text())
        await site.held()
        async with talk(site.port) as raw:
            raw.send(post({"model": "m1", "messages": HELLO, "stream": stream}, path="/api/chat"))
            early = await raw.answer(until=b"   ")
            kind = "application/x-ndjson" if stream else "application/json"
            assert (early.status, early.headers["content-type"]) == (200, kind)
            site.wake()
            assert await asking == "hello there"
            lines = (await raw.answer()).body.splitlines()
            assert all(json.loads(line)["model"] == "m1" for line in lines)


async def test_a_late_failure_is_an_error_for_its_client() -> None:
    async with running_site(parked=True) as site, client(site) as asks:
        for stream in (True, False):

            async def ask(*, stream: bool) -> None:
                got = await asks.chat("m1", HELLO, stream=stream)  # type: ignore[call-overload]
                if stream:
                    [part async for part in got]

            async with asyncio.TaskGroup() as group, talk(site.port) as raw:
                asking = group.create_task(fails(ask(stream=stream)))
                await site.held()
                raw.send(post({"model": "m1", "messages": HELLO, "stream": stream}, path="/api/chat"))
                await raw.answer(until=b"   ")
                site.activator.fail(TryLater(ErrorCode.WAKE_FAILED, "it does not start"))
                error = await asking
                assert ("it does not start" in str(error)) or not stream
                got = await raw.answer()
                assert b"it does not start" in got.body and got.clean is stream


async def fails(work: object) -> Exception:
    try:
        await work  # type: ignore[misc]
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


async def test_a_stream_broken_off_is_an_error() -> None:
    async def breaks(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + event(delta("m1", "a")))
        await writer.drain()
        writer.transport.abort()

    async with running_site(breaks) as site, client(site) as asks:
        with pytest.raises(ollama.ResponseError, match="connection to the engine"):
            [part async for part in await asks.chat("m1", HELLO, stream=True)]
        assert (await site.ledger.row()).outcome == "replica_lost"


async def test_a_client_that_leaves_is_gone() -> None:
    async def waits(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + event(delta("m1", "a")))
        await writer.drain()
        await asyncio.Event().wait()

    async with running_site(waits) as site:
        async with client(site) as asks:
            async for part in await asks.chat("m1", HELLO, stream=True):
                assert part.message.content == "a"
                break
        await site.settled()
        assert (await site.ledger.row()).outcome == "client_gone"


async def test_what_open_webui_calls() -> None:
    """Its routers/ollama.py: the version and the tags of each address, ps, show, chat and embed."""
    async with (
        running_site() as site,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as web,
    ):
        assert (await web.get("/")).text == "Ollama is running"
        assert (await web.head("/")).status_code == 200
        version = (await web.get("/api/version")).json()["version"]
        assert [part.isdigit() for part in version.split(".")] == [True] * 3
        (model,) = (await web.get("/api/tags")).json()["models"]
        assert {"name", "model", "modified_at", "size", "digest", "details"} <= set(model)
        assert (await web.get("/api/ps")).json()["models"][0]["model"] == "m1"
        assert (await web.post("/api/show", json={"name": "m1"})).json()["details"]
        body = json.dumps({"model": "m1", "messages": HELLO, "stream": True, "keep_alive": "5m"})
        async with web.stream("POST", "/api/chat", content=body) as streamed:
            assert streamed.headers["content-type"] == "application/x-ndjson"
            lines = [json.loads(line) async for line in streamed.aiter_lines()]
        assert lines[-1]["done"] and lines[0]["message"] == {"role": "assistant", "content": "hello"}
        assert (await web.post("/api/embed", json={"model": "m1", "input": "x"})).json()["embeddings"]
