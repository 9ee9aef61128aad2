"""What listeners need before they may face the network."""

from collections.abc import Sequence

from poorwill.core.problems import Problem
from poorwill.core.settings import GatewaySettings
from poorwill.core.settings.addresses import is_loopback


def listener_problems(
    settings: GatewaySettings, *, keys_configured: bool, operators: bool = False
) -> Sequence[Problem]:
    """Return why the listeners must not be bound as configured: a public address needs protection.

    `operators`: whether an operator's key is in use.
    """
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
                what=f"{settings.admin.host} can be reached from outside, and this listener asks for no key",
                hint="leave it on 127.0.0.1; remote_admin is for other machines (docs/remote-admin.md)",
            )
        )
    remote = settings.remote_admin
    if remote is not None and remote.behind_proxy == bool(remote.certificate and remote.private_key):
        problems.append(
            Problem(
                where="gateway.remote_admin",
                what="needs either certificate and private_key, or behind_proxy = true",
                hint="without TLS the key and all that operators see could be read on the way",
            )
        )
    if remote is not None and not operators:
        problems.append(
            Problem(
                where="gateway.remote_admin",
                what="nobody could use it: no operator has a key",
                hint="make one with `poorwill keys add NAME --operator`",
            )
        )
    return problems
