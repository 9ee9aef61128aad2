"""What a served fleet owns: its directory, its clock, its drivers and its ledger."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.fleet_drivers import FleetDrivers
from poorwill.compose.drivers.snapshot_value import value_by_ledger
from poorwill.compose.drivers.tiers import open_drivers
from poorwill.compose.paths import ledger_path
from poorwill.core.format import counted
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings
from poorwill.core.words import ReplicaId
from poorwill.fleet.lock import Holding, hold_directory
from poorwill.gateway.acceptor import MOST_DESCRIPTORS
from poorwill.hosts.files.aside import aside
from poorwill.hosts.processes.prctl import subreaper, undumpable
from poorwill.ledger.ledger import Ledger, last_instant_us, open_ledger
from poorwill.ledger.rates import sync_rates

MOST_THREADS = 256
"""Made as they are needed. A disk that stalls holds one for each engine that uses it; other engines, on other
disks, need some as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResources:
    """What a served fleet owns: nobody else may touch its directory meanwhile."""

    holding: Holding
    clock: SystemClock
    fleet_drivers: FleetDrivers
    ledger: Ledger
    priorities: dict[ReplicaId, int]
    """Whose snapshots are kept rather than others'."""


@asynccontextmanager
async def fleet_resources(
    settings: FleetSettings, *, env: Mapping[str, str], log: Log
) -> AsyncIterator[FleetResources]:
    """Take the directory, start the clock, find the drivers that work here and open the ledger."""
    _raise_descriptor_limit()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(MOST_THREADS))
    directory = Path(settings.directory)
    with hold_directory(directory, what="poorwill serve") as holding, subreaper(), undumpable():
        if told := holding.told_before():
            log.warning("the last shutdown left something undone", left=told)
        path = ledger_path(settings)
        clock = SystemClock.started(not_before_us=last_instant_us(path))
        priorities = {id: model.priority for model in settings.models for id in model.replica_ids}
        value = value_by_ledger(path, priorities=priorities, clock=clock, log=log)
        fleet_drivers = await open_drivers(settings, env=env, clock=clock, log=log, value=value)
        async with (
            with_hosts(fleet_drivers, settings, clock=clock, log=log) as fleet_drivers,
            _open_ledger(path, clock=clock, log=log, leave=holding.leave) as ledger,
        ):
            for told in await ledger.thread.call(
                lambda db: sync_rates(db, settings.rates, now_us=clock.now_us())
            ):
                log.info("rates", what=told)
            yield FleetResources(
                holding=holding,
                clock=clock,
                fleet_drivers=fleet_drivers,
                ledger=ledger,
                priorities=priorities,
            )


@asynccontextmanager
async def with_hosts(
    fleet_drivers: FleetDrivers, settings: FleetSettings, *, clock: Clock, log: Log
) -> AsyncIterator[FleetDrivers]:
    """Add the drivers of other hosts, if the fleet has any, and keep in contact with them meanwhile."""
    if settings.hosts is None:
        yield fleet_drivers
        return
    from poorwill.compose.drivers.on_hosts import drivers_on_hosts

    async with drivers_on_hosts(fleet_drivers, settings, settings.hosts, clock=clock, log=log) as both:
        yield both


@asynccontextmanager
async def _open_ledger(
    path: str, *, clock: Clock, log: Log, leave: Callable[[Sequence[str]], None]
) -> AsyncIterator[Ledger]:
    """Open the ledger; at the end, tell `leave` what could not be written into it."""
    ledger: Ledger | None = None
    try:
        async with open_ledger(path, clock=clock, log=log) as ledger:
            yield ledger
    finally:
        if ledger is not None and ledger.thread.lost:
            lost, why = counted(ledger.thread.lost, "record"), ledger.unavailable
            await aside(leave, [f"the ledger lacks the last {lost}: it could not be written ({why})"])


def _raise_descriptor_limit() -> None:
    """Raise the process's soft limit of file descriptors, as far as it may be and makes sense.

    Not to any hard limit: engines inherit it, and programs that close every descriptor they might have would
    take minutes over a thousand million.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
