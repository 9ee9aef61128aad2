"""Which listeners may face the network."""

from dataclasses import replace

import pytest

from poorwill.config.rules.listeners import listener_problems
from poorwill.core.settings import Address, GatewaySettings
from poorwill.core.settings.addresses import is_loopback


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
