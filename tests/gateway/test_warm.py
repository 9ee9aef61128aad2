"""The warm path: bytes in, bytes out, connections kept."""

import httpx2

from .site import M1, Site
from .toy_upstream import USAGE

ASK = {"model": "m1", "messages": [{"role": "user", "content": "hi"}]}


async def test_unknown_fields_survive(site: Site) -> None:
    async with httpx2.AsyncClient() as client:
        ask = ASK | {"x_unknown": {"deep": [1, 2.5, None]}}
        response = await client.post(f"{site.url}/chat/completions", json=ask, headers={"X-Mine": "1"})
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "hello there"
    asked = site.upstream.asked[0]
    assert asked.json() == ask
    assert asked.headers["x-mine"] == "1"
    assert asked.headers["host"] == f"127.0.0.1:{site.upstream.port}"
    assert asked.headers["x-request-id"] == response.headers["x-request-id"]
    row = await site.ledger.row()
    assert (row.status, row.outcome, row.model) == (200, "ok", M1)
    assert (row.tokens_in, row.tokens_out) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert row.arrived_us <= (row.leased_us or 0) <= (row.first_byte_us or 0) <= row.ended_us


async def test_only_the_model_name_changes(
    site: Site,
) -> None:
    site.activator.engine_model = "qwen3:0.6b"
    text = b'{"seed":1e2, "model" : "m1", "messages":[ {"role": "user","content":"h\\u0069"} ]}'
    async with httpx2.AsyncClient() as client:
        response = await client.post(f"{site.url}/chat/completions", content=text)
    assert response.status_code == 200
    asked = site.upstream.asked[0]
    assert asked.body == text.replace(b'"m1"', b'"qwen3:0.6b"')
    assert (await site.ledger.row()).model == M1


async def test_one_client_one_upstream_connection(
    site: Site,
) -> None:
    async with httpx2.AsyncClient() as client:
        for _ in range(50):
            response = await client.post(f"{site.url}/chat/completions", json=ASK)
            assert response.status_code == 200
    assert site.upstream.connections == 1
    assert len(site.upstream.asked) == 50


async def test_a_stream_arrives_as_it_comes(site: Site) -> None:
    async with (
        httpx2.AsyncClient() as client,
        client.stream("POST", f"{site.url}/chat/completions", json=ASK | {"stream": True}) as response,
    ):
        lines = [line async for line in response.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    row = await site.ledger.row()
    assert (row.tokens_in, row.tokens_out) == (7, 3)
