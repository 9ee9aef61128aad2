"""A fleet's snapshot stores, by tier, and the disk space they share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings
from poorwill.core.words import ReplicaId, Tier
from poorwill.tiers.snapshots.sealing import Sealer
from poorwill.tiers.snapshots.space import Space, Value, all_alike
from poorwill.tiers.snapshots.store import SnapshotStore, store_root

TIERS = (Tier.FROZEN, Tier.SUSPENDED)
"""The tiers that keep an image on this machine's disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    """The stores of a fleet. Whoever parks into one of them asks `space` first."""

    stores: Mapping[Tier, SnapshotStore]
    space: Space


def fleet_snapshots(
    settings: FleetSettings,
    *,
    log: Log,
    sealer: Sealer | None = None,
    value: Callable[[ReplicaId, Tier], Value] = all_alike,
) -> Snapshots:
    """Return the stores, also those of tiers that no ladder names any more: what is there counts."""
    directory = Path(settings.directory)
    stores = {
        tier: SnapshotStore(root=store_root(directory, tier), tier=tier, sealer=sealer) for tier in TIERS
    }
    space = Space(
        log=log,
        quota_bytes=settings.snapshot_quota_bytes,
        stores=tuple(stores.values()),
        value=value,
    )
    return Snapshots(stores=stores, space=space)
