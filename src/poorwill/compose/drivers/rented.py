"""The rented machines of a fleet, and the drivers that park and wake them at their clouds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver
from poorwill.core.ports.log import Log
from poorwill.core.settings import CloudSettings, FleetSettings
from poorwill.core.words import ModelName, Tier, replica_id
from poorwill.hosts.files.reach import reach_of
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.remote.clouds import hyperstack, scaleway
from poorwill.remote.clouds.aws import Aws
from poorwill.remote.clouds.cloud import Cloud
from poorwill.remote.clouds.driver import RentedDriver
from poorwill.remote.clouds.engines import RentedEngines
from poorwill.remote.clouds.gcp import Gcp
from poorwill.remote.clouds.hyperstack import Hyperstack
from poorwill.remote.clouds.machine import RentedMachine
from poorwill.remote.clouds.scaleway import Scaleway

CLOUDS: Mapping[str, Callable[[str, str], Cloud]] = MappingProxyType(
    {
        "hyperstack": lambda key, api: Hyperstack(key=key, api=api or hyperstack.API),
        "scaleway": lambda key, api: Scaleway(key=key, api=api or scaleway.API),
        "aws": lambda key, api: Aws(api=api),
        "gcp": lambda key, api: Gcp(api=api),
    }
)
"""How each provider's client is made of a key and the address of an API, empty for the usual one. Those
with an SDK import it with their first request."""

Accounts = dict[tuple[str, str, str], Cloud]
"""The clients made so far, by provider, key and address: an SDK's takes tens of megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rented:
    """What the models on rented machines have in place of this machine's drivers."""

    models: frozenset[ModelName]
    drivers: Mapping[Tier, Driver]
    engines: RentedEngines


def rented_machine(
    cloud: CloudSettings, env: Mapping[str, str], accounts: Accounts | None = None
) -> RentedMachine:
    """Return a machine; looks at nothing. Raises OperatorFault if its API key is not in `env`."""
    key = env.get(cloud.key_env, "") if cloud.key_env else ""
    if cloud.key_env and not key:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{cloud.key_env} is not set in the environment",
            hint=f"it holds the API key of {cloud.provider}",
        )
    account = cloud.provider, key, cloud.api
    known = accounts if accounts is not None else {}
    client = known[account] = known.get(account) or CLOUDS[cloud.provider](key, cloud.api)
    engine = cloud.engine
    return RentedMachine(
        cloud=client, id=cloud.machine, host=engine.host, port=engine.port, reach=reach_of(cloud, env)
    )


def rented_machines(settings: FleetSettings, *, env: Mapping[str, str], clock: Clock, log: Log) -> Rented:
    """Return the drivers of the fleet's rented machines; asks no cloud anything.

    Raises OperatorFault if an API key is not in `env`.
    """
    accounts: Accounts = {}
    machines = {
        replica_id(model.name): rented_machine(model.cloud, env, accounts)
        for model in settings.models
        if model.cloud is not None
    }
    exclusive = Exclusive()
    drivers: dict[Tier, Driver] = {
        tier: RentedDriver(into=tier, machines=machines, clock=clock, log=log, exclusive=exclusive)
        for tier in (Tier.HIBERNATED, Tier.COLD)
    }
    return Rented(
        models=frozenset(model.name for model in settings.models if model.cloud is not None),
        drivers=drivers,
        engines=RentedEngines(machines=machines, log=log),
    )
