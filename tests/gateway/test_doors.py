"""Keys and the route table."""

import asyncio

import pytest

from poorwill.gateway.routes import PREFLIGHT, ROUTES, Action, Listener, admin_routes, inference_route

from .site import post, running_site
from .talk import talk
from .toy_upstream import Asked

KEYS = {b"alices": "alice", b"bobs": "bob"}


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        (b"POST", b"/v1/chat/completions", Action.RELAY),
        (b"POST", b"/v1/messages", Action.RELAY),
        (b"POST", b"/v1/audio/speech", Action.RELAY),
        (b"DELETE", b"/v1/responses/r1", Action.RELAY),
        (b"GET", b"/v1/models", Action.LIST_MODELS),
        (b"HEAD", b"/v1/models", Action.LIST_MODELS),
        (b"GET", b"/v1/models/a/b", Action.SHOW_MODEL),
        (b"GET", b"/healthz", Action.HEALTH),
    ],
)
def test_the_inference_listener_answers(method: bytes, path: bytes, action: Action) -> None:
    route = inference_route(method, path)
    assert route is not None and route.action is action


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"GET", b"/nowhere"),
        (b"GET", b"/metrics"),
        (b"POST", b"/models/m1/park"),
        (b"HEAD", b"/v1/chat/completions"),
        (b"OPTIONS", b"/v1/chat/completions"),
        (b"POST", b"/v1/"),
        (b"POST", b"/v2/chat"),
    ],
)
def test_inference_does_not_answer(method: bytes, path: bytes) -> None:
    assert inference_route(method, path) is None


async def test_a_key_has_its_share_of_requests() -> None:
    ask = {"model": "m1", "messages": []}
    async with (
        running_site(parked=True, keys=KEYS, max_requests_per_key=1) as site,
        talk(site.port) as first,
        talk(site.port) as second,
    ):
        first.send(post(ask, headers=["Authorization: Bearer alices"]))
        await site.held()
        second.send(post(ask, headers=["Authorization: Bearer alices"]))
        response = await second.answer()
        assert (response.status, response.error()["code"]) == (429, "rate_limited")
        second.send(post(ask, headers=["Authorization: Bearer bobs"]))
        await site.held(2)
        site.wake()
        assert ((await first.answer()).status, (await second.answer()).status) == (200, 200)


async def test_a_revoked_keys_requests_end() -> None:
    keys, limits = dict(KEYS), {"head_timeout_us": 100_000, "commit_after_us": 30_000_000}
    async with running_site(parked=True, keys=keys, **limits) as site, talk(site.port) as client:
        client.send(post({"model": "m1"}, headers=["Authorization: Bearer alices"]))
        await site.held()
        del keys[b"alices"]
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (401, "unauthenticated")
        assert not site.activator.queue


async def test_overlong_requests_end() -> None:
    async def never(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    limits = {"head_timeout_us": 100_000, "max_request_us": 50_000}
    async with running_site(never, **limits) as site, talk(site.port) as client:
        client.send(post({"model": "m1", "messages": []}))
        response = await client.answer()
        assert (response.status, response.error()["code"]) == (504, "upstream_timeout")


def test_every_action_has_a_route() -> None:
    assert {route.action for route in (*ROUTES, PREFLIGHT)} == set(Action)
    assert {route.listener for route in ROUTES} == set(Listener)
    assert not any(route.needs_key for route in admin_routes())
    assert all(r.needs_key for r in ROUTES if r.path.startswith("/v1/"))
