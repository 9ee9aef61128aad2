"""The orphan sweep's judgement: what exists on the machine against what the ledger says is owned."""

from collections.abc import Iterable
from dataclasses import dataclass

from poorwill.core.launch import Parked, Running
from poorwill.core.ports import Found
from poorwill.core.words import ReplicaId


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Where the ledger says a replica is; neither of the two: nothing of it exists but weights."""

    replica: ReplicaId
    running: Running | None = None
    parked: Parked | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The differences, both ways."""

    orphans: tuple[Found, ...]
    """Exists, and nobody owns it."""
    missing: tuple[Owned, ...]
    """Owned, and does not exist."""


def compare(found: Iterable[Found], owned: Iterable[Owned]) -> Sweep:
    """Return the differences between an inventory of all drivers and the ledger.

    A process is the same by pid and start time, a snapshot by replica, tier and generation; a sleeping
    replica owns its process.
    """
    found, owned = tuple(found), tuple(owned)
    processes = {_process(running): each for each in owned for running in _runnings(each)}
    snapshots = {_snapshot(each.parked): each for each in owned if each.parked is not None}
    orphans, seen = [], set()
    for each in found:
        owner = None
        if each.running is not None:
            owner = processes.get(_process(each.running))
        elif each.parked is not None:
            owner = snapshots.get(_snapshot(each.parked))
        if owner is None:
            orphans.append(each)
        else:
            seen.add(owner.replica)
    missing = [
        each
        for each in owned
        if each.replica not in seen and (each.running is not None or each.parked is not None)
    ]
    return Sweep(orphans=tuple(orphans), missing=tuple(missing))


def _runnings(owned: Owned) -> list[Running]:
    kept = owned.parked.running if owned.parked is not None else None
    return [running for running in (owned.running, kept) if running is not None]


def _process(running: Running) -> tuple[int, int]:
    return running.pid, running.pid_started


def _snapshot(parked: Parked) -> tuple[str, str, int]:
    return parked.replica, parked.tier, parked.generation
