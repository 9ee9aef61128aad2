"""The orphan sweep's judgement: what exists on the machine against what the ledger says is owned."""

from collections.abc import Iterable
from dataclasses import dataclass

from poorwill.core.launch import Parked, Running
from poorwill.core.ports.driver import Found
from poorwill.core.words import ReplicaId


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Where the ledger says a replica is; neither of the two: nothing of it exists but weights."""

    replica: ReplicaId
    running: Running | None = None
    parked: Parked | None = None

    def where(self) -> str:
        """Return it in words."""
        if self.running is not None:
            return self.running.where()
        return f"parked {self.parked.tier}: {self.parked.where()}" if self.parked else "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The differences, both ways."""

    orphans: tuple[Found, ...]
    """Exists, and nobody owns it."""
    missing: tuple[Owned, ...]
    """Owned, and does not exist."""
    unserved: tuple[Found, ...] = ()
    """Engines that run, owned, while no poorwill serves them."""


def compare(found: Iterable[Found], owned: Iterable[Owned]) -> Sweep:
    """Return the differences between an inventory of all drivers and the ledger.

    `Running.key` and `Parked.key` decide what is the same; a sleeping replica owns its process. A rented
    machine that is parked is nobody's orphan, whichever tier its replica is in: it is where it should be.
    """
    found, owned = tuple(found), tuple(owned)
    processes = {running.key(): each for each in owned for running in _runnings(each)}
    snapshots = {each.parked.key(): each for each in owned if each.parked is not None}
    orphans, seen = [], set()
    for each in found:
        owner = None
        if each.running is not None:
            owner = processes.get(each.running.key())
        elif each.parked is not None:
            owner = snapshots.get(each.parked.key())
        if owner is not None:
            seen.add(owner.replica)
        elif each.parked is None or each.parked.path is not None or not each.parked.machine:
            orphans.append(each)
    missing = [
        each
        for each in owned
        if each.replica not in seen and (each.running is not None or each.parked is not None)
    ]
    return Sweep(orphans=tuple(orphans), missing=tuple(missing))


def may_exist(parked: Parked, found: Iterable[Found]) -> bool:
    """Return whether what is parked was found in its place, or is on a host that could not be looked at."""
    wanted = parked.key(), parked.path
    return any(
        each.silent == parked.machine
        if each.silent
        else (one := each.parked) and (one.key(), one.path) == wanted
        for each in found
    )


def _runnings(owned: Owned) -> list[Running]:
    kept = owned.parked.running if owned.parked is not None else None
    return [running for running in (owned.running, kept) if running is not None]
