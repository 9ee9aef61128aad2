"""The official clients against the gateway, unchanged: warm, through a hold, and when things fail."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import requests

from poorwill.core.errors import EngineFault, ErrorCode, TryLater

from .site import M1, Site, running_site
from .toy_upstream import EVENTS_HEAD, Asked, answer, chunk, takes

HELLO: Any = [{"role": "user", "content": "hi"}]
TIMEOUT = TryLater(ErrorCode.WAKE_TIMEOUT, "the wake budget of 60 s elapsed", retry_after_s=1)
NO_INTERIM = {"interim_agents": ()}
"""Settings under which even the official clients get comments and white space."""


@asynccontextmanager
async def async_client(site: Site, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    options = {"max_retries": 0, "timeout": 10} | options
    async with openai.AsyncOpenAI(base_url=site.url, api_key="sk-test", **options) as client:
        yield client


async def waking(site: Site, *, after_s: float = 0.15, error: Exception | None = None) -> None:
    """Wake, or fail, a while after a request is held: long enough for several heartbeats."""
    await site.held()
    await takes(after_s)
    if error is None:
        site.wake()
    else:
        site.activator.fail(error)  # type: ignore[arg-type]


# -- openai, asynchronous


@pytest.mark.parametrize("settings", [{}, NO_INTERIM], ids=["interim", "committed"])
@pytest.mark.parametrize("parked", [False, True], ids=["warm", "held"])
async def test_openai_chat(settings: dict[str, Any], parked: bool) -> None:
    async with (
        running_site(parked=parked, **settings) as site,
        async_client(site) as client,
        asyncio.TaskGroup() as group,
    ):
        if parked:
            group.create_task(waking(site))
        completion = await client.chat.completions.create(model="m1", messages=HELLO)
        assert completion.choices[0].message.content == "hello there"
        assert completion.usage is not None and completion.usage.completion_tokens == 3
        assert completion._request_id == (await site.ledger.row()).request


@pytest.mark.parametrize("settings", [{}, NO_INTERIM], ids=["interim", "committed"])
@pytest.mark.parametrize("parked", [False, True], ids=["warm", "held"])
async def test_openai_chat_streamed(settings: dict[str, Any], parked: bool) -> None:
    async with (
        running_site(parked=parked, **settings) as site,
        async_client(site) as client,
        asyncio.TaskGroup() as group,
    ):
        if parked:
            group.create_task(waking(site))
        stream = await client.chat.completions.create(
            model="m1", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "hello there"
        assert chunks[-1].usage is not None
        assert site.upstream.asked[0].json()["stream_options"] == {"include_usage": True}


async def test_openai_other_endpoints(site: Site) -> None:
    async with async_client(site) as client:
        text = await client.completions.create(model="m1", prompt="hi")
        assert text.choices[0].text == "hello"
        embedding = await client.embeddings.create(model="m1", input="hi", encoding_format="float")
        assert embedding.data[0].embedding == [0.5, 0.25]
        models = [model async for model in client.models.list()]
        assert [model.id for model in models] == ["m1"]
        assert (await client.models.retrieve("m1")).owned_by == "poorwill"


async def test_openai_unknown_model_is_not_found(site: Site) -> None:
    async with async_client(site) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="m2", messages=HELLO)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("m2")


async def test_openai_wrong_key() -> None:
    async with running_site(keys={b"sk-good": "a"}) as site, async_client(site) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="m1", messages=HELLO)
        assert caught.value.code == "unauthenticated"
        good = client.with_options(api_key="sk-good")
        assert (await good.chat.completions.create(model="m1", messages=HELLO)).choices


async def test_openai_engine_error_type() -> None:
    async def refuses(asked: Asked, writer: asyncio.StreamWriter) -> None:
        error = {"message": "too long", "type": "invalid_request_error", "code": "context_length"}
        writer.write(answer(400, json.dumps({"error": error}).encode()))

    async with running_site(refuses) as site, async_client(site) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="m1", messages=HELLO)
        assert caught.value.code == "context_length"


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_failed_wake_after_interims(stream: bool) -> None:
    async with (
        running_site(parked=True) as site,
        async_client(site) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(waking(site, error=TIMEOUT))
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="m1", messages=HELLO, stream=stream)
        assert (caught.value.status_code, caught.value.code) == (504, "wake_timeout")
        assert caught.value.response.headers["retry-after"] == "1"


async def test_openai_failed_wake_after_comments() -> None:
    async with (
        running_site(parked=True, **NO_INTERIM) as site,
        async_client(site) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(waking(site, error=TIMEOUT))
        stream = await client.chat.completions.create(model="m1", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            _ = [chunk async for chunk in stream]
        assert caught.value.code == "wake_timeout"


async def test_openai_failed_wake_after_spaces() -> None:
    async with (
        running_site(parked=True, **NO_INTERIM) as site,
        async_client(site) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(waking(site, error=TIMEOUT))
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="m1", messages=HELLO)


async def test_openai_heartbeats_reset_timeouts() -> None:
    async with (
        running_site(parked=True) as site,
        async_client(site, timeout=0.6) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(waking(site, after_s=1.5))
        completion = await client.chat.completions.create(model="m1", messages=HELLO)
        assert completion.choices


async def test_openai_timeout_frees_its_place() -> None:
    async with (
        running_site(parked=True, heartbeat_us=60_000_000, commit_after_us=60_000_000) as site,
        async_client(site, timeout=0.2) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="m1", messages=HELLO)
        await site.activator.until(lambda: site.activator.withdrawn == 1)
        assert (await site.ledger.row()).outcome == "client_gone"


async def test_openai_retries_after_a_429() -> None:
    async with running_site(parked=True) as site, async_client(site, max_retries=2) as client:
        site.activator.refuse = TryLater(ErrorCode.HOLD_QUEUE_FULL, "full", retry_after_s=0)

        def warm() -> None:
            site.activator.refuse = None
            site.wake()

        asyncio.get_running_loop().call_later(0.1, warm)
        completion = await client.chat.completions.create(model="m1", messages=HELLO)
        assert completion.choices
        outcomes = [(await site.ledger.row(n)).outcome for n in range(2)]
        assert outcomes == ["hold_queue_full", "ok"]


async def test_openai_rate_limit_is_typed() -> None:
    async with running_site(parked=True) as site, async_client(site) as client:
        site.activator.hold_limit = 0
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m1", messages=HELLO)
        assert caught.value.code == "hold_queue_full"


async def _endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS_HEAD)
    for _ in range(100_000):
        writer.write(chunk(b'data: {"id":"1","choices":[],"object":"x","created":1,"model":"m"}\n\n'))
        await writer.drain()
        await takes(0)


async def test_openai_leaving_a_stream() -> None:
    async with running_site(_endless) as site, async_client(site) as client:
        stream = await client.chat.completions.create(model="m1", messages=HELLO, stream=True)
        async for _ in stream:
            break
        await stream.close()
        assert (await site.ledger.row()).outcome == "client_gone"
        await site.settled()
        await site.upstream.closed.wait()


async def test_openai_cancelled_while_held() -> None:
    async with running_site(parked=True) as site, async_client(site) as client:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(
                client.chat.completions.create(model="m1", messages=HELLO)  # type: ignore[arg-type]
            )
            await site.held()
            asking.cancel()
        await site.activator.until(lambda: not site.activator.queue)


# -- openai, synchronous; requests; anthropic


async def in_thread(site: Site, work: Callable[[], Any], *, wake: bool = False) -> Any:
    async with asyncio.TaskGroup() as group:
        if wake:
            group.create_task(waking(site))
        return await asyncio.to_thread(work)


@pytest.mark.parametrize("parked", [False, True], ids=["warm", "held"])
async def test_synchronous_openai(parked: bool) -> None:
    async with running_site(parked=parked) as site:

        def work() -> tuple[str | None, int]:
            with openai.OpenAI(base_url=site.url, api_key="sk", max_retries=0) as client:
                first = client.chat.completions.create(model="m1", messages=HELLO)
                stream = client.chat.completions.create(model="m1", messages=HELLO, stream=True)
                return first.choices[0].message.content, len(list(stream))

        assert await in_thread(site, work, wake=parked) == ("hello there", 4)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("parked", [False, True], ids=["warm", "held"])
async def test_requests_gets_no_interims(parked: bool, stream: bool) -> None:
    async with running_site(parked=parked) as site:

        def work() -> tuple[int, bytes]:
            ask = {"model": "m1", "messages": HELLO, "stream": stream}
            with requests.Session() as session:
                session.trust_env = False
                response = session.post(f"{site.url}/chat/completions", json=ask, timeout=10)
                return response.status_code, response.content

        status, body = await in_thread(site, work, wake=parked)
        assert status == 200
        if stream:
            assert body.endswith(b"data: [DONE]\n\n")
        else:
            assert json.loads(body)["choices"]


async def test_requests_sees_a_cut_answer() -> None:
    async with running_site(parked=True) as site:

        def work() -> None:
            ask = {"model": "m1", "messages": HELLO}
            with requests.Session() as session:
                session.trust_env = False
                session.post(f"{site.url}/chat/completions", json=ask, timeout=10)

        async with asyncio.TaskGroup() as group:
            group.create_task(waking(site, error=TIMEOUT))
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                await asyncio.to_thread(work)


def claude(site: Site) -> anthropic.AsyncAnthropic:
    root = site.url.removesuffix("/v1")
    return anthropic.AsyncAnthropic(base_url=root, api_key="sk", max_retries=0, timeout=10)


@pytest.mark.parametrize("settings", [{}, NO_INTERIM], ids=["interim", "committed"])
@pytest.mark.parametrize("parked", [False, True], ids=["warm", "held"])
async def test_anthropic_messages(settings: dict[str, Any], parked: bool) -> None:
    async with (
        running_site(parked=parked, **settings) as site,
        claude(site) as client,
        asyncio.TaskGroup() as group,
    ):
        if parked:
            group.create_task(waking(site))
        message = await client.messages.create(model="m1", max_tokens=9, messages=HELLO)
        assert message.content[0].text == "hello there"  # type: ignore[union-attr]
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out) == (9, 4)


@pytest.mark.parametrize("parked", [False, True], ids=["warm", "held"])
async def test_anthropic_messages_streamed(parked: bool) -> None:
    async with (
        running_site(parked=parked, **NO_INTERIM) as site,
        claude(site) as client,
        asyncio.TaskGroup() as group,
    ):
        if parked:
            group.create_task(waking(site))
        async with client.messages.stream(model="m1", max_tokens=9, messages=HELLO) as stream:
            text = [piece async for piece in stream.text_stream]
        assert "".join(text) == "hello there"
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out) == (9, 4)


async def test_anthropic_errors_are_typed() -> None:
    async with running_site(parked=True) as site, claude(site) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(model="m2", max_tokens=9, messages=HELLO)
        assert caught.value.request_id is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(waking(site, error=EngineFault(ErrorCode.WAKE_FAILED, "the engine exited")))
            with pytest.raises(anthropic.APIStatusError) as failed:
                await client.messages.create(model="m1", max_tokens=9, messages=HELLO)
        assert failed.value.status_code == 503
        assert "the engine exited" in str(failed.value)


async def test_anthropic_failed_wake() -> None:
    async with (
        running_site(parked=True, **NO_INTERIM) as site,
        claude(site) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(waking(site, error=TIMEOUT))
        with pytest.raises(anthropic.APIStatusError) as caught:
            async with client.messages.stream(model="m1", max_tokens=9, messages=HELLO) as stream:
                _ = [piece async for piece in stream.text_stream]
        assert "wake budget" in str(caught.value)


async def test_anthropic_models(site: Site) -> None:
    async with claude(site) as client:
        models = [model async for model in client.models.list()]
        assert [(model.id, model.display_name) for model in models] == [("m1", M1)]


# -- Node

NODE = """
import OpenAI from 'openai';
const client = new OpenAI({baseURL: process.argv[2], apiKey: 'sk', maxRetries: 0});
const ask = {model: 'm1', messages: [{role: 'user', content: 'hi'}]};
const out = {};
const first = await client.chat.completions.create(ask);
out.first = first.choices[0].message.content;
out.text = '';
for await (const chunk of await client.chat.completions.create({...ask, stream: true}))
  out.text += chunk.choices[0]?.delta?.content ?? '';
out.models = (await client.models.list()).data.map((model) => model.id);
try { await client.chat.completions.create({...ask, model: 'm2'}); }
catch (error) { out.missing = [error.status, error.code]; }
console.log(JSON.stringify(out));
"""


@pytest.fixture(scope="session")
def node_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the Node client; skipped where Node or the registry cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    try:
        subprocess.run(
            [npm, "install", "openai@6", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=120,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install the openai package: {error}")
    (folder / "ask.mjs").write_text(NODE)
    return folder


@pytest.mark.parametrize("parked", [False, True], ids=["warm", "held"])
async def test_the_node_client(node_project: Path, parked: bool) -> None:
    async with running_site(parked=parked) as site:

        def work() -> dict[str, Any]:
            done = subprocess.run(
                ["node", "ask.mjs", site.url],
                cwd=node_project,
                check=True,
                capture_output=True,
                timeout=60,
            )
            value = json.loads(done.stdout)
            assert isinstance(value, dict)
            return value

        assert await in_thread(site, work, wake=parked) == {
            "first": "hello there",
            "text": "hello there",
            "models": ["m1"],
            "missing": [404, "model_not_found"],
        }
