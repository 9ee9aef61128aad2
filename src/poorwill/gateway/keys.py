"""Who is let in: checks a presented key, and whether a listener may face the network.

A key is checked as soon as a request's head is complete, before its body is read.
"""

import ipaddress
from collections.abc import Sequence

from poorwill.core.errors import ErrorCode, Problem, RequestFault
from poorwill.core.ports.keys import KeyRing
from poorwill.core.settings import GatewaySettings


def key_name(keys: KeyRing, credential: bytes, *, public: bool) -> str:
    """Return the name of the key a request brought, empty if none is configured.

    Raises RequestFault(UNAUTHENTICATED), also if the listener is `public` and the last key was
    forgotten while it served. The secret appears in no message.
    """
    if not keys.required:
        if public:
            raise RequestFault(
                ErrorCode.UNAUTHENTICATED, "no API key is configured, which this public address needs"
            )
        return ""
    if not credential:
        raise RequestFault(
            ErrorCode.UNAUTHENTICATED,
            "an API key is needed: send `Authorization: Bearer KEY` or `x-api-key: KEY`",
        )
    name = keys.name_of(credential)
    if name is None:
        raise RequestFault(ErrorCode.UNAUTHENTICATED, "the API key is not known here")
    return name


def listener_problems(settings: GatewaySettings, *, keys_configured: bool) -> Sequence[Problem]:
    """Return why the listeners must not be bound as configured: a public address needs protection."""
    problems = []
    if not keys_configured and not is_loopback(settings.listen.host):
        problems.append(
            Problem(
                where="gateway.listen",
                what=f"{settings.listen.host} can be reached from outside, and no API key is configured",
                hint="add a key with `poorwill keys add NAME`, or listen on 127.0.0.1",
            )
        )
    if not is_loopback(settings.admin.host):
        problems.append(
            Problem(
                where="gateway.admin",
                what=f"{settings.admin.host} can be reached from outside; this listener asks no key",
                hint="listen on 127.0.0.1 and use an SSH tunnel or a proxy that authenticates",
            )
        )
    return problems


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
