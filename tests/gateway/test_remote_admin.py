"""The admin listener for other machines: who is let in, by key or by cookie."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from poorwill.core.settings import Address
from poorwill.core.settings.fleet import RemoteAdminSettings
from poorwill.core.words import SECOND_US

from .site import Site, running_site

KEY = {"Authorization": "Bearer pw-ann"}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    remote = RemoteAdminSettings(listen=Address("127.0.0.1", 0), behind_proxy=True)
    async with running_site(remote_admin=remote) as site:
        site.operators.secrets[b"pw-ann"] = "ann"
        yield site


@pytest.fixture
async def far(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    [sock] = site.beside
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


async def log_in(far: httpx2.AsyncClient, key: str = "pw-ann") -> dict[str, str]:
    """Log in as a browser does; return the headers that it sends from then on."""
    own = {"Host": "ops.example", "Origin": "https://ops.example", "Sec-Fetch-Site": "same-origin"}
    answer = await far.post("/login", data={"key": key}, headers=own)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    for flag in ("__Host-poorwill=", "HttpOnly", "SameSite=strict", "Secure", "Path=/"):
        assert flag in cookie
    return {**own, "Cookie": cookie.partition(";")[0]}


async def test_a_key_opens_it(site: Site, far: httpx2.AsyncClient) -> None:
    assert (await far.get("/status", headers=KEY)).json()["status"] == "ok"
    # By any name: a page that has rebound one to this address knows no key.
    assert (await far.post("/models/m1/wake", headers={**KEY, "Host": "any.example"})).status_code == 200
    assert site.fleet.asked == ["wake m1"]
    [said] = [fields for _, text, fields in site.log.lines if text == "an operator asked"]
    assert said["by"] == "operator ann"


@pytest.mark.parametrize("path", ["/status", "/metrics", "/healthz", "/events", "/history/costs", "/nothing"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer no"}, {"Cookie": "__Host-poorwill=no"}])
async def test_nothing_without_a_key(far: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> None:
    answer = await far.get(path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


async def test_no_key_in_a_url(far: httpx2.AsyncClient) -> None:
    for query in ("key=pw-ann", "token=pw-ann", "access_token=pw-ann"):
        assert (await far.get(f"/status?{query}")).status_code == 401


async def test_a_key_for_models_does_not_open_it(site: Site, far: httpx2.AsyncClient) -> None:
    site.keys.secrets[b"pw-client"] = "client"
    assert (await far.get("/status", headers={"Authorization": "Bearer pw-client"})).status_code == 401


async def test_a_login(site: Site, far: httpx2.AsyncClient) -> None:
    page = await far.get("/")
    assert page.status_code == 200 and 'type="password"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    wrong = await far.post("/login", data={"key": "no"})
    assert wrong.status_code == 401 and "no operator" in wrong.text and "set-cookie" not in wrong.headers
    browser = await log_in(far)
    assert "Playground" in (await far.get("/", headers=browser)).text
    assert (await far.post("/models/m1/park", headers=browser)).status_code == 200
    assert site.fleet.asked == ["park m1 None"]


async def test_a_logout(far: httpx2.AsyncClient) -> None:
    browser = await log_in(far)
    assert (await far.post("/logout", headers=browser)).status_code == 303
    assert (await far.get("/status", headers=browser)).status_code == 401


async def test_a_session_ends(site: Site, far: httpx2.AsyncClient) -> None:
    browser = await log_in(far)
    site.clock.skipped_us += (12 * 3600 - 60) * SECOND_US
    assert (await far.get("/status", headers=browser)).status_code == 200
    site.clock.skipped_us += 60 * SECOND_US
    assert (await far.get("/status", headers=browser)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://other.ops.example", "Sec-Fetch-Site": "same-site"},
        {"Origin": "null", "Sec-Fetch-Site": "none"},
    ],
)
async def test_pages_of_other_sites(site: Site, far: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    browser = await log_in(far)
    del browser["Sec-Fetch-Site"]
    answer = await far.post("/models/m1/park", headers={**browser, **headers})
    assert (answer.status_code, site.fleet.asked) == (403, [])
    assert "pass the header Host on" in answer.text


async def test_revoked_keys_end_sessions_and_streams(site: Site, far: httpx2.AsyncClient) -> None:
    browser = await log_in(far)
    async with far.stream("GET", "/events", headers=browser) as events, asyncio.timeout(5):
        lines = aiter(events.aiter_lines())
        await anext(lines)
        site.operators.secrets.clear()
        [feed] = site.fleet.feeds
        feed.items.put_nowait(7)
        assert not [line async for line in lines if "7" in line]
    assert (await far.get("/status", headers=browser)).status_code == 401


async def test_sessions_are_bounded(far: httpx2.AsyncClient) -> None:
    first = await log_in(far)
    for _ in range(256):
        last = await log_in(far)
    assert (await far.get("/status", headers=first)).status_code == 401
    assert (await far.get("/status", headers=last)).status_code == 200
