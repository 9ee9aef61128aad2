"""The wake at the door: what a held client is sent, and how each kind of promise is kept or broken."""

import asyncio
import json
from collections.abc import Callable

import pytest

from poorwill.core.errors import EngineFault, ErrorCode, TryLater

from .site import Site, post, running_site
from .talk import talk
from .toy_upstream import EVENTS_HEAD, LAST, Asked, answer, chunk

ASK = {"model": "m1", "messages": []}
STREAM = ASK | {"stream": True}
OPENAI = "User-Agent: OpenAI/Python 3.54.0"
TIMEOUT = TryLater(ErrorCode.WAKE_TIMEOUT, "the wake budget of 60 s elapsed", retry_after_s=30)


async def _silence_then(site: Site, request: bytes, act: Callable[[], None]) -> bytes:
    """Send, see that nothing comes for several heartbeats, act, and return what then comes."""
    async with talk(site.port) as client:
        client.send(request)
        await site.held()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.reader.read(1)
        act()
        return await client.closed()


async def test_known_clients_get_interims() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[OPENAI]))
        await client.first_interim()
        await client.first_interim()
        site.wake()
        response = await client.answer()
        assert response.status == 200 and response.clean
        wake, _, held = response.headers["x-poorwill-wake"].partition("; held=")
        assert wake == "wake-1" and float(held) >= 0.035
        row = await site.ledger.row()
        assert row.wake == "wake-1"
        assert row.leased_us is not None and row.leased_us - row.arrived_us >= 35_000


async def test_leaving_between_heartbeats_harms_nobody() -> None:
    """A heartbeat can be due after the socket closed and before we hear of it: uvloop refuses the write."""
    async with running_site(parked=True, heartbeat_us=200, commit_after_us=0) as site:
        for _ in range(60):
            async with talk(site.port) as client:
                client.send(post(STREAM))
                await client.reader.readuntil(b"\r\n\r\n")
                client.leave()
            await site.activator.until(lambda: not site.activator.queue)


async def test_interims_have_phase_and_time() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[OPENAI]))
        await site.held()
        asyncio.get_running_loop().call_later(0.05, site.wake)
        response = await client.answer()
        status, headers = response.interims[0]
        assert status == 102
        assert headers["x-poorwill-phase"] == "weights"
        assert headers["x-poorwill-left"] == "90"
        assert headers["x-poorwill-ready-in"] == "2"
        assert headers["x-poorwill-wake"] == "wake-1"


async def test_a_504_after_interims() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[OPENAI]))
        await client.first_interim()
        site.activator.fail(TIMEOUT)
        response = await client.answer()
        assert response.status == 504
        assert response.headers["retry-after"] == "30"
        assert response.error()["code"] == "wake_timeout"
        assert response.error()["source"] == "poorwill"
        assert (await site.ledger.row()).outcome == "wake_timeout"


AGENTS = {
    "User-Agent: OpenAI/v1 PythonBindings/0.28.1": False,
    "User-Agent: OpenAI/Go 2.7.1": False,
    "User-Agent: OpenAI/Java 4.0.0\r\nX-Stainless-Lang: java": False,
    "User-Agent: python-requests/2.32": False,
    "User-Agent: pydantic-ai/1.0\r\nX-Stainless-Lang: python": True,
    "User-Agent: langchain\r\nX-Stainless-Lang: js": True,
    "User-Agent: OpenAI/Python 2.0\r\nVia: 1.1 caddy": False,
    "User-Agent: OpenAI/JS 6.0\r\nX-Forwarded-For: 10.1.1.1": False,
}


@pytest.mark.parametrize("headers", AGENTS)
async def test_only_tried_clients_get_interims(headers: str) -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[headers]))
        await site.held()
        asyncio.get_running_loop().call_later(0.1, site.wake)
        response = await client.answer()
        assert response.status == 200 and bool(response.interims) is AGENTS[headers]


@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]], ids=["plain", "after a 100"])
@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["json", "stream"])
async def test_no_sixth_interim(ask: dict[str, object], expect: list[str]) -> None:
    async with (
        running_site(parked=True, heartbeat_us=500, commit_after_us=0) as site,
        talk(site.port) as client,
    ):
        client.send(post(ask, headers=[OPENAI, *expect]))
        await site.held()
        asyncio.get_running_loop().call_later(0.1, site.wake)
        response = await client.answer()
        assert response.clean and response.body.startswith(b": poorwill" if ask is STREAM else b" ")
        assert [status for status, _ in response.interims] == [102] * (5 - len(expect))


async def test_heartbeats_become_seldom() -> None:
    async with running_site(parked=True, heartbeat_us=100) as site, talk(site.port) as client:
        client.send(post(STREAM))
        await site.held()
        asyncio.get_running_loop().call_later(0.3, site.wake)
        response = await client.answer()
        assert response.clean and response.body.count(b": poorwill") == 100


@pytest.mark.parametrize("header", ["Prefer: interim", "prefer: respond-async, Interim"])
async def test_prefer_asks_for_interims(header: str) -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[header]))
        await client.first_interim()
        site.wake()
        assert (await client.answer()).status == 200


async def test_http_1_0_gets_no_interims() -> None:
    async with running_site(parked=True) as site:
        request = post(ASK, headers=[OPENAI, "Prefer: interim"]).replace(b"HTTP/1.1", b"HTTP/1.0")
        assert (await _silence_then(site, request, site.wake)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_comments_hold_a_stream_open() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(STREAM))
        response = await client.answer(until=b"fails in 90 s\n")
        assert response.body.endswith(b"weights, waited 0 s, ready in about 2 s, fails in 90 s\n")
        assert b"\n\n" not in response.body, "some readers take an empty line for an event"
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        site.wake()
        rest = await client.answer()
        assert rest.clean
        assert rest.body.endswith(b"data: [DONE]\n\n")
        assert (await site.ledger.row()).tokens_out == 3


async def test_a_failed_stream_has_one_error() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(STREAM))
        await client.answer(until=b": poorwill")
        site.activator.fail(TIMEOUT)
        rest = await client.answer()
        events = [line for line in rest.body.split(b"\n") if line.startswith(b"data: ")]
        assert len(events) == 1
        assert json.loads(events[0][6:])["error"]["code"] == "wake_timeout"
        assert await client.closed() == b""
        row = await site.ledger.row()
        assert (row.status, row.outcome) == (200, "wake_timeout")


async def test_anthropic_error_events_are_named() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(STREAM, path="/v1/messages"))
        await client.answer(until=b": poorwill")
        site.activator.fail(TIMEOUT)
        rest = await client.answer()
        event, _, data = rest.body.strip().rpartition(b"\n")
        assert event.endswith(b"event: error")
        document = json.loads(data.removeprefix(b"data: "))
        assert document["type"] == "error"
        assert document["error"]["type"] == "timeout_error"


async def test_late_json_is_preceded_by_spaces() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK))
        response = await client.answer(until=b"   ")
        assert response.status == 200
        assert response.headers["transfer-encoding"] == "chunked"
        site.wake()
        rest = await client.answer()
        assert rest.clean
        assert json.loads(response.body + rest.body)["usage"]["total_tokens"] == 10


@pytest.mark.parametrize("headers", [[], ["X-Forwarded-For: 10.1.1.1"]])
async def test_json_failing_after_spaces_is_cut(headers: list[str]) -> None:
    """Readers of streams take a whole object for the answer; Caddy ends cleanly what is not whole."""
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK, headers=headers))
        await client.answer(until=b" ")
        site.activator.fail(TIMEOUT)
        rest = await client.answer()
        assert not rest.clean
        assert b'"wake_timeout"' in rest.body
        with pytest.raises(ValueError, match="delimiter"):
            json.JSONDecoder().raw_decode(rest.body.decode().strip())


PATIENT = (
    *("Go-http-client/1.1", "Java-http-client/17.0.13", "node", "Bun/1.4.5", "Python/3.11 aiohttp/3.14.5"),
    *("ollama-python/0.6.3 (x86_64 linux) Python/3.11.7", "OpenAI/Go 2.7.1"),
)


@pytest.mark.parametrize("agent", PATIENT)
async def test_patient_clients_see_the_real_status(agent: str) -> None:
    async with (
        running_site(parked=True, patience_us=60_000_000) as site,
        talk(site.port) as client,
        talk(site.port) as other,
    ):
        client.send(post(ASK, headers=[f"User-Agent: {agent}"]))
        other.send(post(ASK, headers=[f"User-Agent: {agent}", "Via: 1.1 edge"]))
        assert (await other.answer(until=b"   ")).status == 200
        site.activator.fail(TIMEOUT)
        answer = await client.answer()
        assert (answer.status, answer.error()["code"]) == (504, "wake_timeout")


async def test_late_failures_are_quoted() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK))
        await client.answer(until=b" ")
        site.activator.fail(TIMEOUT)
        assert (await client.closed()).endswith(b"\r\npoorwill: the wake budget of 60 s elapsed\r\n")


@pytest.mark.parametrize(
    "agent", ["Python/3.11 aiohttp/3.14.5", "litellm/1.110", "x\r\nX-Stainless-Lang: python"]
)
async def test_aiohttp_gets_a_size_it_knows(agent: str) -> None:
    """After any other it waits for ever."""
    impatient = {"interim_agents": (), "patient_agents": ()}
    async with running_site(parked=True, **impatient) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[f"User-Agent: {agent}"]))
        await client.answer(until=b" ")
        site.activator.fail(TryLater(ErrorCode.WAKE_TIMEOUT, 'no "m1" in\\time', retry_after_s=30))
        assert (await client.closed()).endswith(b"\r\n" + b"0" * 21 + b"fff;poorwill=\"no 'm1' in/time\"\r\n")


async def test_retry_after_is_bounded() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        site.activator.refuse = TryLater(ErrorCode.WAKE_FAILED, "it backs off", retry_after_s=900)
        client.send(post(ASK))
        assert (await client.answer()).headers["retry-after"] == "120"


async def test_json_keeps_its_status_when_early() -> None:
    async with running_site(parked=True, commit_after_us=30_000_000) as site:
        request = post(ASK, headers=["Connection: close"])
        answer = await _silence_then(site, request, lambda: site.activator.fail(TIMEOUT))
        assert answer.startswith(b"HTTP/1.1 504 ")


async def test_http_1_0_json_is_not_committed() -> None:
    async with running_site(parked=True) as site:
        request = post(ASK).replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = await _silence_then(site, request, lambda: site.activator.fail(TIMEOUT))
        assert answer.startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize("ask", [ASK, STREAM])
async def test_unknown_answers_get_no_filler(ask: dict[str, object]) -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ask, path="/v1/audio/speech"))
        await site.held()
        asyncio.get_running_loop().call_later(0.1, site.wake)
        response = await client.answer()
        assert response.body.startswith(b"data: {" if ask is STREAM else b"{")


async def _refuses(asked: Asked, writer: asyncio.StreamWriter) -> None:
    error = {"error": {"message": "context too long", "type": "bad", "code": "context_length"}}
    writer.write(answer(400, json.dumps(error).encode()))


async def test_an_error_after_a_promised_stream() -> None:
    async with running_site(_refuses, parked=True) as site, talk(site.port) as client:
        client.send(post(STREAM))
        await client.answer(until=b": poorwill")
        site.wake()
        rest = await client.answer()
        data = rest.body.rpartition(b"data: ")[2]
        error = json.loads(data)["error"]
        assert error["code"] == "context_length" and error["message"] == "context too long"
        assert error["source"] == "engine" and error["status"] == 400
        assert (await site.ledger.row()).outcome == "invalid_request"


async def test_an_error_after_promised_json() -> None:
    async with running_site(_refuses, parked=True) as site, talk(site.port) as client:
        client.send(post(ASK))
        await client.answer(until=b" ")
        site.wake()
        rest = await client.answer()
        assert not rest.clean
        assert b'"code":"context_length"' in rest.body


async def test_engine_errors_pass_unchanged() -> None:
    async with running_site(_refuses) as site, talk(site.port) as client:
        client.send(post(STREAM))
        response = await client.answer()
        assert response.status == 400
        assert response.error() == {
            "message": "context too long",
            "type": "bad",
            "code": "context_length",
        }


async def _plain(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(200, b"busy", content_type="text/plain"))


@pytest.mark.parametrize("ask", [ASK, STREAM])
async def test_a_broken_promise_is_a_failure(ask: dict[str, object]) -> None:
    async with running_site(_plain, parked=True) as site, talk(site.port) as client:
        client.send(post(ask))
        first = await client.answer(until=b" ")
        assert first.status == 200
        site.wake()
        rest = await client.answer()
        assert b"the engine answered 200: busy" in rest.body
        assert rest.clean is (ask is STREAM)
        assert (await site.ledger.row()).outcome == "upstream_protocol"


async def test_a_full_queue_is_429() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        site.activator.hold_limit = 0
        client.send(post(STREAM))
        response = await client.answer()
        assert response.status == 429
        assert response.headers["retry-after"] == "7"
        assert response.error()["code"] == "hold_queue_full"


async def test_held_requests_are_served_in_order() -> None:
    order: list[object] = []

    async def note(asked: Asked, writer: asyncio.StreamWriter) -> None:
        order.append(asked.json()["n"])
        writer.write(answer(200, b"{}"))

    async with running_site(note, parked=True) as site:
        site.activator.limit = 1
        async with asyncio.TaskGroup() as group:
            for n in range(10):
                request = post(ASK | {"n": n}, headers=["Connection: close"])
                group.create_task(site.raw(request))
                await site.held(n + 1)
            site.wake()
        assert order == list(range(10))


async def test_retry_after_is_measured() -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(ASK))
        await site.held()
        site.activator.fail(EngineFault(ErrorCode.WAKE_FAILED, "the engine exited with 1"))
        response = await client.answer()
        assert response.status == 503
        assert response.headers["retry-after"] == "11"


async def _streams_forever(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS_HEAD + chunk(b'data: {"n":0}\n\n'))
    await writer.drain()
    await asyncio.Event().wait()


async def test_a_loss_between_events() -> None:
    async with running_site(_streams_forever) as site, talk(site.port) as client:
        client.send(post(STREAM))
        await client.answer(until=b'"n":0')
        for task in site.upstream.tasks:
            task.cancel()
        rest = await client.answer()
        assert json.loads(rest.body.partition(b"data: ")[2])["error"]["code"] == "replica_lost"
        assert (await site.ledger.row()).outcome == "replica_lost"


async def _half_an_event(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS_HEAD + chunk(b'data: {"n":'))
    await writer.drain()
    await asyncio.Event().wait()


async def test_a_loss_within_an_event_cuts() -> None:
    async with running_site(_half_an_event) as site, talk(site.port) as client:
        client.send(post(STREAM))
        await client.answer(until=b'"n":')
        for task in site.upstream.tasks:
            task.cancel()
        rest = await client.answer()
        assert not rest.clean and rest.body == b""


async def test_http_1_0_ends_long_streams_cleanly(site: Site) -> None:
    body = await site.raw(post(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, events = body.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower() and b"connection: close" in head
    assert events.endswith(b"data: [DONE]\n\n") and LAST not in events
