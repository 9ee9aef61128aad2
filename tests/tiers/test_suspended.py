"""The tier `suspended` with real virtual machines, beyond what the contract suite asks of every driver."""

# The tests look at files and run programs on purpose while nothing else is on the loop.
# ruff: noqa: ASYNC221, ASYNC240

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.compose.clock import SystemClock
from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import DriverError, SnapshotRefused
from poorwill.core.words import Phase, Tier
from poorwill.hosts.guests.directory import Guest
from poorwill.hosts.processes import procfs
from poorwill.tiers.snapshots.manifest import decode
from poorwill.tiers.snapshots.sealing import Sealer
from poorwill.tiers.suspended.golden import open_golden
from poorwill.tiers.suspended.qemu import program as qemu
from poorwill.tiers.suspended.qemu.program import Accelerator, Hypervisor, Layout, Memory

from .conftest import Fleet, ask, new_fleet
from .virtual import (
    Machine,
    debian,
    golden_guest,
    hypervisor,
    launch_on,
    machine,
    new_machine,
    without_golden,
)

__all__ = ["debian", "golden_guest", "hypervisor", "machine"]  # fixtures

DAY_US = 86_400 * 1_000_000


async def test_a_guest_remembers_through_three_parks(machine: Machine):
    machine = without_golden(machine)
    launch = launch_on(machine)
    running = await machine.start(launch)
    assert machine.runs.memory(running) is Memory.SHARED
    assert [mark.phase for mark in machine.fleet.marks] == [Phase.SPAWN, Phase.PROVISION]
    for cycle in range(1, 4):
        assert ask(running) == str(cycle)
        parked = await machine.suspended.park(running, launch, generation=cycle)
        assert procfs.read_stat(running.pid) is None
        assert list(machine.runs.directory.iterdir()) == []
        running = await machine.wake(parked, launch, generation=cycle + 1)
    assert ask(running) == "4"
    await machine.cold.park(running, launch, generation=4)
    assert machine.memory_files() == [] and machine.snapshots() == []


@pytest.mark.nightly
async def test_a_guests_snapshot_and_its_layout(machine: Machine):
    launch = launch_on(machine)
    layouts = []
    running = await machine.start(launch)
    for generation in (1, 2):
        parked = await machine.suspended.park(running, launch, generation=generation)
        assert parked.path is not None
        place = Path(parked.path)
        for path in (place, *place.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        manifest = decode((place / "manifest.json").read_bytes())
        layouts.append((manifest.extra["layout"], {file.name for file in manifest.files}))
        running = await machine.wake(parked, launch, generation=generation + 1)
    full = machine.runs.hypervisor.full_layout
    # From a golden image it has no file of its own at first; then it has, and parks by leaving it there.
    assert layouts == [(full, {"state"}), (Layout.RAM_FILE, {"ram", "state"})]
    await machine.cold.park(running, launch, generation=3)


@pytest.mark.nightly
async def test_guest_memory_may_be_in_no_file(fleet: Fleet, hypervisor: Hypervisor, golden_guest: Guest):
    machine = new_machine(fleet, hypervisor, golden_guest, in_file=False)
    launch = launch_on(machine)
    running = await machine.start(launch)
    for cycle in range(1, 3):
        assert ask(running) == str(cycle)
        assert machine.memory_files() == []
        parked = await machine.suspended.park(running, launch, generation=cycle)
        assert parked.path is not None
        assert b"Linux version" in Path(parked.path, "image", "state").read_bytes()
        running = await machine.wake(parked, launch, generation=cycle + 1)
        assert machine.runs.memory(running) is Memory.ANONYMOUS
    await machine.cold.park(running, launch, generation=3)


@pytest.mark.nightly
async def test_a_sealed_guest_hides_its_memory(fleet: Fleet, hypervisor: Hypervisor, golden_guest: Guest):
    machine = new_machine(fleet, hypervisor, golden_guest, in_file=False)
    machine.suspended.store.sealer = Sealer(key=b"k" * 32)
    launch = launch_on(machine)
    running = await machine.start(launch)
    assert ask(running) == "1"
    parked = await machine.suspended.park(running, launch, generation=1)
    assert parked.path is not None
    stored = Path(parked.path, "image", "state").read_bytes()
    assert b"Linux version" not in stored and machine.memory_files() == []
    running = await machine.wake(parked, launch, generation=2)
    assert ask(running) == "2"
    parked = await machine.suspended.park(running, launch, generation=3)
    machine.suspended.store.sealer = Sealer(key=b"x" * 32)
    with pytest.raises(SnapshotRefused, match="another key, or damage"):
        await machine.wake(parked, launch, generation=4)
    assert fleet.processes.found() == []


@pytest.mark.nightly
async def test_a_clear_memory_file_is_not_sealed(machine: Machine):
    launch = launch_on(machine)
    running = await machine.start(launch)
    parked = await machine.suspended.park(running, launch, generation=1)
    running = await machine.wake(parked, launch, generation=2)  # on a memory file now
    machine.suspended.store.sealer = Sealer(key=b"k" * 32)
    error = await _failure(machine.suspended.park(running, launch, generation=3))
    assert error.running == running and "in the clear already" in str(error)
    assert ask(running) == "1"


@pytest.mark.nightly
async def test_golden_replicas_share_no_writes(machine: Machine, golden_guest: Guest):
    image = Path(golden_guest.directory, "golden")
    before = {path.name: zlib.crc32(path.read_bytes()) for path in image.iterdir()}
    launches = [launch_on(machine, replica=f"r{number}") for number in range(3)]
    replicas = [await machine.start(launch) for launch in launches]
    for number, running in enumerate(replicas):
        for count in range(number + 1):
            assert ask(running) == str(count + 1)
    parked = [
        await machine.suspended.park(running, launch, generation=1)
        for running, launch in zip(replicas, launches, strict=True)
    ]
    for number, (one, launch) in enumerate(zip(parked, launches, strict=True)):
        running = await machine.wake(one, launch, generation=2)
        assert ask(running) == str(number + 2)
        await machine.cold.park(running, launch, generation=2)
    assert before == {path.name: zlib.crc32(path.read_bytes()) for path in image.iterdir()}


@dataclass
class LaterClock:
    """A clock that has run on while a replica was parked."""

    clock: SystemClock
    ahead_us: int = 0

    def now_us(self) -> int:
        return self.clock.now_us() + self.ahead_us


def clock_error_s(running: Running, clock: LaterClock) -> float:
    return float(ask(running, "/time")) - clock.now_us() / 1e6


@pytest.mark.nightly
async def test_the_clock_is_right_after_a_long_park(machine: Machine):
    clock = machine.runs.clock = LaterClock(machine.fleet.clock)
    launch = launch_on(machine)
    running = await machine.start(launch)
    assert abs(clock_error_s(running, clock)) < 0.5
    parked = await machine.suspended.park(running, launch, generation=1)
    clock.ahead_us = 90 * DAY_US
    running = await machine.wake(parked, launch, generation=2)
    assert abs(clock_error_s(running, clock)) < 0.5
    message, fields = machine.fleet.log.lines[-1][1:]
    assert message == "a guest's clock was set" and fields["behind_s"] == pytest.approx(90 * 86_400, abs=60)
    await machine.cold.park(running, launch, generation=2)


@pytest.mark.nightly
async def test_qemu_killed_in_a_save_leaves_nothing(machine: Machine):
    launch = launch_on(machine)
    running = await machine.start(launch)
    os.kill(running.pid, signal.SIGSTOP)
    async with asyncio.TaskGroup() as group:
        park = group.create_task(_failure(machine.suspended.park(running, launch, generation=1)))
        await until(lambda: list(machine.suspended.store.root.glob("*/.draft-*")))
        os.kill(running.pid, signal.SIGKILL)
    error = park.result()
    assert error.running is None
    assert machine.snapshots() == [] and machine.memory_files() == []
    assert list(machine.suspended.store.root.glob("*/.draft-*")) == []
    assert list(await machine.suspended.inventory()) == []


async def kill_qemu_once(machine: Machine, begun: Callable[[int], bool]) -> None:
    """SIGKILL the only QEMU as soon as `begun` says that it is in the middle of its work."""

    def at_work() -> int:
        pids = [found.running.pid for found in machine.fleet.processes.found() if found.running]
        return next((pid for pid in pids if begun(pid)), 0)

    os.kill(await until(at_work), signal.SIGKILL)


def bytes_read(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            name, _, value = line.partition(": ")
            if name == "rchar":
                return int(value)
    return 0


@pytest.mark.nightly
@pytest.mark.parametrize("when", ["as it starts", "halfway through the image"])
async def test_qemu_killed_in_a_restore_spends_it(machine: Machine, when: str):
    launch = launch_on(machine)
    running = await machine.start(launch)
    parked = await machine.suspended.park(running, launch, generation=1)
    half = 0 if when == "as it starts" else parked.image_bytes // 2
    async with asyncio.TaskGroup() as group:
        wake = group.create_task(_failure(machine.wake(parked, launch, generation=2)))
        killer = group.create_task(kill_qemu_once(machine, lambda pid: bytes_read(pid) >= half))
        await wake
        assert killer.done(), "it failed before it was killed"
    assert machine.fleet.processes.found() == []
    assert machine.snapshots() == [] and machine.memory_files() == []
    assert list(machine.runs.directory.iterdir()) == []
    assert list(machine.suspended.store.root.glob("*/.*")) == []
    with pytest.raises(SnapshotRefused, match="missing"):
        await machine.wake(parked, launch, generation=3)
    assert ask(await machine.start(launch, generation=4)) == "1"


@pytest.mark.nightly
async def test_a_slow_park_lets_the_guest_go_on(machine: Machine):
    launch = launch_on(machine)
    running = await machine.start(launch)
    machine.suspended.park_limit_s = 0.0
    error = await _failure(machine.suspended.park(running, launch, generation=1))
    assert error.running == running and machine.snapshots() == []
    assert ask(running) == "1"
    machine.suspended.park_limit_s = 60.0
    parked = await machine.suspended.park(running, launch, generation=2)
    assert ask(await machine.wake(parked, launch, generation=3)) == "2"


@pytest.mark.nightly
async def test_a_guest_outlives_poorwill(machine: Machine, hypervisor: Hypervisor, golden_guest: Guest):
    launch = launch_on(machine)
    running = await machine.start(launch)
    assert ask(running) == "1"
    assert procfs.read_stat(running.pid).session == running.pid  # a signal to poorwill's own spares it
    reborn = new_machine(machine.fleet.again(), hypervisor, golden_guest)
    (found,) = await reborn.cold.inventory()
    assert found.running == running
    parked = await reborn.suspended.park(found.running, launch, generation=1)
    assert ask(await reborn.wake(parked, launch, generation=2)) == "2"


@pytest.mark.nightly
async def test_recovery_lets_a_paused_guest_go_on(
    machine: Machine, hypervisor: Hypervisor, golden_guest: Guest
):
    launch = launch_on(machine)
    running = await machine.start(launch)
    # As far as a park gets before the kill: the guest stopped, a draft half written.
    async with machine.runs.monitor(running) as monitor:
        await monitor("stop")
    draft = machine.suspended.store.begin(launch.replica, 1)
    (draft.image / "state").write_bytes(b"half")
    reborn = new_machine(machine.fleet.again(), hypervisor, golden_guest)
    assert list(await reborn.suspended.inventory()) == []
    await reborn.suspended.recover()
    assert not draft.directory.exists()
    assert ask(running) == "1"


@pytest.mark.nightly
async def test_recovery_ends_an_empty_guest(machine: Machine):
    launch = launch_on(machine)
    machine.runs.make(launch, generation=1)
    running = machine.runs.start(
        launch,
        generation=1,
        driver="suspended",
        memory=Memory.ANONYMOUS,
        incoming=True,
        report=machine.fleet.report,
    )
    await machine.suspended.recover()
    assert procfs.read_stat(running.pid) is None
    assert list(machine.runs.directory.iterdir()) == []


@pytest.mark.nightly
async def test_recovery_removes_dead_runs_only(
    machine: Machine,
):
    launches = [launch_on(machine, replica=name) for name in ("gone", "here")]
    gone, here = [await machine.start(launch) for launch in launches]
    machine.fleet.processes.kill_now(gone)
    await machine.fleet.processes.gone(gone)
    await machine.suspended.recover()
    assert list(machine.runs.directory.iterdir()) == [machine.runs.path(here)]
    assert ask(here) == "1"


@pytest.mark.nightly
async def test_a_second_run_is_refused(machine: Machine):
    launch = launch_on(machine)
    running = await machine.start(launch)
    with pytest.raises(DriverError, match=f"port {launch.port}"):
        await machine.start(launch, generation=2)
    elsewhere = replace(launch, port=launch_on(machine).port)
    with pytest.raises(DriverError, match="runs already"):
        await machine.start(elsewhere, generation=2)
    assert ask(running) == "1"


@pytest.mark.nightly
async def test_each_guest_mismatch_has_a_message(
    machine: Machine, golden_guest: Guest, hypervisor: Hypervisor
):
    launch = launch_on(machine)
    parked = await machine.suspended.park(await machine.start(launch), launch, generation=1)
    other_guest = replace(golden_guest, digest="0" * 64)
    newer = replace(hypervisor, version=(99, 0, 0))
    accelerated = replace(hypervisor, accelerator=Accelerator.KVM)
    for changed, fleets_guest, fleets_qemu, why in (
        (launch, other_guest, hypervisor, "its guest was built anew"),
        (launch, golden_guest, newer, "tool: the snapshot has qemu .* now it is qemu 99.0.0 tcg"),
        (launch, golden_guest, accelerated, "now it is qemu .* kvm"),
        (replace(launch, digest="sha256:other"), golden_guest, hypervisor, "model digest"),
        (replace(launch, argv=("/bin/other",)), golden_guest, hypervisor, "engine arguments"),
    ):
        reborn = new_machine(machine.fleet, fleets_qemu, fleets_guest)
        with pytest.raises(SnapshotRefused, match=why):
            await reborn.wake(parked, changed, generation=2)
    assert ask(await machine.wake(parked, launch, generation=2)) == "1"


@pytest.mark.nightly
async def test_a_long_directory_name_works(tmp_path: Path, hypervisor: Hypervisor, golden_guest: Guest):
    fleet = new_fleet(tmp_path / ("long" * 40))
    machine = new_machine(fleet, hypervisor, golden_guest)
    launch = launch_on(machine)
    running = await machine.start(launch)
    parked = await machine.suspended.park(running, launch, generation=1)
    running = await machine.wake(parked, launch, generation=2)
    assert ask(running) == "1"
    await machine.cold.park(running, launch, generation=2)


@pytest.mark.nightly
async def test_a_guest_beyond_the_disk_is_refused(
    machine: Machine, hypervisor: Hypervisor, golden_guest: Guest
):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = machine.fleet.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "poorwill", str(small)], check=True)
    try:
        cramped = new_machine(new_fleet(small), hypervisor, golden_guest)
        launch = launch_on(machine)
        with pytest.raises(DriverError, match="the disk is full"):
            cramped.runs.make(launch, generation=1, ram_bytes=208 * 2**20)
        assert list((small / "runs").iterdir()) == []
        running = await cramped.start(launch)  # from the golden image it needs no file of its own
        error = await _failure(cramped.suspended.park(running, launch, generation=1))
        assert error.running == running and "no room" in str(error)
        assert ask(running) == "1"
        await cramped.cold.park(running, launch, generation=1)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.nightly
async def test_a_stale_golden_image_is_ignored(machine: Machine, golden_guest: Guest):
    bare = without_golden(machine)
    home = Path(bare.runs.guests[launch_on(machine).model].directory)
    shutil.copytree(Path(golden_guest.directory, "golden"), home / "golden")
    os.truncate(home / "golden" / qemu.RAM, 4096)
    launch = launch_on(bare)
    running = await bare.start(launch)
    assert ask(running) == "1"
    levels = [(level, message) for level, message, _ in bare.fleet.log.lines]
    assert ("warning", "a golden image is left aside") in levels
    await bare.cold.park(running, launch, generation=1)


@pytest.mark.nightly
async def test_golden_weights_must_be_current(machine: Machine, golden_guest: Guest, tmp_path: Path):
    model = tmp_path / "model"
    model.write_bytes(b"new weights")
    assert open_golden(golden_guest, machine.runs.hypervisor) is not None
    with pytest.raises(DriverError, match="the model file has changed since"):
        open_golden(replace(golden_guest, disk=str(model)), machine.runs.hypervisor)


@dataclass
class NotedSleep:
    """An engine's sleep that only notes what it is told."""

    told: list[str] = field(default_factory=list)

    def refusal(self, launch: Launch) -> str:
        return ""

    async def sleep(self, running: Running, launch: Launch) -> None:
        self.told.append("sleep")

    async def wake(self, running: Running, launch: Launch) -> None:
        self.told.append("wake")


@pytest.mark.nightly
async def test_an_engine_suspended_asleep_is_woken(machine: Machine):
    noted = NotedSleep()
    machine.suspended.sleeps = {"tiny": noted}
    launch = replace(launch_on(machine), sleep="tiny")
    running = await machine.start(launch)
    asleep = Parked(replica=launch.replica, generation=1, tier=Tier.ASLEEP, running=running)
    parked = await machine.suspended.descend(asleep, launch, generation=2)
    assert parked.tier is Tier.SUSPENDED and noted.told == []
    running = await machine.wake(parked, launch, generation=3)
    assert noted.told == ["wake"] and machine.fleet.marks[-1].phase is Phase.ENGINE_WAKE
    parked = await machine.suspended.park(running, launch, generation=3)
    await machine.wake(parked, launch, generation=4)
    assert noted.told == ["wake"]


@pytest.mark.nightly
async def test_the_guest_reaches_nothing_outside(machine: Machine):
    launch = launch_on(machine)
    argv = qemu.command(
        machine.runs.hypervisor,
        machine.runs.guest(launch),
        host=launch.host,
        port=launch.port,
        log_path=launch.log_path,
        memory=Memory.SHARED,
    )
    network = argv[argv.index("-netdev") + 1]
    assert "restrict=on" in network and network.count("hostfwd") == 1


@pytest.mark.nightly
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
async def test_a_damaged_guest_image_is_refused(machine: Machine, tmp_path: Path, damage: str):
    launch = launch_on(machine)
    running = await machine.start(launch)
    parked = await machine.suspended.park(running, launch, generation=1)
    parked = await machine.suspended.park(
        await machine.wake(parked, launch, generation=2), launch, generation=2
    )
    assert parked.path is not None
    place, pristine = Path(parked.path), tmp_path / "pristine"
    place.rename(pristine)
    for name in ("image/ram", "image/state", "manifest.json"):
        shutil.rmtree(place, ignore_errors=True)
        for claim in place.parent.glob("woken-*"):
            claim.unlink()
        shutil.copytree(pristine, place)
        hurt(place / name, damage)
        with pytest.raises(SnapshotRefused):
            await machine.wake(parked, launch, generation=3)
        assert machine.fleet.processes.found() == []
        assert list(machine.runs.directory.iterdir()) == []


def hurt(path: Path, damage: str) -> None:
    if damage == "remove":
        path.unlink()
        return
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "truncate":
            file.truncate(size - 1)
        else:
            file.seek(size // 2)
            byte = file.read(1)[0]
            file.seek(size // 2)
            file.write(bytes([byte ^ 0x10]))


async def _failure(call) -> DriverError:
    try:
        result = await call
    except DriverError as error:
        return error
    raise AssertionError(f"it did not fail: {result!r}")
