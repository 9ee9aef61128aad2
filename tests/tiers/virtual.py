"""Virtual machines for the driver tests: QEMU (installed where it may be) and a guest with the tiny engine in
it, saved once it is ready, so that a test starts in a fraction of a second instead of a boot's seconds."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from poorwill.core.errors import OperatorFault
from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.words import ModelName, Tier
from poorwill.hosts.guests.build import PORT, GuestPlan, build_guest
from poorwill.hosts.guests.directory import Guest
from poorwill.hosts.guests.kernel import Kernel, fetch_busybox, fetch_kernel
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.tiers.proof import free_port
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import SnapshotStore, store_root
from poorwill.tiers.suspended.cold import QemuColdDriver
from poorwill.tiers.suspended.driver import SuspendedDriver
from poorwill.tiers.suspended.golden import make_golden
from poorwill.tiers.suspended.qemu.program import BINARY, Hypervisor, find_hypervisor
from poorwill.tiers.suspended.qemu.runs import QemuRuns

from .conftest import TINY_ENGINE, Fleet, new_fleet

TINY = ModelName("tiny")
CACHE = Path.home() / ".cache" / "poorwill" / "guest"
BOOT_LIMIT_S = 120.0
APT_LOCKS = ("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")
PACKAGE_LOCK_S = 600
"""How long to wait for another program that is installing packages."""


@dataclass
class Machine:
    """A fleet whose replicas run in virtual machines."""

    fleet: Fleet
    runs: QemuRuns
    cold: QemuColdDriver
    suspended: SuspendedDriver
    exclusive: Exclusive = field(default_factory=Exclusive)

    async def start(self, launch: Launch, *, generation: int = 1) -> Running:
        return await self.cold.wake(
            self.fleet.cold(launch), launch, generation=generation, report=self.fleet.report
        )

    async def wake(self, parked: Parked, launch: Launch, *, generation: int) -> Running:
        return await self.suspended.wake(parked, launch, generation=generation, report=self.fleet.report)

    def snapshots(self) -> list[Path]:
        """Every directory that has a snapshot's name."""
        return [path for path in self.suspended.store.root.glob("*/*") if path.name.isdecimal()]

    def memory_files(self) -> list[Path]:
        return list(self.fleet.directory.rglob("ram"))


def new_machine(fleet: Fleet, hypervisor: Hypervisor, guest: Guest, *, in_file: bool = True) -> Machine:
    exclusive = Exclusive()
    runs = QemuRuns(
        hypervisor=hypervisor,
        guests={TINY: guest},
        processes=fleet.processes,
        directory=fleet.directory / "runs",
        clock=fleet.clock,
        log=fleet.log,
        ready_limit_s=BOOT_LIMIT_S,
    )
    store = SnapshotStore(root=store_root(fleet.directory, Tier.SUSPENDED), tier=Tier.SUSPENDED)
    return Machine(
        fleet=fleet,
        runs=runs,
        cold=QemuColdDriver(runs=runs, in_file=in_file, exclusive=exclusive),
        suspended=SuspendedDriver(
            runs=runs,
            store=store,
            space=Space(log=fleet.log),
            in_file=in_file,
            exclusive=exclusive,
        ),
        exclusive=exclusive,
    )


@pytest.fixture(scope="session")
def hypervisor() -> Hypervisor:
    """The installed QEMU with software emulation; as root it is installed where it is missing."""
    if shutil.which(BINARY) is None:
        _install_qemu()
    return asyncio.run(find_hypervisor())


@pytest.fixture(scope="session")
def debian() -> tuple[Kernel, Path]:
    """A Debian kernel and busybox to build guests from, downloaded once for this user."""
    if shutil.which("apt-get") is None:
        pytest.skip("guests are built from Debian packages; there is no apt-get here")
    try:
        return fetch_kernel(CACHE), fetch_busybox(CACHE)
    except OperatorFault as fault:
        pytest.skip(f"a guest's kernel cannot be had: {fault}")


@pytest.fixture(scope="session")
def golden_guest(
    hypervisor: Hypervisor, debian: tuple[Kernel, Path], tmp_path_factory: pytest.TempPathFactory
) -> Guest:
    """A guest with the tiny engine in it and a golden image. The one boot of the session."""
    home = tmp_path_factory.mktemp("guest")
    argv = (sys.executable, "-I", "-S", str(TINY_ENGINE), str(PORT), "--host", "0.0.0.0")
    plan = GuestPlan(
        directory=home / "tiny", engine="tiny", argv=argv, scripts=(TINY_ENGINE,), memory_mib=208
    )
    guest = build_guest(plan, kernel=debian[0], busybox=debian[1])
    fleet = new_fleet(home / "fleet")
    machine = new_machine(fleet, hypervisor, guest)
    launch = fleet.launch()
    asyncio.run(make_golden(machine.runs, machine.cold, launch, report=fleet.report))
    return guest


@pytest.fixture
def machine(fleet: Fleet, hypervisor: Hypervisor, golden_guest: Guest) -> Machine:
    return new_machine(fleet, hypervisor, golden_guest)


def without_golden(machine: Machine) -> Machine:
    """The same machine with a guest that has no golden image, so that it boots."""
    guest = machine.runs.guests[TINY]
    bare = Path(machine.fleet.directory, "bare")
    bare.mkdir()
    for path in (guest.kernel, guest.initrd):
        os.link(path, bare / Path(path).name)
    bare_guest = replace(guest, directory=str(bare), kernel=str(bare / "kernel"), initrd=str(bare / "initrd"))
    return new_machine(machine.fleet, machine.runs.hypervisor, bare_guest)


def launch_on(machine: Machine, *, replica: str = "tiny") -> Launch:
    return machine.fleet.launch(replica=replica, port=free_port())


def _install_qemu() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("QEMU is not installed; apt-get install qemu-system-x86")
    policy = subprocess.run(
        ["apt-cache", "policy", "qemu-system-x86"], capture_output=True, text=True, timeout=60
    ).stdout
    for lock in APT_LOCKS:  # another apt holds them while it downloads, and install does not wait for these
        with open(lock, "a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
    newest = ["-t", "bookworm-backports"] if "bookworm-backports" in policy else []
    done = subprocess.run(
        [
            *("apt-get", "-o", f"DPkg::Lock::Timeout={PACKAGE_LOCK_S}", "install", "-y", "-q"),
            *("--no-install-recommends", *newest, "qemu-system-x86"),
        ],
        capture_output=True,
        text=True,
        timeout=PACKAGE_LOCK_S + 300,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        pytest.skip(f"QEMU cannot be installed: {done.stderr[-200:]}")
