"""Compares what exists of a fleet with what its ledger owns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.rented import rented_machines
from poorwill.compose.paths import ledger_path
from poorwill.core.launch import Parked, Running
from poorwill.core.ports.driver import Found
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings
from poorwill.core.words import Tier
from poorwill.fleet.lock import holder_of
from poorwill.fleet.sweeps.judgement import Owned, Sweep, compare
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.ledger.history.recovery import recovered
from poorwill.ledger.schema import reading
from poorwill.tiers.snapshots.store import SnapshotStore, store_root

IMAGE_TIERS = (Tier.FROZEN, Tier.SUSPENDED)


def images_of(directory: Path, tier: Tier) -> Sequence[Found]:
    """Return the images in a fleet's or a host's directory; none of a tier that has no image."""
    return SnapshotStore(root=store_root(directory, tier), tier=tier).found() if tier in IMAGE_TIERS else ()


async def sweep_fleet(settings: FleetSettings, *, env: Mapping[str, str], log: Log) -> tuple[Sweep, int]:
    """Return what is amiss, and how many things were found. Changes nothing."""
    found, silent = await _inventory(settings, env=env, log=log)
    with reading(ledger_path(settings)) as db:
        known = recovered(db).replicas
    owned = [
        Owned(
            replica=replica.replica,
            running=Running.from_json(placed.running_json) if placed.running_json else None,
            parked=Parked.from_json(placed.parked_json) if placed.parked_json else None,
        )
        for replica in known
        if (placed := replica.placed) is not None
    ]
    owned = [each for each in owned if (held := each.running or each.parked) and held.machine not in silent]
    sweep = compare(found, owned)
    if holder_of(Path(settings.directory)) is None:
        unserved = tuple(each for each in found if each.running is not None and each not in sweep.orphans)
        sweep = replace(sweep, unserved=unserved)
    return sweep, len(found)


async def _inventory(
    settings: FleetSettings, *, env: Mapping[str, str], log: Log
) -> tuple[Sequence[Found], Sequence[str]]:
    """Return what exists of the fleet, and hosts that do not answer. Reads only: it may be served now."""
    directory, clock = Path(settings.directory), SystemClock.started()
    processes = EngineProcesses(fleet=str(directory), clock=clock, log=log)
    found = [*processes.found(), *processes.left_behind()]
    found += [each for tier in IMAGE_TIERS for each in images_of(directory, tier)]
    for driver in rented_machines(settings, env=env, clock=clock, log=log).drivers.values():
        found += await driver.inventory()
    silent: list[str] = []
    if settings.hosts is not None:
        from poorwill.compose.drivers.on_hosts import found_on_hosts

        there, silent = await found_on_hosts(settings.hosts, clock=clock, log=log)
        found += there
    return found, silent
