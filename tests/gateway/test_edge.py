"""The HTTP edge: what must not come in is refused with 400 and a close, what may come in is served."""

import asyncio
import json

import pytest

from .site import QUICK, Site, post, running_site
from .talk import talk
from .toy_upstream import Asked, answer, takes

ASK = {"model": "m1", "messages": []}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
BODY = json.dumps(ASK).encode()
SIZED = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n"


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


REFUSED = {
    "both lengths": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, other order": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "conflicting lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an empty length": HEAD + b"Content-Length:\r\n\r\n",
    "a hexadecimal length": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "an unknown coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "the coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a disguised coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity coding": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "chunk data longer than its size": CHUNKED + b"3\r\nabcX\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size that overflows": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a bare line feed after a chunk size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "bare line feeds": b"GET /v1/models HTTP/1.1\nHost: a\n\n",
    "one bare line feed": b"GET /v1/models HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "a bare carriage return": b"GET /v1/models HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "a doubled carriage return": b"GET /v1/models HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "a folded header": GET + b"X: a\r\n b\r\n\r\n",
    "a folded header with a tab": GET + b"X: a\r\n\tb\r\n\r\n",
    "a space before the colon": b"GET /v1/models HTTP/1.1\r\nHost : a\r\n\r\n",
    "a space before the first header": b"GET /v1/models HTTP/1.1\r\n Host: a\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "no header name": GET + b": x\r\n\r\n",
    "an invalid header name": GET + b"X(: x\r\n\r\n",
    "a zero byte in a value": GET + b"X: a\x00b\r\n\r\n",
    "a control character in a value": GET + b"X: a\x01b\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "an empty host": b"GET /v1/models HTTP/1.1\r\nHost:\r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "two credentials": GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/2.0": b"GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\nHost: a\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an unknown method": b"BREW /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method we do not serve": b"TRACE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /v1/models\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab in the target": b"GET /v1/\tmodels HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"GET /v1/models#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path": b"GET models HTTP/1.1\r\nHost: a\r\n\r\n",
    "a foreign scheme": b"GET ftp://a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "dot segments": SIZED.replace(b"/v1/chat", b"/v1/../chat"),
    "dot segments encoded twice": SIZED.replace(b"/v1/chat", b"/v1/%252e%252E/chat"),
    "encoded slashes": SIZED.replace(b"/v1/chat", b"/v1/..%2f..%2fchat"),
    "a backslash": SIZED.replace(b"/v1/chat", b"/v1/..%5cchat"),
    "dots with parameters": SIZED.replace(b"/v1/chat", b"/v1/..;a/chat"),
    "encoded over and over": SIZED.replace(b"/v1/chat", b"/v1/%25252525252e/chat"),
    "encoded dot segments": SIZED.replace(b"/v1/chat", b"/v1/%2e%2E/chat"),
    "a head larger than its limit": GET + b"X: " + b"a" * QUICK.max_header_bytes + b"\r\n\r\n",
    "a head that never ends": GET + b"X: " + b"a" * 2 * QUICK.max_header_bytes,
    "a target that never ends": b"GET /" + b"a" * 2 * QUICK.max_header_bytes,
    "too many headers": GET + b"X: a\r\n" * QUICK.max_headers + b"\r\n",
    "chunk extensions that never end": CHUNKED + b"1;" + b"a" * 50_000,
    "a head that is cut off": GET,
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
async def test_bad_requests_get_400_and_close(site: Site, split: bool) -> None:
    for name, request in REFUSED.items():
        received = await _send(site, request, split=split)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 "), name
        assert b"\r\nconnection: close" in head.lower(), name
        error = json.loads(body)["error"]
        assert error["code"] == "invalid_request" and error["source"] == "poorwill", name
        assert site.upstream.asked == [], f"{name}: something of it reached the engine"


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed", "POST"),
        ("OPTIONS", "/v1/completions", 405, "method_not_allowed", "POST"),
        ("POST", "/v1/models", 405, "method_not_allowed", "GET, HEAD"),
        ("DELETE", "/healthz", 405, "method_not_allowed", "GET, HEAD"),
        ("GET", "/metrics", 404, "route_not_found", None),
        ("GET", "/nowhere", 404, "route_not_found", None),
        ("POST", "/chat/completions", 404, "route_not_found", None),
    ],
)
async def test_no_route_and_wrong_method_differ(
    site: Site, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    async with talk(site.port) as client:
        client.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        response = await client.answer(method=method)
        assert (response.status, response.error()["code"]) == (status, code)
        assert response.headers.get("allow") == allow
        assert site.upstream.asked == []


async def _send(site: Site, data: bytes, *, split: bool) -> bytes:
    """Send at once or in two segments, half-close, and return all that comes back."""
    async with talk(site.port) as client:
        if split:
            client.send(data[: len(data) // 2])
            await client.writer.drain()
            await takes(0.005)
            data = data[len(data) // 2 :]
        client.send(data)
        client.writer.write_eof()
        return await client.closed()


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 200001\r\n\r\n",
        HEAD + b"Content-Length: 200001\r\nExpect: 100-continue\r\n\r\n",
        CHUNKED + chunks(b" " * 100_000, b" " * 100_001),
        HEAD + b"Content-Length: 200001\r\n\r\n" + b" " * 200_001,
    ],
)
async def test_a_body_larger_than_its_limit_is_413(site: Site, data: bytes) -> None:
    received = await site.raw(data)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b'"payload_too_large"' in received
    assert b"100 Continue" not in received


async def test_a_body_at_its_limit_is_served(site: Site) -> None:
    body = BODY + b" " * (QUICK.max_body_bytes - len(BODY))
    received = await site.raw(post(body, headers=["Connection: close"]))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert len(site.upstream.asked[0].body) == QUICK.max_body_bytes


async def test_chunked_requests_get_a_length(site: Site) -> None:
    async with talk(site.port) as client:
        client.send(CHUNKED + chunks(*(BODY[i : i + 1] for i in range(len(BODY)))))
        assert (await client.answer()).status == 200
    asked = site.upstream.asked[0]
    assert asked.body == BODY
    assert asked.headers["content-length"] == str(len(BODY))
    assert "transfer-encoding" not in asked.headers


async def test_trailers_are_dropped(site: Site) -> None:
    request = CHUNKED + chunks(BODY)[:-2] + b"Authorization: Bearer stolen\r\nX-T: 1\r\n\r\n"
    async with talk(site.port) as client:
        client.send(request)
        assert (await client.answer()).status == 200
    assert {"x-t", "authorization"}.isdisjoint(site.upstream.asked[0].headers)


async def test_a_request_may_arrive_byte_by_byte(site: Site) -> None:
    async with talk(site.port) as client:
        for i in range(len(SIZED)):
            client.send(SIZED[i : i + 1])
            await client.writer.drain()
            await takes(0)
        assert (await client.answer()).status == 200
    assert site.upstream.asked[0].body == BODY


MISTAKEN = {
    "/chat/completions": "/v1/chat/completions",
    "/v1/chat/completions/": "/v1/chat/completions",
    "/v1/v1/chat/completions": "/v1/chat/completions",
    "/v1/responses/resp_1": "",
    "/v1/files": "",
}


@pytest.mark.parametrize("path", MISTAKEN)
async def test_mistaken_paths_wake_nothing(path: str) -> None:
    async with running_site(parked=True) as site, talk(site.port) as client:
        method = "POST" if MISTAKEN[path] else "GET"
        client.send(post(ASK if MISTAKEN[path] else b"", path=path).replace(b"POST", method.encode(), 1))
        response = await client.answer(method=method)
        assert (response.status, response.error()["code"]) == (404, "route_not_found")
        assert MISTAKEN[path] in str(response.error()["message"])
        assert not site.activator.queue


async def test_a_form_that_names_no_model_is_told_so() -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nde\r\n--b--\r\n'
    headers = ["Content-Type: multipart/form-data; boundary=b"]
    async with running_site(parked=True) as site, talk(site.port) as client:
        client.send(post(form, path="/v1/audio/transcriptions", headers=headers))
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (400, "invalid_request")
        assert "names no model" in str(response.error()["message"])


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ("application/x-www-form-urlencoded", "application/json"),
        ("application/json; charset=utf-8", "application/json; charset=utf-8"),
    ],
)
async def test_what_curl_calls_a_form_is_json(sent: str, passed_on: str) -> None:
    async with running_site(_says_hello) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[f"Content-Type: {sent}"]))
        assert (await client.answer()).status == 200
        assert site.upstream.asked[0].headers["content-type"] == passed_on


async def test_compressed_bodies_are_415(site: Site) -> None:
    async with talk(site.port) as client:
        client.send(post(b"\x1f\x8b", headers=["Content-Encoding: gzip"]))
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (415, "unsupported_media")


async def test_paths_no_engine_serves_are_404() -> None:
    async with running_site(parked=True, served=["/v1/embeddings"]) as site, talk(site.port) as client:
        client.send(post(ASK))
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (404, "route_not_found")
        assert "it serves /v1/embeddings" in str(response.error()["message"])
        assert not site.activator.queue


async def test_a_form_reaches_the_engine() -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm1\r\n--b--\r\n'
    headers = ["Content-Type: multipart/form-data; boundary=b"]
    async with running_site(_says_hello) as site, talk(site.port) as client:
        client.send(post(form, path="/v1/audio/transcriptions", headers=headers))
        assert (await client.answer()).status == 200
        assert site.upstream.asked[0].body == form


async def _says_hello(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(200, b'{"text":"hello"}'))


async def test_big_bodies_are_served() -> None:
    request = post(ASK | {"x": "a" * 2_000_000}, headers=["Connection: close"])
    async with running_site(_says_hello, max_body_bytes=4_000_000) as site:
        async with asyncio.TaskGroup() as group:
            big = [group.create_task(site.raw(request)) for _ in range(4)]
        assert all(one.result().startswith(b"HTTP/1.1 200 ") for one in big)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
OFFERS = {
    "h2c with a body": SIZED.replace(b"\r\n\r\n", b"\r\n" + UPGRADE + b"\r\n", 1),
    "h2c, chunked": CHUNKED[:-2] + UPGRADE + b"\r\n" + chunks(BODY),
    "a websocket": SIZED.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1),
    "an unknown Expect": SIZED.replace(b"\r\n\r\n", b"\r\nExpect: the-moon\r\n\r\n", 1),
    "TE and a priority": SIZED.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\nPriority: u=1\r\n\r\n", 1),
}


@pytest.mark.parametrize("offer", OFFERS)
async def test_offers_are_ignored(site: Site, offer: str) -> None:
    async with talk(site.port) as client:
        for _ in range(2):
            client.send(OFFERS[offer])
            assert (await client.answer()).status == 200
        client.send(OFFERS[offer] * 2)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    for asked in site.upstream.asked:
        assert asked.body == BODY
        assert {"upgrade", "http2-settings", "expect", "te"}.isdisjoint(asked.headers)


async def test_absolute_targets_are_accepted(site: Site) -> None:
    async with talk(site.port) as client:
        client.send(SIZED.replace(b"POST /v1", b"POST http://elsewhere:1/v1"))
        assert (await client.answer()).status == 200
    assert site.upstream.asked[0].target == "/v1/chat/completions"
    assert site.upstream.asked[0].headers["host"] == f"127.0.0.1:{site.upstream.port}"


async def test_a_query_survives(site: Site) -> None:
    async with talk(site.port) as client:
        client.send(post(ASK, path="/v1/chat/completions?a=%2F&b=1"))
        assert (await client.answer()).status == 200
    assert site.upstream.asked[0].target == "/v1/chat/completions?a=%2F&b=1"


async def test_pipelining_keeps_the_order() -> None:
    async def slow_first(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await takes(0.05 if asked.json()["n"] == 0 else 0)
        writer.write(answer(200, json.dumps({"n": asked.json()["n"]}).encode()))

    async with running_site(slow_first) as site, talk(site.port) as client:
        requests = [post(ASK | {"n": n}) for n in range(6)]
        requests[3] = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        client.send(b"".join(requests))
        bodies = [(await client.answer()).json() for _ in requests]
        assert bodies == [{"n": 0}, {"n": 1}, {"n": 2}, {"status": "ok"}, {"n": 4}, {"n": 5}]
        assert site.upstream.connections == 1


async def test_a_bad_request_waits_for_a_good_one(
    site: Site,
) -> None:
    received = await site.raw(SIZED + REFUSED["both lengths"])
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 2 and b"HTTP/1.1 400 " in received
    assert len(site.upstream.asked) == 1


async def test_a_pipelined_flood_waits(site: Site) -> None:
    async with talk(site.port) as client:
        client.send((GET + b"\r\n") * 2000 + GET + b"Connection: close\r\n\r\n")
        received = await client.closed()
        assert received.count(b"HTTP/1.1 200 OK") == 2001


async def test_nothing_follows_a_close(site: Site) -> None:
    received = await site.raw(GET + b"Connection: close\r\n\r\n" + SIZED)
    assert received.count(b"HTTP/1.1 ") == 1
    assert site.upstream.asked == []


async def test_expect_100_continue(site: Site) -> None:
    async with talk(site.port) as client:
        client.send(SIZED.partition(b"\r\n\r\n")[0] + b"\r\nExpect: 100-continue\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert (await client.answer()).status == 200
    assert "expect" not in site.upstream.asked[0].headers


async def test_http_1_0_gets_no_100_continue(site: Site) -> None:
    request = SIZED.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host", b"Expect: 100-continue\r\nHost")
    assert b"100 Continue" not in await site.raw(request)


@pytest.mark.parametrize("path", [b"/v1/models", b"/v1/models/m1", b"/healthz"])
async def test_head_is_get_without_the_body(site: Site, path: bytes) -> None:
    request = b"HEAD %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path
    head, _, body = (await site.raw(request)).partition(b"\r\n\r\n")
    full = await site.raw(request.replace(b"HEAD", b"GET"))
    assert head.startswith(b"HTTP/1.1 200 ") and body == b""
    assert b"content-length: %d" % len(full.partition(b"\r\n\r\n")[2]) in head


async def test_a_refused_head_request_gets_no_body(site: Site) -> None:
    head, _, body = (await site.raw(b"HEAD /nothing HTTP/1.1\r\nHost: a\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ") and body == b""


async def test_http_1_0_closes_by_default(site: Site) -> None:
    request = b"GET /healthz HTTP/1.0\r\n\r\n"
    assert b"connection: close" in await site.raw(request)
    async with talk(site.port) as client:
        for _ in range(2):
            client.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"connection: keep-alive" in head
            await client.reader.readexactly(len(b'{"status":"ok"}'))


async def test_keep_alive_and_close(site: Site) -> None:
    async with talk(site.port) as client:
        for _ in range(3):
            client.send(GET + b"\r\n")
            response = await client.answer(method="GET")
            assert "connection" not in response.headers
        client.send(GET + b"Connection: close\r\n\r\n")
        assert (await client.answer(method="GET")).headers["connection"] == "close"
        assert await client.closed() == b""


async def test_a_leading_empty_line_is_ignored(site: Site) -> None:
    received = await site.raw(b"\r\n" + GET + b"Connection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")


async def test_a_slow_head_is_refused() -> None:
    async with running_site(head_timeout_us=50_000) as site, talk(site.port) as client:
        client.send(GET)
        received = await client.closed()
        assert received.startswith(b"HTTP/1.1 400 ") and b"head was not complete" in received


async def test_a_trickling_head_is_refused() -> None:
    async with running_site(head_timeout_us=100_000) as site, talk(site.port) as client:
        client.send(GET)

        async def trickle() -> None:
            while not client.reader.at_eof():
                client.send(b"X: 1\r\n" if site.server.connections else b"")
                await takes(0.02)

        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(trickle())
            received = await client.closed()
            dripping.cancel()
        assert b"head was not complete" in received


async def test_a_body_that_never_ends_is_refused() -> None:
    async with running_site(body_timeout_us=50_000) as site, talk(site.port) as client:
        client.send(SIZED[:-1])
        received = await client.closed()
        assert received.startswith(b"HTTP/1.1 400 ") and b"body was not complete" in received
        assert site.upstream.asked == []


async def test_a_mute_connection_is_closed() -> None:
    async with running_site(head_timeout_us=50_000) as site, talk(site.port) as client:
        assert await client.closed() == b""


async def test_idle_connections_are_closed() -> None:
    async with running_site(idle_timeout_us=50_000) as site, talk(site.port) as client:
        client.send(GET + b"\r\n")
        await client.answer(method="GET")
        assert await client.closed() == b""


async def test_a_long_answer_is_no_idle_connection() -> None:
    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await takes(0.3)
        writer.write(answer(200, b"{}"))

    limits = {"idle_timeout_us": 50_000, "head_timeout_us": 50_000, "body_timeout_us": 50_000}
    async with running_site(slow, **limits) as site, talk(site.port) as client:
        client.send(post(ASK))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "names no model"),
        (b"{", "not JSON"),
        (b"hello", "not JSON"),
        (b"[1]", "JSON object"),
        (b'"m1"', "JSON object"),
        (b'{"model": 1}', "must be a string"),
        (b'{"model": ""}', "must be a string"),
        (b"{}", "names no model"),
        (b'{"model": null}', "names no model"),
        (b'{"model": "m1"', "not JSON"),
        (b'{"x": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", "nested too deeply"),
        (b'\xff\xfe{"model": "m1"}', "not JSON"),
        (b'{"model": "m\xff1"}', "not JSON"),
    ],
)
async def test_a_body_without_a_model(site: Site, body: bytes, words: str) -> None:
    async with talk(site.port) as client:
        client.send(post(body))
        response = await client.answer()
        assert response.status == 400
        assert words in str(response.error()["message"])
        client.send(post(ASK))
        assert (await client.answer()).status == 200, "the connection is as good as before"


async def test_an_unknown_model_is_404(site: Site) -> None:
    async with talk(site.port) as client:
        client.send(post({"model": "m2"}))
        response = await client.answer()
        assert response.status == 404
        error = response.error()
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "m1" in str(error["message"])
    assert site.ledger.rows == []


async def test_listing_models_wakes_nothing() -> None:
    async with running_site(parked=True, models=["org/m2"]) as site, talk(site.port) as client:
        client.send(GET + b"\r\n")
        rows = (await client.answer(method="GET")).json()["data"]
        assert [row["id"] for row in rows] == ["m1", "org/m2"]  # type: ignore[attr-defined]
        for path in (b"/v1/models/org/m2", b"/v1/models/org%2Fm2"):
            client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert (await client.answer(method="GET")).json()["id"] == "org/m2"
        client.send(b"GET /v1/models/m3 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer(method="GET")).status == 404
        assert site.activator.queue == [] and site.upstream.asked == []


async def test_a_path_may_name_the_model(site: Site) -> None:
    async with talk(site.port) as client:
        client.send(post(b"", path="/v1/engines/m1/tokenize"))
        await client.answer()
        client.send(b"GET /v1/engines/m1/stats HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.answer(method="GET")
    assert [(a.method, a.target) for a in site.upstream.asked] == [
        ("POST", "/v1/engines/m1/tokenize"),
        ("GET", "/v1/engines/m1/stats"),
    ]


KEYS = {b"sk-good": "team-a"}


@pytest.mark.parametrize("header", ["Authorization: Bearer sk-good", "x-api-key: sk-good"])
async def test_a_key_stays_with_the_gateway(header: str) -> None:
    async with running_site(keys=KEYS) as site, talk(site.port) as client:
        client.send(post(ASK, headers=[header]))
        assert (await client.answer()).status == 200
        assert (await site.ledger.row()).key == "team-a"
        assert "sk-good" not in str(site.upstream.asked[0].headers)


@pytest.mark.parametrize(
    "headers",
    [[], ["Authorization: Bearer sk-bad"], ["x-api-key: x"], ["Authorization: Basic eA=="]],
)
async def test_a_bad_key_is_401_before_the_body(headers: list[str]) -> None:
    async with running_site(keys=KEYS) as site:
        request = post(ASK, headers=headers).replace(BODY, b"")
        received = await site.raw(request)
        assert received.startswith(b"HTTP/1.1 401 ")
        assert b"www-authenticate: Bearer" in received and b'"unauthenticated"' in received
        assert b"sk-" not in received


async def test_health_needs_no_key() -> None:
    async with running_site(keys=KEYS) as site:
        received = await site.raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("passed", [False, True])
async def test_credentials_pass_if_configured(passed: bool) -> None:
    async with running_site(pass_credentials=passed) as site, talk(site.port) as client:
        for _ in range(2):
            client.send(post(ASK, headers=["Authorization: Bearer sk-good"]))
            assert (await client.answer()).status == 200
            site.keys.secrets[b"sk-good"] = "team-a"  # from now on the key is poorwill's
        first, second = (asked.headers for asked in site.upstream.asked)
    assert first.get("authorization") == ("Bearer sk-good" if passed else None)
    assert "authorization" not in second


async def test_a_revoked_key_on_open_connections() -> None:
    async with running_site(keys=dict(KEYS)) as site, talk(site.port) as client:
        client.send(post(ASK, headers=["Authorization: Bearer sk-good"]))
        assert (await client.answer()).status == 200
        del site.keys.secrets[b"sk-good"]
        site.keys.secrets[b"sk-other"] = "team-b"
        client.send(post(ASK, headers=["Authorization: Bearer sk-good"]))
        assert (await client.answer()).status == 401


async def test_only_the_length_may_differ(site: Site) -> None:
    async with talk(site.port) as client:
        for n in range(4):
            client.send(post(ASK | {"n": "x" * n}, headers=[f"X-N: {n // 2}"]))
            assert (await client.answer()).status == 200
    asked = site.upstream.asked
    assert [a.json()["n"] for a in asked] == ["", "x", "xx", "xxx"]
    assert [a.headers["x-n"] for a in asked] == ["0", "0", "1", "1"]


async def test_reading_resumes_after_a_stream(site: Site) -> None:
    async with talk(site.port) as client:
        for _ in range(3):
            client.send(post(ASK | {"stream": True}))
            assert (await client.answer()).clean
        client.send(post(ASK | {"stream": True}) + post(ASK))
        assert (await client.answer()).clean
        assert (await client.answer()).json()["model"] == "m1"
