"""Engines elsewhere: over TLS, below a path, with a key, behind proxies."""

import asyncio
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.tiers.cancelling import cancelled_at

from poorwill.core.settings import EngineUrl
from poorwill.gateway.upstream.pool import UpstreamPool
from poorwill.hosts.files.reach import Reach, verifying

from .bridge_site import certificate, serving_tls
from .site import Site, post, running_site
from .talk import talk
from .toy_upstream import EVENTS_HEAD, LAST, Asked, Script, answer, chunk, toy_upstream

ASK = {"model": "m1", "messages": []}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of `localhost`, its key, and its own authority."""
    return certificate(tmp_path_factory.mktemp("tls"))


def reached(pem: Path, *, key: str = "", prefix: str = "") -> Callable[[int], Reach]:
    tls = verifying(str(pem))
    return lambda port: Reach(url=EngineUrl("localhost", port, prefix, True), tls=tls, key=key)


@asynccontextmanager
async def tls_site(pem: Path, script: Script | None = None, **more: object) -> AsyncIterator[Site]:
    async with running_site(script, tls=serving_tls(pem), reach=reached(pem), **more) as site:  # type: ignore[arg-type]
        yield site


async def asked(site: Site, *lines: str) -> tuple[int, dict[str, object]]:
    async with talk(site.port) as client:
        client.send(post(ASK, headers=lines))
        got = await client.answer()
        return got.status, got.json()


async def test_answers_are_relayed_on_one_connection(pem: Path) -> None:
    async with tls_site(pem) as site, talk(site.port) as client:
        for _ in range(3):
            client.send(post(ASK))
            got = await client.answer()
            assert (got.status, got.json()["model"]) == (200, "m1")
        assert site.upstream.connections == 1
        await site.settled()


async def test_a_stream_is_relayed(pem: Path) -> None:
    async def streams(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD)
        for number in range(100):
            writer.write(chunk(b"data: %d\n\n" % number))
            await writer.drain()
        writer.write(LAST)

    async with tls_site(pem, streams) as site, talk(site.port) as client:
        client.send(post(ASK | {"stream": True}))
        got = await client.answer()
        assert got.clean and got.body.count(b"data: ") == 100


@pytest.mark.parametrize("passes", [False, True])
async def test_the_engine_gets_its_own_key_alone(pem: Path, passes: bool) -> None:
    there = reached(pem, key="engines-own", prefix="/proxy/a")
    async with running_site(tls=serving_tls(pem), reach=there, pass_credentials=passes) as site:
        mine = ["Authorization: Bearer clients-own", "X-Api-Key: clients-own", "X-Other: kept"]
        assert (await asked(site, *mine))[0] == 200
        [request] = site.upstream.asked
        assert request.target == "/proxy/a/v1/chat/completions"
        assert request.headers["host"] == f"localhost:{site.upstream.port}"
        assert request.headers["authorization"] == "Bearer engines-own"
        assert "clients-own" not in str(request.headers)
        assert request.headers["x-other"] == "kept"


@pytest.mark.parametrize(
    ("name", "until", "trusted", "why"),
    [
        ("localhost", datetime(2120, 1, 1, tzinfo=UTC), False, "self-signed certificate; url_ca names"),
        ("elsewhere", datetime(2120, 1, 1, tzinfo=UTC), True, "Hostname mismatch"),
        ("localhost", datetime(2021, 1, 1, tzinfo=UTC), True, "certificate has expired"),
    ],
    ids=["unknown", "another's", "expired"],
)
async def test_a_wrong_certificate(
    tmp_path: Path, pem: Path, name: str, until: datetime, trusted: bool, why: str
) -> None:
    shown = certificate(tmp_path, name, until=until)
    there = reached(shown if trusted else pem)
    async with running_site(tls=serving_tls(shown), reach=there) as site:
        status, body = await asked(site)
        error = body["error"]
        assert isinstance(error, dict)
        assert (status, error["code"]) == (502, "upstream_connect")
        assert "certificate does not verify" in str(error["message"]) and why in str(error["message"])
        assert site.upstream.asked == []
        await site.settled()


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (502, "text/html", (502, "upstream_connect")),
        (524, "text/html; charset=UTF-8", (504, "upstream_timeout")),
        (504, "text/plain", (504, "upstream_timeout")),
        (530, "text/html", (502, "upstream_connect")),
    ],
)
async def test_a_proxys_page_is_no_answer(pem: Path, status: int, kind: str, code: tuple[int, str]) -> None:
    async def page(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status, b"<html>Bad gateway</html>", content_type=kind))

    async with tls_site(pem, page) as site:
        got, body = await asked(site)
        error = body["error"]
        assert isinstance(error, dict)
        assert (got, error["code"]) == code
        assert f"a proxy answers {status}" in str(error["message"])
        assert len(site.upstream.asked) == 1  # whether an engine has begun with it nobody knows
        await site.settled()


async def test_an_engines_own_502_is_its_answer(pem: Path) -> None:
    async def says(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(502, b'{"error": {"message": "no"}}'))

    async with tls_site(pem, says) as site:
        assert await asked(site) == (502, {"error": {"message": "no"}})


async def test_an_answer_without_a_length(pem: Path) -> None:
    async def unframed(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"cut": "by whom?"}')
        writer.close()

    async with tls_site(pem, unframed) as site:
        status, body = await asked(site)
        assert status == 502 and "nothing of its length" in str(body)


@pytest.mark.parametrize("politely", [False, True], ids=["cut", "closed"])
async def test_an_answer_that_ends_early(pem: Path, politely: bool) -> None:
    async def half(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS_HEAD + chunk(b"data: 1\n\n"))
        await writer.drain()
        writer.close() if politely else writer.transport.abort()

    async with tls_site(pem, half) as site, talk(site.port) as client:
        client.send(post(ASK | {"stream": True}))
        got = await client.answer()
        assert b"replica_lost" in got.body or not got.clean
        await site.settled()


async def test_a_stale_connection_is_not_used(pem: Path) -> None:
    async def once(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"{}"))
        await writer.drain()
        if request.connection == 1:
            writer.close()

    async with tls_site(pem, once) as site, talk(site.port) as client:
        client.send(post(ASK))
        assert (await client.answer()).status == 200
        await site.upstream.closed.wait()
        client.send(post(ASK))
        assert (await client.answer()).status == 200
        assert site.upstream.connections == 2


def closes_the_first_unread(listener: socket.socket, context: ssl.SSLContext) -> int:
    """Serve one request on each of two connections; return how many requests were read.

    The first ends as its second request arrives. In a thread of its own: asyncio's TLS reads ahead.
    """
    read = 0
    for number in range(2):
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            got = b""
            while not got.endswith(b"}"):
                got += connection.recv(65536)
            read += 1
            connection.sendall(answer(200, b"{}"))
            if number == 0:
                select.select([connection], [], [], 10)
    return read


async def test_closed_as_the_request_arrives(pem: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        serving = asyncio.get_running_loop().run_in_executor(
            None, closes_the_first_unread, listener, serving_tls(pem)
        )
        async with running_site(reach=lambda _: reached(pem)(port)) as site, talk(site.port) as client:
            for _ in range(2):
                client.send(post(ASK))
                assert (await client.answer()).status == 200
            assert await serving == 2


@asynccontextmanager
async def stalling() -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Event]]:
    """A server that takes the beginning of a handshake and never goes on; events of begin and end."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        begun.set()
        await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], begun, ended
    finally:
        server.close()


async def test_a_client_leaves_during_the_handshake(pem: Path) -> None:
    async with stalling() as (port, begun, ended), running_site(reach=lambda _: reached(pem)(port)) as site:
        async with talk(site.port) as client:
            client.send(post(ASK))
            async with asyncio.timeout(5):
                await begun.wait()
        async with asyncio.timeout(5):
            await ended.wait()
        await site.settled()
        assert site.pool.open_connections("localhost", port) == 0


async def test_connecting_cancelled_anywhere(pem: Path) -> None:
    async with toy_upstream(tls=serving_tls(pem)) as toy:
        pool = UpstreamPool(timeout_us=10**6, elsewhere={("localhost", toy.port): reached(pem)(toy.port)}.get)
        cancelled = 0
        while await cancelled_at(cancelled, pool.connect("localhost", toy.port)):
            cancelled += 1
            assert pool.open_connections("localhost", toy.port) == 0
            assert pool.take("localhost", toy.port) is None
        assert cancelled >= 1
        await pool.aclose()


async def test_what_is_no_tls_is_no_engine(pem: Path) -> None:
    async with running_site(reach=reached(pem)) as site:
        status, body = await asked(site)
        assert status == 502 and "upstream_connect" in str(body)
        assert site.upstream.asked == []


async def test_plain_and_elsewhere_is_relayed_too(pem: Path) -> None:
    async with running_site(reach=lambda port: Reach(url=EngineUrl("localhost", port), key="k")) as site:
        assert (await asked(site))[0] == 200
        assert site.upstream.asked[0].headers["authorization"] == "Bearer k"


def test_the_context_refuses_what_is_old() -> None:
    context = verifying()
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
