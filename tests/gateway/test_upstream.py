"""Engines that misbehave, connections that are stale, and the retries that are allowed."""

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from poorwill.core.settings import EngineUrl
from poorwill.core.words import SECOND_US
from poorwill.hosts.files.reach import Reach, verifying

from .bridge_site import certificate, serving_tls
from .site import M1, Site, post, running_site
from .talk import talk
from .toy_upstream import EVENTS_HEAD, Asked, Script, answer, chunk, closes_unread, takes, toy_upstream

ASK = {"model": "m1", "messages": []}
STREAM = ASK | {"stream": True}
CLOSE = ["Connection: close"]


async def outcome(site: Site, request: bytes) -> tuple[int, object]:
    async with talk(site.port) as client:
        client.send(request)
        response = await client.answer()
        code = response.error()["code"] if response.status >= 400 else None
        return response.status, code


@pytest.mark.parametrize("politely", [False, True], ids=["closed", "shut down"])
async def test_a_stale_connection_is_replaced(politely: bool) -> None:
    async def once(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"{}"))
        if asked.connection == 1:
            await closes_unread(writer, politely=politely)

    async with running_site(once) as site, talk(site.port) as client:
        for _ in range(2):
            client.send(post(ASK))
            assert (await client.answer()).status == 200
        assert (site.upstream.connections, len(site.upstream.asked)) == (2, 2)
        assert site.activator.granted == 2  # the lease was kept over the retry


async def test_streams_leave_nothing_to_reuse_at_once() -> None:
    """llama.cpp ends a connection after each event stream, without a word and a moment too late."""

    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with running_site(streams) as site, talk(site.port) as client:
        for _ in range(2):
            client.send(post(ASK))
            assert (await client.answer()).status == 200
        assert site.upstream.connections == 2


def swallows(site: Site, first: bytes = answer(200, b"{}"), *, dies: bool = False) -> Script:
    """An engine that answers once on each connection, and then ends it as the next request is read."""
    answered = set[int]()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.connection not in answered:
            answered.add(asked.connection)
            writer.write(first)
            return
        if dies:
            site.upstream.stop_listening()
        writer.close()

    return script


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_swallowed_request_is_sent_again(tmp_path: Path, tls: bool) -> None:
    pem = certificate(tmp_path)

    def there(port: int) -> Reach:
        return Reach(url=EngineUrl("localhost", port, "", True), tls=verifying(str(pem)))

    more = {"tls": serving_tls(pem), "reach": there} if tls else {}
    async with running_site(**more) as site, talk(site.port) as client:  # type: ignore[arg-type]
        site.upstream.script = swallows(site)
        for _ in range(3):
            client.send(post(ASK))
            assert (await client.answer()).status == 200
        assert (site.upstream.connections, len(site.upstream.asked)) == (3, 5)
        assert site.activator.granted == 3, "on the same replica"


async def test_that_streams_end_connections_is_learned() -> None:
    async with running_site() as site, talk(site.port) as client:
        stream = EVENTS_HEAD + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        site.upstream.script = swallows(site, stream)
        for _ in range(4):
            client.send(post(ASK))
            assert (await client.answer()).status == 200
            await takes(0.05)
        assert (site.upstream.connections, len(site.upstream.asked)) == (4, 5), "one request was swallowed"


async def test_what_killed_an_engine_kills_no_other() -> None:
    async with running_site() as site, talk(site.port) as client:
        site.upstream.script = swallows(site, dies=True)
        client.send(post(ASK))
        assert (await client.answer()).status == 200
        client.send(post(ASK))
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (502, "replica_lost")
        assert (len(site.upstream.asked), site.activator.granted) == (2, 2)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/fine_tuning/jobs"])
async def test_what_may_change_something_is_sent_once(path: str) -> None:
    async with running_site() as site, talk(site.port) as client:
        site.upstream.script = swallows(site)
        for status in (200, 502):
            client.send(post(ASK, path=path))
            assert (await client.answer()).status == status
        assert len(site.upstream.asked) == 2


async def test_a_slow_end_is_no_stale_connection() -> None:
    async with running_site() as site, talk(site.port) as client:
        client.send(post(ASK))
        assert (await client.answer()).status == 200

        async def works(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await takes(1.2)
            writer.close()

        site.upstream.script = works
        client.send(post(ASK))
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (502, "replica_lost")
        assert len(site.upstream.asked) == 2


async def test_a_new_connection_is_not_retried() -> None:
    async def dies(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with running_site(dies) as site:
        assert await outcome(site, post(ASK)) == (502, "replica_lost")
        assert len(site.upstream.asked) == 1


async def test_stale_retries_are_bounded() -> None:
    async def once(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if len(site.upstream.asked) > 5:
            writer.transport.abort()
        else:
            writer.write(answer(200, b"{}"))
            await closes_unread(writer)

    async with running_site(once) as site:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(site.raw(post(ASK, headers=CLOSE)))
        assert await outcome(site, post(ASK)) == (502, "replica_lost")
        assert len(site.upstream.asked) == 6, "the request reached the engine once"


async def test_no_retry_after_the_first_byte() -> None:
    async def half(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async with running_site(half) as site, talk(site.port) as client:
        client.send(post(ASK))
        response = await client.answer()
        assert response.status == 200 and response.body == b"half" and not response.clean
        assert len(site.upstream.asked) == 1
        assert (await site.ledger.row()).outcome == "replica_lost"


async def test_connecting_is_tried_three_times() -> None:
    async with running_site() as site:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            site.upstream.port = unused.getsockname()[1]
        assert await outcome(site, post(ASK)) == (502, "upstream_connect")
        assert site.activator.granted == 3


async def test_a_strangers_listener_reads_nothing() -> None:
    async def never(host: str, port: int) -> bool:
        return False

    async with running_site(proven=never) as site:
        assert await outcome(site, post(ASK)) == (502, "upstream_connect")
        assert site.upstream.asked == [] and site.activator.granted == 3


async def test_a_listener_is_proven_once_a_connection() -> None:
    looks: list[int] = []

    async def looked(host: str, port: int) -> bool:
        return not looks.append(port)

    async with running_site(proven=looked) as site:
        for _ in range(3):
            assert (await outcome(site, post(ASK)))[0] == 200
        assert looks == [site.upstream.port]


async def test_no_descriptor_for_the_proof_is_no_verdict() -> None:
    async def short(host: str, port: int) -> bool:
        raise OSError(errno.EMFILE, "Too many open files")

    async with running_site(proven=short) as site:
        assert await outcome(site, post(ASK)) == (503, "overloaded")


async def test_a_gone_engine_means_another_wake() -> None:
    async with running_site() as site, talk(site.port) as client:
        real = site.upstream.port
        with socket.create_server(("127.0.0.1", 0)) as unused:
            site.upstream.port = unused.getsockname()[1]
        original = site.activator.give_back

        def notice_the_death(lease: object) -> None:
            site.activator.ready[M1] = None
            original(lease)  # type: ignore[arg-type]

        site.activator.give_back = notice_the_death  # type: ignore[method-assign, assignment]
        client.send(post(ASK))
        await site.held()
        site.upstream.port = real
        site.activator.give_back = original  # type: ignore[method-assign]
        site.wake()
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000,
    ],
)
async def test_an_engine_without_http_is_a_502(garbage: bytes) -> None:
    async def speaks(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)

    async with running_site(speaks) as site:
        assert await outcome(site, post(ASK)) == (502, "upstream_protocol")


async def test_a_second_response_is_dropped() -> None:
    async def twice(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b'{"n":1}') + answer(200, b'{"n":2}'))

    async with running_site(twice) as site, talk(site.port) as client:
        for _ in range(2):
            client.send(post(ASK))
            assert (await client.answer()).error()["code"] == "upstream_protocol"
        assert site.upstream.connections == 2


async def test_an_unsolicited_answer_closes() -> None:
    async with running_site() as site:

        async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(200, b'{"n":1}'))
            await writer.drain()
            await takes(0.02)
            if not writer.is_closing():
                writer.write(answer(200, b'{"stolen":true}'))

        site.upstream.script = late
        assert b'"n":1' in await site.raw(post(ASK, headers=CLOSE))
        await site.upstream.closed.wait()
        assert b"stolen" not in await site.raw(post(ASK, headers=CLOSE))


FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
AMBIGUOUS = {
    "a length on an interim": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\n" + answer(200, b"{}"),
    "a coding on an interim": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length on a 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding twice": b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    "a coding and a length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
async def test_ambiguous_answers_are_a_502(kind: str) -> None:
    async def ambiguous(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(AMBIGUOUS[kind])

    async with running_site(ambiguous) as site:
        assert await outcome(site, post(ASK)) == (502, "upstream_protocol")


async def test_a_forged_answer_stays_a_body() -> None:
    body = b"{}" + FORGED
    interim = b"HTTP/1.1 103 Early Hints\r\nConnection: x-secret\r\nContent-Type: text/event-stream\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    head += b"Connection: a\r\nConnection: b\r\nA: 1\r\nB: 1\r\n"

    async def forges(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(interim + head + b"X-Secret: 1\r\n\r\n" + chunk(body) + b"0\r\n\r\n")

    async with running_site(forges) as site, talk(site.port) as client:
        for _ in range(2):
            client.send(post(ASK))
            response = await client.answer()
            assert (response.status, response.body) == (200, body)
            assert "x-secret" in response.headers and "content-type" not in response.headers
            assert {"a", "b"}.isdisjoint(response.headers)


async def test_engines_do_not_admit_pages() -> None:
    async def admits(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"{}", "Access-Control-Allow-Origin: *", "access-control-allow-methods: *"))

    async with running_site(admits) as site, talk(site.port) as client:
        client.send(post(ASK))
        assert not [name for name in (await client.answer()).headers if name.startswith("access-control")]


async def test_engine_interims_stop_here() -> None:
    async def interim(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + answer(200, b"{}"))

    async with running_site(interim) as site, talk(site.port) as client:
        client.send(post(ASK))
        response = await client.answer()
        assert (response.status, response.body, response.interims) == (200, b"{}", [])
        assert "link" not in response.headers


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_bodies_ended_by_close_are_framed(
    version: bytes,
) -> None:
    async def until_close(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n[1,")
        await writer.drain()
        writer.write(b"2]")
        writer.close()

    async with running_site(until_close) as site, talk(site.port) as client:
        client.send(post(ASK).replace(b"HTTP/1.1", version))
        response = await client.answer()
        assert response.body == b"[1,2]" and response.clean


async def test_hop_headers_stay_on_the_hop() -> None:
    async def hop(asked: Asked, writer: asyncio.StreamWriter) -> None:
        headers = ["Connection: keep-alive, X-Hop", "Keep-Alive: timeout=5", "X-Hop: 1", "X-End: 2"]
        writer.write(answer(200, b"{}", *headers, "X-Request-Id: theirs"))

    async with running_site(hop) as site, talk(site.port) as client:
        ours = ["Connection: keep-alive, X-Secret", "X-Secret: 1", "TE: trailers", "X-End: 3"]
        client.send(post(ASK, headers=[*ours, "Accept-Encoding: gzip", "Cookie: a=b"]))
        response = await client.answer()
        assert {"keep-alive", "x-hop", "connection"}.isdisjoint(response.headers)
        assert response.headers["x-end"] == "2"
        asked = site.upstream.asked[0].headers
        assert {"connection", "x-secret", "te", "accept-encoding"}.isdisjoint(asked)
        assert (asked["x-end"], asked["cookie"]) == ("3", "a=b")
        assert response.headers["x-request-id"] == asked["x-request-id"] != "theirs"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_none(status: int) -> None:
    async def empty(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d X\r\n\r\n" % status)

    async with running_site(empty) as site, talk(site.port) as client:
        for _ in range(2):
            client.send(post(ASK))
            response = await client.answer()
            assert (response.status, response.body) == (status, b"")
            assert "transfer-encoding" not in response.headers
        assert site.upstream.connections == 1


async def test_a_silent_engine_is_a_504() -> None:
    async def thinks(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with running_site(thinks, upstream_timeout_us=50_000) as site:
        assert await outcome(site, post(ASK)) == (504, "upstream_timeout")


async def test_early_answers_end_the_connection() -> None:
    async def hasty(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"{}", "connection: close"))

    async with running_site(hasty) as site, talk(site.port) as client:
        for _ in range(3):
            client.send(post(ASK))
            assert (await client.answer()).status == 200
        assert site.upstream.connections == 3


async def test_a_slow_client_slows_the_engine_down() -> None:
    wrote = 0
    stalled = asyncio.Event()

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
        writer.write(b"0\r\n\r\n")

    async with running_site(floods) as site, talk(site.port) as client:
        client.writer.transport.pause_reading()
        client.send(post(STREAM, headers=CLOSE))
        await stalled.wait()
        assert wrote < 30_000_000, "the gateway took in what its client did not read"
        client.writer.transport.resume_reading()
        received = await client.closed()
        assert received.endswith(b"\r\n0\r\n\r\n")
        assert received.count(b"x") >= 1000 * 65_000


async def test_a_client_that_stops_reading() -> None:
    async def floods(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD)
        for _ in range(1000):
            writer.write(chunk(b"x" * 65_000))
            await writer.drain()

    async with running_site(floods, body_timeout_us=200_000) as site, talk(site.port) as client:
        client.writer.transport.pause_reading()
        client.send(post(STREAM))
        row = await site.ledger.row()
        assert row.outcome == "client_gone"
        await site.settled()


async def test_cut_ends_requests_in_flight() -> None:
    async def streams(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.json().get("stream"):
            writer.write(EVENTS_HEAD + chunk(b"data: 1\n\n"))
            await writer.drain()
        await asyncio.Event().wait()

    async with running_site(streams) as site, talk(site.port) as json, talk(site.port) as events:
        json.send(post(ASK))
        events.send(post(STREAM))
        await events.answer(until=b"data: 1")
        await site.upstream.until(lambda: len(site.upstream.asked) == 2)
        site.pool.cut(site.upstream.host, site.upstream.port, "the drain deadline passed")
        response = await json.answer()
        assert (response.status, response.error()["code"]) == (503, "draining")
        assert response.headers["retry-after"] == "11"
        assert b'"code":"draining"' in (await events.answer()).body
        await site.settled()


async def test_a_silent_host_sends_requests_elsewhere() -> None:
    asked_first = asyncio.Event()

    async def first_hangs(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.json().get("stream"):
            writer.write(EVENTS_HEAD + chunk(b"data: 1\n\n"))
            await writer.drain()
        if asked.json().get("stream") or not asked_first.is_set():
            asked_first.set()
            await asyncio.Event().wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with running_site(first_hangs) as site, talk(site.port) as json, talk(site.port) as events:
        json.send(post(ASK))
        await asked_first.wait()
        events.send(post(STREAM))
        await events.answer(until=b"data: 1")
        site.clock.skipped_us = 3600 * SECOND_US  # a long prefill is no reason to give it up
        site.pool.cut(site.upstream.host, site.upstream.port, "its host is silent", again=True)
        response = await json.answer()
        assert (response.status, response.body, len(site.upstream.asked)) == (200, b"{}", 3)
        assert b'"code":"draining"' in (await events.answer()).body
        await site.settled()
        assert site.activator.granted == 3


async def test_close_waits_for_both_ends() -> None:
    async with running_site() as site:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(site.raw(post(ASK, headers=CLOSE)))
        assert site.upstream.open_connections > 0
        await site.pool.close(site.upstream.host, site.upstream.port)
        port = f":{site.upstream.port:04X}"
        table = [row.split() for row in _tcp_table()]
        states = [row[3] for row in table if row[1].endswith(port)]
        assert states == ["0A"], "only the listening socket is left at the engine"
        assert b"200 OK" in await site.raw(post(ASK, headers=CLOSE))


def _tcp_table() -> list[str]:
    with open("/proc/self/net/tcp") as table:
        return table.readlines()


async def test_closing_an_unused_address(site: Site) -> None:
    await site.raw(post(ASK, headers=CLOSE))
    await site.pool.close("127.0.0.1", 1)
    site.pool.cut("127.0.0.1", 1, "nothing")
    assert b"200 OK" in await site.raw(post(ASK, headers=CLOSE))
    assert site.upstream.connections == 1, "the connections to other addresses are untouched"


async def test_two_models_share_only_the_pool() -> None:
    async with toy_upstream() as second, running_site() as site:
        site.activator.ready["m2"] = second  # type: ignore[index]
        for name in ("m1", "m2", "m1", "m2"):
            await site.raw(post(ASK | {"model": name}, headers=CLOSE))
        assert [asked.json()["model"] for asked in second.asked] == ["m2", "m2"]
        assert (site.upstream.connections, second.connections) == (1, 1)
