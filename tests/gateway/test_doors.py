"""Keys, addresses and the route table."""

from dataclasses import replace

import pytest

from poorwill.core.settings import Address, GatewaySettings
from poorwill.gateway.keys import is_loopback, listener_problems
from poorwill.gateway.routes import PREFLIGHT, ROUTES, Action, Listener, admin_routes, inference_route


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    settings = replace(GatewaySettings(), listen=Address(host, 0), admin=Address(host, 0))
    assert listener_problems(settings, keys_configured=False) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "", "127.0.0.1.x"])
def test_a_public_address_needs_keys(host: str) -> None:
    settings = replace(GatewaySettings(), listen=Address(host, 0))
    [problem] = listener_problems(settings, keys_configured=False)
    assert problem.where == "gateway.listen" and problem.hint
    assert listener_problems(settings, keys_configured=True) == []


def test_a_public_admin_is_a_problem() -> None:
    settings = replace(GatewaySettings(), admin=Address("0.0.0.0", 0))
    [problem] = listener_problems(settings, keys_configured=True)
    assert problem.where == "gateway.admin"


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
        (b"GET", b"/"),
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


def test_every_action_has_a_route() -> None:
    assert {route.action for route in (*ROUTES, PREFLIGHT)} == set(Action)
    assert {route.listener for route in ROUTES} == set(Listener)
    assert not any(route.needs_key for route in admin_routes())
    assert all(r.needs_key for r in ROUTES if r.path.startswith("/v1/"))
