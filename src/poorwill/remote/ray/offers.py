"""What a host has to offer: how it runs each model, and the disks that it keeps snapshots and weights on."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from poorwill.core.ports.driver import Driver, Report
from poorwill.core.ports.engine import Engine
from poorwill.core.ports.log import Log
from poorwill.core.settings import DeviceNeed, FleetSettings
from poorwill.core.words import ModelName, Tier
from poorwill.hosts.files.aside import aside
from poorwill.remote.ray.calls import SNAPSHOTS, WEIGHTS, Disk, HostOffer

DISKS_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What the host runs one model with."""

    drivers: Mapping[Tier, Driver]
    offer: HostOffer
    needs: DeviceNeed = field(default_factory=DeviceNeed)
    """The devices that each replica is given; none: it sees all, or what `env` says."""
    engine: Engine | None = None
    """None: the host cannot run the model, as the offer says."""
    fetch: Callable[[Report], Awaitable[None]] | None = None
    weights: Callable[[], int] = int
    """Returns the bytes of its files that lie here now. Blocks."""


Equip = Callable[[FleetSettings], Awaitable[Mapping[ModelName, Kit]]]
"""Makes the kits of a fleet's models. Raises PoorwillError."""


@dataclass(slots=True, kw_only=True, eq=False)
class HostDisks:
    """The disks of a host, looked at again and again: one that stalls must not hold up signs of life."""

    snapshots: Path
    weights: Path
    log: Log
    now: tuple[Disk, ...] = ()
    """As they were at the last look."""

    async def follow(self) -> None:
        """Keep `now` up to date until cancelled. Never raises otherwise."""
        while True:
            try:
                self.now = await aside(disks_of, self.snapshots, self.weights)
            except OSError as error:
                self.log.warning("cannot look at the disks", why=str(error))
            await asyncio.sleep(DISKS_S)


def disks_of(snapshots: Path, weights: Path) -> tuple[Disk, ...]:
    """Return what is left of the disks of snapshots and weights; a file system that holds both is one disk.

    A place that does not exist yet counts as the directory that it will be made in. Blocks. Raises OSError.
    """
    found: dict[int, Disk] = {}
    for what, place in ((SNAPSHOTS, snapshots), (WEIGHTS, weights)):
        path = next(each for each in (place, *place.parents) if each.exists())
        device = path.stat().st_dev
        if device in found:
            found[device] = msgspec.structs.replace(found[device], holds=(*found[device].holds, what))
            continue
        status = os.statvfs(path)
        found[device] = Disk(
            path=str(path),
            holds=(what,),
            free_bytes=status.f_bavail * status.f_frsize,
            total_bytes=status.f_blocks * status.f_frsize,
        )
    return tuple(found.values())
