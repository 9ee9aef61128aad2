"""The drivers of a fleet's other hosts, and the contact that is kept with them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from poorwill.compose.drivers.fleet_drivers import FleetDrivers, ModelDrivers
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, DriverError, Found
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings, HostsSettings
from poorwill.core.words import ModelName, Tier
from poorwill.remote.ray.calls import Call, Op, checked
from poorwill.remote.ray.cluster import Cluster, RayCluster
from poorwill.remote.ray.contact import Contact
from poorwill.remote.ray.drivers import HostsDriver, HostsEngine, HostsProcesses
from poorwill.remote.ray.hosts import Hosts
from poorwill.remote.ray.identity import tls_context
from poorwill.remote.ray.node import ray_environment

TIERS = (Tier.ASLEEP, Tier.FROZEN, Tier.SUSPENDED, Tier.COLD)
FOUND_S = 8.0
"""How long a start waits for its hosts: those that are late are silent, and adopted or swept later."""


@asynccontextmanager
async def drivers_on_hosts(
    here: FleetDrivers,
    settings: FleetSettings,
    named: HostsSettings,
    *,
    clock: Clock,
    log: Log,
    cluster: Cluster | None = None,
    found_s: float = FOUND_S,
) -> AsyncIterator[FleetDrivers]:
    """Add the drivers of the other hosts to those of this machine, and keep in contact with them meanwhile.

    `cluster` stands in for Ray's. Raises OperatorFault if the fleet's key cannot be used. Nothing that runs
    on a host ends with the context.
    """
    key = Path(named.key)
    connect = partial(Contact, tls=tls_context(key, server=False), clock=clock, log=log)
    contacts = {name: connect(name=name, address=at) for name, at in named.relays.items()}
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(contact.follow()) for contact in contacts.values()]
        if cluster is None:
            cluster = ray = RayCluster(
                head=str(named.head),
                namespace=f"poorwill-{hashlib.sha256(settings.directory.encode()).hexdigest()[:12]}",
                environment=ray_environment(key),
                log_path=Path(settings.directory, "ray.log"),
                log=log,
            )
            following.append(tasks.create_task(ray.run()))
        hosts = Hosts(
            cluster=cluster,
            contacts=contacts,
            settings=settings,
            clock=clock,
            log=log,
            since_us=clock.now_us(),
        )
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(found_s):
                    await asyncio.gather(*(contact.back() for contact in contacts.values()))
            await hosts.equip()
            here.elsewhere.update(_kits(hosts))
            yield replace(here, hosts=contacts)
        finally:
            for task in following:
                task.cancel()


async def found_on_hosts(named: HostsSettings, *, clock: Clock, log: Log) -> tuple[list[Found], list[str]]:
    """Return what exists on the hosts that answer, and the names of the others. Changes nothing."""
    tls, found, silent = tls_context(Path(named.key), server=False), list[Found](), list[str]()
    for name, address in named.relays.items():
        contact = Contact(name=name, address=address, tls=tls, clock=clock, log=log)
        try:
            async with asyncio.timeout(FOUND_S):
                for tier in TIERS:
                    answer = await contact.carry(Call(op=Op.INVENTORY, tier=tier))
                    found += checked(answer, name).found
        except (DriverError, TimeoutError) as error:
            log.warning("a host does not answer: what is there is not compared", host=name, why=str(error))
            silent.append(name)
    return found, silent


def _kits(hosts: Hosts) -> Mapping[ModelName, ModelDrivers]:
    processes = HostsProcesses(hosts=hosts)
    drivers: dict[Tier, Driver] = {
        tier: HostsDriver(name=tier.value, tier=tier, hosts=hosts) for tier in TIERS
    }
    return {
        model.name: ModelDrivers(
            drivers={tier: driver for tier, driver in drivers.items() if hosts.can(model.name, tier)},
            processes=processes,
            engine=HostsEngine(model=model, hosts=hosts),
            broken=hosts.broken(model.name),
        )
        for model in hosts.models.values()
    }
