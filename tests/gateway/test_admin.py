"""The admin listener: status, metrics, events, wake and park, and who may not ask."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import Address
from poorwill.gateway.server import bound_socket

from .site import Site, post, running_site
from .toy_upstream import takes

ASK = {"model": "m1", "messages": []}


@pytest.fixture
async def admin(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=site.admin, trust_env=False) as client:
        yield client


async def test_status_shows_wake_intervals(admin: httpx2.AsyncClient) -> None:
    document = (await admin.get("/status")).json()
    assert document["status"] == "ok"
    [replica] = document["replicas"]
    assert (replica["model"], replica["state"], replica["held"]) == ("m1", "ready", 0)
    assert replica["since_s"] == pytest.approx(2, abs=0.5)
    interval = replica["wake"]
    assert (interval["p50_s"], interval["p95_s"], interval["max_s"]) == (0.5, 0.9, 1.25)
    assert interval["budget_s"] == 60


async def test_metrics_are_prometheus_text(site: Site, admin: httpx2.AsyncClient) -> None:
    await site.raw(post(ASK, headers=["Connection: close"]))
    await site.raw(b"nonsense\r\n\r\n")
    response = await admin.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert 'poorwill_requests_total{model="m1",outcome="ok",status="200"} 1' in lines
    assert 'poorwill_refused_total{code="invalid_request"} 1' in lines
    assert 'poorwill_tokens_total{model="m1",direction="out"} 3' in lines
    assert 'poorwill_request_seconds_count{model="m1"} 1' in lines
    assert 'poorwill_wake_max_seconds{model="m1",replica="m1-0"} 1.25' in lines
    described = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        if not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            assert name in described or base in described, line


async def test_wake_and_park_ask_the_fleet(site: Site, admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/models/m1/wake")).json() == {"model": "m1", "state": "ready"}
    assert (await admin.post("/models/m1/park?tier=frozen")).status_code == 200
    assert (await admin.post("/models/m1/park")).status_code == 200
    assert site.fleet.asked == ["wake m1", "park m1 frozen", "park m1 None"]


async def test_a_park_explains_another_tier(site: Site, admin: httpx2.AsyncClient) -> None:
    there = {"model": "m1", "state": "ready", "tier": None}
    assert (await admin.post("/models/m1/park")).json() == there
    site.fleet.last_error = "the disk is full"
    assert (await admin.post("/models/m1/park")).json() == there
    answer = (await admin.post("/models/m1/park?tier=frozen")).json()
    assert answer == {**there, "why": "the disk is full"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/models/nope/wake", 404, "model_not_found"),
        ("POST", "/models/m1/park?tier=lukewarm", 400, "invalid_request"),
        ("GET", "/nothing", 404, "route_not_found"),
        ("GET", "/models/m1/wake", 405, "method_not_allowed"),
    ],
)
async def test_admin_errors_have_the_usual_shape(
    admin: httpx2.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await admin.request(method, path)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["source"]) == (status, code, "poorwill")
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8081"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_page_on_another_site_cannot_ask(
    site: Site, admin: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    response = await admin.post("/models/m1/park", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
    assert site.fleet.asked == []


async def test_a_foreign_host_cannot_read(admin: httpx2.AsyncClient) -> None:
    response = await admin.get("/status", headers={"Host": "rebound.example"})
    assert response.status_code == 403


async def test_the_page_itself_may_ask(site: Site, admin: httpx2.AsyncClient) -> None:
    own = {"Origin": site.admin, "Sec-Fetch-Site": "same-origin"}
    assert (await admin.post("/models/m1/wake", headers=own)).status_code == 200
    local = {"Host": "localhost:8081"}
    assert (await admin.get("/healthz", headers=local)).status_code == 200


async def test_the_dashboard_has_a_strict_csp(admin: httpx2.AsyncClient) -> None:
    response = await admin.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_events_report_what_was_lost(site: Site, admin: httpx2.AsyncClient) -> None:
    async with admin.stream("GET", "/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines: list[str] = []
        async for line in response.aiter_lines():
            lines.append(line)
            if "lost" in line:
                break
    assert "event: Noted" in lines
    noted = next(line for line in lines if line.startswith("data: "))
    assert json.loads(noted.removeprefix("data: "))["text"] == "first"
    assert 'data: {"lost": 3}' in lines
    [feed] = site.fleet.feeds
    async with asyncio.timeout(5):
        await feed.over.wait()


async def test_open_streams_do_not_delay_the_end() -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        async with running_site() as site:
            request = client.build_request("GET", f"{site.admin}/events")
            response = await client.send(request, stream=True)
            await anext(aiter(response.aiter_lines()))
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1.5
        assert site.fleet.feeds[0].closed
        await response.aclose()


async def test_an_address_in_use_is_a_clear_error() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        with pytest.raises(OperatorFault) as caught:
            bound_socket("127.0.0.1", taken.getsockname()[1])
    assert caught.value.code is ErrorCode.IN_USE
    assert caught.value.message.startswith("cannot listen on 127.0.0.1:")
    assert caught.value.message.endswith(": Address already in use")
    assert "port 0" in str(caught.value.hint)


async def test_a_foreign_address_is_named() -> None:
    with pytest.raises(OperatorFault) as caught:
        bound_socket("192.0.2.1", 0)
    assert caught.value.hint == "this machine has no such address"


async def test_a_taken_admin_port_frees_the_other() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        with pytest.raises(OperatorFault):
            async with running_site(admin=Address(*taken.getsockname())):
                raise AssertionError("must not start")


async def test_health_shows_a_broken_ledger(site: Site, admin: httpx2.AsyncClient) -> None:
    site.ledger.unavailable = "disk full"
    assert (await admin.get("/healthz")).json()["ledger"] == "disk full"


async def test_the_lifetimes_end_in_order() -> None:
    """Accepting ends first; what is in flight goes on, until the server ends."""
    async with running_site(parked=True) as site:
        async with asyncio.TaskGroup() as group:
            held = group.create_task(site.raw(post(ASK)))
            await site.held()
            site.server.stop_accepting()
            with pytest.raises(OSError):
                await site.raw(post(ASK))
            draining = group.create_task(site.server.drained())
            await takes(0)
            assert site.server.active == 1 and not draining.done()
            site.wake()
        assert held.result().startswith(b"HTTP/1.1 200")


async def test_the_end_fails_what_is_held() -> None:
    async with asyncio.TaskGroup() as group:
        async with running_site(parked=True) as site:
            held = group.create_task(site.raw(post(ASK)))
            await site.held()
        received = await held
    assert received.startswith(b"HTTP/1.1 503 ") and b'"draining"' in received
    assert (await site.ledger.row()).outcome == "draining"


async def test_a_cancelled_server() -> None:
    sites: list[Site] = []
    serving = asyncio.Event()

    async def serve() -> None:
        async with running_site(parked=True) as site:
            sites.append(site)
            serving.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve())
        await serving.wait()
        [site] = sites
        held = group.create_task(site.raw(post(ASK)))
        await site.held()
        task.cancel()
    assert b'"draining"' in held.result()
    for port in (site.port, site.server.admin_address[1]):
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
    assert site.activator.queue == [] and site.activator.out == []


async def test_a_handler_defect_is_a_500() -> None:
    class Broken(Exception):
        pass

    with pytest.raises(AssertionError, match="failed by a defect"):
        async with running_site() as site:

            def claim(model: object, last: object) -> None:
                raise Broken("oh")

            site.activator.claim = claim  # type: ignore[method-assign, assignment]
            received = await site.raw(post(ASK, headers=["Connection: close"]))
            assert received.startswith(b"HTTP/1.1 500 ") and b'"internal"' in received
            assert b"oh" not in received
