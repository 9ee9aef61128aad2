"""Every way of parking, as the contract suite sees it. A new driver is a factory and a line in `CASES`."""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import pytest

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import Driver
from poorwill.core.words import Tier
from poorwill.engines.asking import Endpoint, greedy_text
from poorwill.engines.sleeping import engine_sleeps
from poorwill.hosts.guests.directory import Guest
from poorwill.tiers.cold.driver import ColdDriver
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.cuda import CudaState
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import SnapshotStore, store_root
from poorwill.tiers.suspended.qemu.program import Hypervisor

from . import sleepers
from .conftest import Fleet, ask
from .fake_aws import FakeAws
from .fake_cuda import FakeDevice
from .fake_gcp import FakeGcp
from .fake_hyperstack import FakeHyperstack
from .fake_scaleway import FakeScaleway
from .fake_world import FakeFleet
from .far import HOST, FarFleet
from .rented import RentedFleet
from .virtual import new_machine


class Memory(StrEnum):
    """What an engine still knows after it was parked and woken."""

    NOTHING = "nothing"  # it starts anew
    ALL = "all"  # it counts on where it was
    NO_STATE = "no state"  # it has none that could be asked for: the same question, the same answer


@dataclass
class Case:
    """One driver with what a test needs to know about it beyond the port."""

    fleet: Fleet | FakeFleet | RentedFleet | FarFleet
    driver: Driver
    cold: Driver
    """Starts replicas and lists running ones."""
    again: Callable[[Fleet], "Case"]
    """Makes the same case over a fleet of the same directory: a restarted poorwill."""
    memory: Memory = Memory.ALL
    make_launch: Callable[..., Launch] | None = None
    asking: Callable[[Running], str] = ask
    device: FakeDevice | None = None
    cycles: int = 20
    machine: str = ""
    """The host that its engines are on."""

    def launch(self, *, replica: str = "tiny") -> Launch:
        return (self.make_launch or self.fleet.launch)(replica=replica)

    async def start(self, launch: Launch, *, generation: int = 1) -> Running:
        return await self.cold.wake(
            self.fleet.cold(launch), launch, generation=generation, report=self.fleet.report
        )

    async def wake(self, parked: Parked, launch: Launch, *, generation: int) -> Running:
        return await self.driver.wake(parked, launch, generation=generation, report=self.fleet.report)

    def serves(self, running: Running, *, asked: int, woken: bool = True) -> None:
        """Ask the engine and see that the answer is right; it was `asked` so often, this time included.

        `woken`: it was asked only once since it was parked.
        """
        said = self.asking(running)
        if self.memory is Memory.NO_STATE:
            assert said and "!" not in said
        else:
            forgot = woken and self.memory is Memory.NOTHING
            assert said == ("1" if forgot else str(asked))
        if self.device is not None:
            state = self.device.state_of(running.pid)
            assert state in (CudaState.RUNNING, None), "it serves without its GPU"

    async def probe(self, running: Running) -> str:
        """What the fleet asks before a park and after a wake."""
        if isinstance(self.fleet, FakeFleet | FarFleet):
            return await self.fleet.probe(running)
        endpoint = Endpoint(host=running.host, port=running.port, model="tiny", extra={})
        return await greedy_text(endpoint)

    def lose(self, parked: Parked) -> None:
        """Make what the parked replica keeps vanish, as an accident would."""
        if isinstance(self.fleet, FakeFleet):
            return self.fleet.lose(parked)
        if parked.path is not None:
            shutil.rmtree(parked.path)
        if parked.running is not None:
            os.kill(parked.running.pid, signal.SIGKILL)
            os.waitpid(parked.running.pid, 0)

    def port_is_free(self, port: int) -> bool:
        """Whether nobody listens there."""
        if isinstance(self.fleet, FakeFleet):
            return self.fleet.port_is_free(port)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return probe.connect_ex(("127.0.0.1", port)) != 0

    def scratch(self) -> list[Path]:
        """Whatever a call may have left half done."""
        root = store_root(self.fleet.directory, self.driver.tier)
        return [*root.glob("*/.draft-*"), *root.glob("*/.wake-*")]


def cold_case(fleet: Fleet) -> Case:
    driver = new_cold(fleet)
    return Case(fleet=fleet, driver=driver, cold=driver, memory=Memory.NOTHING, again=cold_case)


def frozen_case(fleet: Fleet, criu: Criu) -> Case:
    return Case(
        fleet=fleet,
        driver=new_frozen(fleet, criu),
        cold=new_cold(fleet),
        again=lambda other: frozen_case(other, criu),
    )


def cuda_case(fleet: Fleet, criu: Criu, device: FakeDevice) -> Case:
    return Case(
        fleet=fleet,
        driver=new_frozen(fleet, criu, device=device),
        cold=new_cold(fleet),
        again=lambda other: cuda_case(other, criu, device),
        device=device,
        cycles=5,
    )


def asleep_case(fleet: Fleet, kind: str, model: Path) -> Case:
    return Case(
        fleet=fleet,
        driver=sleepers.new_asleep(fleet),
        cold=new_cold(fleet),
        again=lambda other: asleep_case(other, kind, model),
        memory=Memory.NO_STATE,
        make_launch=partial(sleepers.launch_of, fleet, kind, model),
        asking=sleepers.complete,
        cycles=20 if kind in sleepers.FAKES else 3,  # it takes a second to fall asleep
    )


def fake_case(fleet: FakeFleet, tier: Tier) -> Case:
    cold = fleet.driver(Tier.COLD)
    return Case(
        fleet=fleet,
        driver=cold if tier is Tier.COLD else fleet.driver(tier),
        cold=cold,
        again=lambda other: fake_case(other, tier),  # type: ignore[arg-type]
        memory=Memory.NO_STATE,
        asking=fleet.ask,
    )


def rented_case(fleet: RentedFleet, tier: Tier) -> Case:
    cold = fleet.driver(Tier.COLD)
    return Case(
        fleet=fleet,
        driver=cold if tier is Tier.COLD else fleet.driver(tier),
        cold=cold,
        again=lambda other: rented_case(other, tier),  # type: ignore[arg-type]
        memory=Memory.NOTHING,
        cycles=5,
    )


def far_case(fleet: FarFleet, tier: Tier) -> Case:
    return Case(
        fleet=fleet,
        driver=fleet.driver(tier),
        cold=fleet.driver(Tier.COLD),
        again=lambda other: far_case(other, tier),  # type: ignore[arg-type]
        memory=Memory.NOTHING if tier is Tier.COLD else Memory.ALL,
        asking=fleet.ask,
        cycles=5,
        machine=HOST,
    )


def suspended_case(fleet: Fleet, hypervisor: Hypervisor, guest: Guest) -> Case:
    machine = new_machine(fleet, hypervisor, guest)
    return Case(
        fleet=fleet,
        driver=machine.suspended,
        cold=machine.cold,
        again=lambda other: suspended_case(other, hypervisor, guest),
    )


def new_cold(fleet: Fleet) -> ColdDriver:
    return ColdDriver(processes=fleet.processes, clock=fleet.clock, log=fleet.log, ready_limit_s=20.0)


def new_frozen(fleet: Fleet, criu: Criu, **changes: object) -> FrozenDriver:
    parts: dict[str, object] = {
        "criu": criu,
        "store": SnapshotStore(root=store_root(fleet.directory, Tier.FROZEN), tier=Tier.FROZEN),
        "space": Space(log=fleet.log),
        "processes": fleet.processes,
        "clock": fleet.clock,
        "log": fleet.log,
        "sleeps": engine_sleeps(),
        "ready_limit_s": 20.0,
        **changes,
    }
    return FrozenDriver(**parts)  # type: ignore[arg-type]


MakeCase = Callable[[pytest.FixtureRequest, Fleet], Case]


def _cold(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return cold_case(fleet)


def _frozen(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return frozen_case(fleet, request.getfixturevalue("criu"))


def _cuda(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return cuda_case(fleet, request.getfixturevalue("criu"), FakeDevice())


def _suspended(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
    return suspended_case(
        fleet, request.getfixturevalue("hypervisor"), request.getfixturevalue("golden_guest")
    )


def _asleep(kind: str) -> MakeCase:
    return lambda request, fleet: asleep_case(fleet, kind, request.getfixturevalue("gguf"))


def _fake(tier: Tier) -> MakeCase:
    return lambda request, fleet: fake_case(FakeFleet(fleet.directory), tier)


def _rented(tier: Tier, cloud: type[FakeHyperstack] = FakeHyperstack) -> MakeCase:
    def make(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
        rented = RentedFleet.open(fleet.directory, cloud())
        request.addfinalizer(rented.cloud.close)
        return rented_case(rented, tier)

    return make


def _far(tier: Tier, fixture: str) -> MakeCase:
    def make(request: pytest.FixtureRequest, fleet: Fleet) -> Case:
        if tier is Tier.FROZEN:
            request.getfixturevalue("criu")  # installed, for the host to find
        return far_case(request.getfixturevalue(fixture), tier)

    return make


CASES: Mapping[str, MakeCase] = {
    "cold": _cold,
    "frozen": _frozen,
    "frozen with a GPU": _cuda,  # the fake of CUDA's six process states
    "suspended": _suspended,
    **{f"asleep {kind}": _asleep(kind) for kind in sleepers.PROGRAMS},
    # A fake of the cloud behind the real client or SDK; the engines are real processes.
    "hibernated": _rented(Tier.HIBERNATED),
    "hibernated, scaleway": _rented(Tier.HIBERNATED, FakeScaleway),
    "hibernated, aws": _rented(Tier.HIBERNATED, FakeAws),
    "hibernated, gcp": _rented(Tier.HIBERNATED, FakeGcp),
    "cold, rented": _rented(Tier.COLD),
    # From afar: the same drivers, in a host's service.
    "cold, on a host": _far(Tier.COLD, "beside_ray"),
    "cold, through Ray": _far(Tier.COLD, "through_ray"),
    "frozen, through Ray": _far(Tier.FROZEN, "through_ray"),
    # What the fleet is tested with.
    **{f"fake {tier}": _fake(tier) for tier in (Tier.COLD, Tier.FROZEN, Tier.ASLEEP)},
}


class Need(StrEnum):
    """What an item of the contract needs a parked replica to have."""

    IMAGE = "an image on disk"
    KEPT = "something kept, that can vanish"
    PORT = "a port that is free while it is parked"
    MEMORY = "its memory given back by the end of its process"


_SLEEPS = {
    Need.IMAGE: "it keeps its process and writes nothing",
    Need.PORT: "the process listens all along",
    Need.MEMORY: "the process stays; test_asleep.py looks at its memory",
}
_NOTHING = {
    Need.IMAGE: "nothing is left but the weights",
    Need.KEPT: "nothing is left but the weights",
}
_RENTED = {
    Need.IMAGE: "its cloud keeps the disk, and no image is poorwill's",
    Need.KEPT: "the machine is its owner's and is not thrown away",
    Need.PORT: "the port is the machine's own, which nobody here can take",
}
_CHOOSES = {Need.PORT: "the host takes another port than one that is in use"}
_FAKED = {
    Need.IMAGE: "its snapshots are records in memory",
    Need.PORT: "its ports are numbers that nobody listens on",
}
LACKS: Mapping[str, Mapping[Need, str]] = {
    "cold": _NOTHING,
    **{name: _SLEEPS for name in CASES if name.startswith("asleep")},
    **{name: _RENTED for name in CASES if name.startswith("hibernated") or name == "cold, rented"},
    **dict.fromkeys(("cold, on a host", "cold, through Ray"), _NOTHING | _CHOOSES),
    "fake cold": _FAKED | _NOTHING,
    "fake frozen": _FAKED,
    "fake asleep": _FAKED | _SLEEPS,
}
"""What does not apply to a case, and why. Each line is proved by `test_what_a_case_lacks_it_lacks`."""

SLOW = (
    *("suspended", "asleep llama.cpp", "cold, rented"),
    *("hibernated, scaleway", "hibernated, aws", "hibernated, gcp"),
    *("cold, through Ray", "frozen, through Ray"),
)
"""Emulated, falling asleep after a second, and the same driver again with another client or into another
tier: too slow for every run. test_suspended.py, test_asleep.py, test_scaleway.py, test_aws.py and test_gcp.py
have what is particular to them."""

GROUPS = {
    "suspended": "guest",
    "hibernated, aws": "moto",
    "hibernated, gcp": "google",
    "cold, through Ray": "ray",
    "frozen, through Ray": "ray",
}
"""What takes long to be made ready, and is made ready in one worker alone."""


def _marks(name: str) -> list[pytest.MarkDecorator]:
    group = [pytest.mark.xdist_group(GROUPS[name])] if name in GROUPS else []
    return [*group, *([pytest.mark.nightly] if name in SLOW else [])]


def params(names: Iterable[str] = CASES, *, need: Need | None = None) -> list[object]:
    """Return the parameters for the cases that have what is needed, the slow ones marked."""
    return [pytest.param(name, marks=_marks(name)) for name in names if need not in LACKS.get(name, {})]


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
