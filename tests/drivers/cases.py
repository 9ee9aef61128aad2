"""Every way of parking, as the contract suite sees it. A new driver is a factory and a line in `CASES`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports import Driver
from poorwill.core.words import Tier
from poorwill.drivers.cold import ColdDriver
from poorwill.drivers.criu import Criu
from poorwill.drivers.frozen import FrozenDriver
from poorwill.drivers.guest import Guest
from poorwill.drivers.qemu import Hypervisor
from poorwill.drivers.snapshot import SnapshotStore, store_root
from poorwill.drivers.space import Space

from .conftest import Fleet
from .virtual import new_machine


@dataclass
class Case:
    """One driver with what a test needs to know about it beyond the port."""

    fleet: Fleet
    driver: Driver
    cold: Driver
    """Starts replicas and lists running ones."""
    remembers: bool
    """Whether a woken engine still knows what it knew."""
    again: Callable[[Fleet], "Case"]
    """Makes the same case over a fleet of the same directory: a restarted poorwill."""

    async def start(self, launch: Launch, *, generation: int = 1) -> Running:
        return await self.cold.wake(
            self.fleet.cold(launch), launch, generation=generation, report=self.fleet.report
        )

    async def wake(self, parked: Parked, launch: Launch, *, generation: int) -> Running:
        return await self.driver.wake(
            parked, launch, generation=generation, report=self.fleet.report
        )

    def scratch(self) -> list[Path]:
        """Whatever a call may have left half done."""
        root = store_root(self.fleet.directory, self.driver.tier)
        return [*root.glob("*/.draft-*"), *root.glob("*/.wake-*")]


def cold_case(fleet: Fleet, criu: Criu | None = None) -> Case:
    driver = new_cold(fleet)
    return Case(fleet=fleet, driver=driver, cold=driver, remembers=False, again=cold_case)


def frozen_case(fleet: Fleet, criu: Criu) -> Case:
    return Case(
        fleet=fleet,
        driver=new_frozen(fleet, criu),
        cold=new_cold(fleet),
        remembers=True,
        again=lambda other: frozen_case(other, criu),
    )


def suspended_case(fleet: Fleet, hypervisor: Hypervisor, guest: Guest) -> Case:
    machine = new_machine(fleet, hypervisor, guest)
    return Case(
        fleet=fleet,
        driver=machine.suspended,
        cold=machine.cold,
        remembers=True,
        again=lambda other: suspended_case(other, hypervisor, guest),
    )


def new_cold(fleet: Fleet) -> ColdDriver:
    return ColdDriver(
        processes=fleet.processes, clock=fleet.clock, log=fleet.log, ready_limit_s=20.0
    )


def new_frozen(fleet: Fleet, criu: Criu, **changes: object) -> FrozenDriver:
    parts: dict[str, object] = {
        "criu": criu,
        "store": SnapshotStore(root=store_root(fleet.directory, Tier.FROZEN), tier=Tier.FROZEN),
        "space": Space(log=fleet.log),
        "processes": fleet.processes,
        "clock": fleet.clock,
        "log": fleet.log,
        "ready_limit_s": 20.0,
        **changes,
    }
    return FrozenDriver(**parts)  # type: ignore[arg-type]


def _cold(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return cold_case(fleet)


def _frozen(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return frozen_case(fleet, request.getfixturevalue("criu"))


def _suspended(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return suspended_case(
        fleet, request.getfixturevalue("hypervisor"), request.getfixturevalue("golden_guest")
    )


CASES: dict[str, Callable[[pytest.FixtureRequest, Fleet], Case]] = {
    "cold": _cold,
    "frozen": _frozen,
    "suspended": _suspended,
}

WITH_SNAPSHOT = ("frozen", "suspended")
"""The cases whose `Parked` has a `path`: a directory that can vanish and be damaged."""

EMULATED = ("suspended",)
"""Too slow for every run; test_suspended.py has what is particular to it."""


def params(names: Iterable[str]) -> list[object]:
    """Return the parameters for cases, the slow ones marked."""
    return [
        pytest.param(name, marks=pytest.mark.nightly if name in EMULATED else ()) for name in names
    ]


def hurt(path: Path, damage: str) -> bool:
    """Damage a file; return whether that changed anything."""
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
        return True
    if not data:
        return False
    if damage == "flip":
        middle = len(data) // 2
        data = data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]
    path.write_bytes({"flip": data, "truncate": data[:-1], "empty": b""}[damage])
    return True
