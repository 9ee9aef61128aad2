"""What listeners need before they may face the network."""

from collections.abc import Sequence

from poorwill.core.problems import Problem
from poorwill.core.settings import GatewaySettings
from poorwill.core.settings.addresses import is_loopback


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
