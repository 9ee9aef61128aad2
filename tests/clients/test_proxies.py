"""The reverse proxies of docs/deploy.md, run as the page has them, in front of a real gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.gateway.site import M1, Site, post, running_site
from tests.gateway.talk import Talk, talk
from tests.gateway.toy_upstream import EVENTS_HEAD, LAST, Asked, answer, chunk, delta, event

from poorwill.core.errors import ErrorCode, TryLater

from .proxies import PROXIES, running_proxy

ASK = {"model": "m1", "messages": []}
STREAM = ASK | {"stream": True}
QUICK_TO_START = {"haproxy", "nginx"}
every_proxy = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK_TO_START else pytest.mark.nightly) for name in PROXIES],
)


@asynccontextmanager
async def proxied(site: Site, name: str, folder: Path, *, default: bool = False) -> AsyncIterator[Talk]:
    async with running_proxy(name, folder, site.port, default=default) as port, talk(port) as client:
        yield client


@every_proxy
async def test_a_wake_shows_through_a_proxy(name: str, tmp_path: Path) -> None:
    """Heartbeats and tokens arrive one by one, and the connection serves the next request as well."""
    read = asyncio.Event()

    async def slowly(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.json().get("stream") is not True:
            writer.write(answer(200, b'{"size": %d}' % len(asked.body)))
            return
        writer.write(EVENTS_HEAD + event(delta("m1", "first")))
        await read.wait()
        writer.write(event(delta("m1", "second")) + chunk(b"data: [DONE]\n\n") + LAST)

    async with (
        running_site(slowly, parked=True, max_body_bytes=32 * 2**20) as site,
        proxied(site, name, tmp_path) as client,
    ):
        client.send(post(STREAM))
        await client.answer(until=b": poorwill waking")
        site.wake()
        await client.answer(until=b"first")
        read.set()
        assert (await client.answer()).body.endswith(b"data: [DONE]\n\n")
        await site.settled()
        site.activator.ready[M1] = None
        client.send(post(ASK))
        response = await client.answer(until=b"  ")
        assert response.status == 200
        site.wake()
        assert b"size" in (await client.answer()).body
        large = json.dumps(ASK | {"more": "x" * 2_000_000}).encode()
        client.send(post(large))
        assert int(str((await client.answer()).json()["size"])) == len(large)


@every_proxy
@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["json", "stream"])
async def test_leaving_a_proxy_frees_the_place(name: str, ask: dict[str, object], tmp_path: Path) -> None:
    async with (
        running_site(parked=True, commit_after_us=60_000_000) as site,
        proxied(site, name, tmp_path) as client,
    ):
        client.send(post(ask))
        await site.held()
        client.leave()
        await site.activator.until(lambda: not site.activator.queue)
        assert (await site.ledger.row()).outcome == "client_gone"


@every_proxy
async def test_a_failed_wake_through_a_proxy(name: str, tmp_path: Path) -> None:
    fault = TryLater(ErrorCode.WAKE_TIMEOUT, "the wake budget of 60 s elapsed", retry_after_s=30)
    async with (
        running_site(parked=True, commit_after_us=60_000_000) as site,
        proxied(site, name, tmp_path) as client,
    ):
        client.send(post(ASK, headers=["User-Agent: OpenAI/Python 3.54.0"]))
        await site.held()
        site.activator.fail(fault)
        response = await client.answer()
        assert (response.status, response.headers["retry-after"]) == (504, "30")
        assert response.error()["code"] == "wake_timeout"
        assert response.interims == []
        assert (await site.ledger.row()).outcome == "wake_timeout"
        assert len(site.ledger.rows) == 1, "the proxy asked again"


@every_proxy
async def test_a_late_failure_is_no_answer(name: str, tmp_path: Path) -> None:
    """Caddy ends an answer cleanly whose end it never got."""
    fault = TryLater(ErrorCode.WAKE_TIMEOUT, "the wake budget of 60 s elapsed", retry_after_s=30)
    async with running_site(parked=True) as site, proxied(site, name, tmp_path) as client:
        client.send(post(ASK))
        response = await client.answer(until=b" ")
        site.activator.fail(fault)
        rest = await client.answer()
        with pytest.raises(json.JSONDecodeError):
            json.loads(response.body + rest.body)


@every_proxy
async def test_who_passes_interims_on(name: str, tmp_path: Path) -> None:
    async with (
        running_site(parked=True, commit_after_us=60_000_000) as site,
        proxied(site, name, tmp_path) as client,
    ):
        client.send(post(ASK, headers=["Prefer: interim"]))
        if name == "envoy":
            await site.held()
        else:
            await client.first_interim()
        site.wake()
        response = await client.answer()
        assert response.status == 200 and response.clean
        assert name != "envoy" or not response.interims
