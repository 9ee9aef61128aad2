"""Every endpoint: paths of vendors, models named in a query, answers of any kind, checks of health."""

import asyncio

import httpx2
import pytest

from .site import running_site
from .toy_upstream import Asked, answer

PATHS = ("/tokenize", "/v2/*", "/v1/score")


async def says_where(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(200, asked.target.encode(), content_type="text/plain"))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tokenize", b'{"model": "m1", "prompt": "x"}'),
        ("POST", "/v2/rerank", b'{"model": "m1"}'),
        ("GET", "/v2/props?model=m1&x=1", b""),
        ("POST", "/v1/score", b'{"model": "m1"}'),
    ],
)
async def test_a_vendors_path_is_added_by_a_key(method: str, path: str, body: bytes) -> None:
    """Also if the model's engine is known to serve others alone."""
    served = ("/v1/chat/completions",)
    async with running_site(says_where, served=served, paths=PATHS) as site, httpx2.AsyncClient() as client:
        base = site.url.removesuffix("/v1")
        got = await client.request(method, base + path, content=body)
        assert (got.status_code, got.text) == (200, path)
        assert (await client.post(base + "/detokenize", content=body)).status_code == 404
    async with running_site(says_where, served=served) as site, httpx2.AsyncClient() as client:
        got = await client.request(method, site.url.removesuffix("/v1") + path, content=body)
        assert (got.status_code, got.json()["error"]["code"]) == (404, "route_not_found")


async def test_such_a_path_needs_a_key_as_well() -> None:
    keys = {b"sk-ann": "ann"}
    async with running_site(says_where, keys=keys, paths=PATHS) as site, httpx2.AsyncClient() as client:
        url = site.url.removesuffix("/v1") + "/tokenize?model=m1"
        assert (await client.get(url)).status_code == 401
        assert (await client.get(url, headers={"x-api-key": "sk-ann"})).status_code == 200


async def test_a_query_names_the_model() -> None:
    async with running_site(says_where) as site, httpx2.AsyncClient() as client:
        assert (await client.get(f"{site.url}/responses/r1?model=m1")).text == "/v1/responses/r1?model=m1"
        got = await client.get(f"{site.url}/responses/r1")
        assert got.status_code == 404


@pytest.mark.parametrize("content_type", ["audio/mpeg", "image/png", "application/octet-stream"])
async def test_a_binary_answer_passes_byte_for_byte(content_type: str) -> None:
    speech = bytes(range(256)) * 4096

    async def speaks(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, speech, content_type=content_type))

    async with running_site(speaks) as site, httpx2.AsyncClient() as client:
        got = await client.post(f"{site.url}/audio/speech", json={"model": "m1", "input": "hi"})
        assert (got.content, got.headers["content-type"]) == (speech, content_type)
        row = await site.ledger.row()
        assert (row.tokens_in, row.tokens_out) == (None, None)


@pytest.mark.parametrize("path", ["/healthz", "/health", "/livez", "/readyz", "/ping"])
async def test_the_gateway_says_that_it_lives(path: str) -> None:
    keys = {b"sk-ann": "ann"}
    async with running_site(keys=keys, parked=True) as site, httpx2.AsyncClient() as client:
        got = await client.get(site.url.removesuffix("/v1") + path)
        assert (got.status_code, got.json()) == (200, {"status": "ok"})
