"""Golden images: a guest saved once it was ready, from which any number of replicas start instead of booting.

The memory file is mapped privately: replicas share its pages until they write to them, no
replica sees what another writes, and the file never changes. Each gets the host's time and fresh random
numbers as it starts.
"""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from poorwill.core.launch import Launch, Parked
from poorwill.core.ports.driver import Driver, DriverError, Report
from poorwill.core.words import Tier
from poorwill.hosts.guests.directory import Guest
from poorwill.tiers.snapshots.image_files import sync_directory, sync_file
from poorwill.tiers.snapshots.manifest import HostFacts
from poorwill.tiers.suspended.qemu import program as qemu
from poorwill.tiers.suspended.qemu.program import Accelerator, Hypervisor, Layout
from poorwill.tiers.suspended.qemu.runs import QemuRuns

DIRECTORY = "golden"
RECORD = "golden.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One guest's golden image and what it was made with."""

    directory: str
    tool: str
    guest: str
    machine: HostFacts
    ram_bytes: int
    disk_mark: str = ""
    """Size and time of the model file whose weights are in the memory."""

    @property
    def ram(self) -> str:
        """Return the memory file's path."""
        return str(Path(self.directory, qemu.RAM))


def open_golden(guest: Guest, hypervisor: Hypervisor) -> Golden | None:
    """Return the guest's golden image, None if it has none.

    Raises DriverError with the reason if it has one that does not fit.
    """
    home = Path(guest.directory, DIRECTORY)
    try:
        written = msgspec.json.decode((home / RECORD).read_bytes(), type=Golden)
        golden = replace(written, directory=str(home))  # a guest's directory may be moved
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise DriverError(f"the golden image {home} cannot be used: {error}") from error
    reasons = []
    if golden.guest != guest.digest:
        reasons.append("the guest was built anew since")
    if golden.tool != hypervisor.named:
        reasons.append(f"it was made with {golden.tool}, now there is {hypervisor.named}")
    if golden.disk_mark != _disk_mark(guest):
        reasons.append("the model file has changed since")
    if hypervisor.accelerator is Accelerator.KVM and golden.machine != HostFacts.read():
        reasons.append("it was made on another processor or kernel")
    if not Path(golden.ram).is_file() or os.stat(golden.ram).st_size != golden.ram_bytes:
        reasons.append("its memory file is not what was written")
    if reasons:
        raise DriverError(f"the golden image {home} does not fit: {'; '.join(reasons)}")
    return golden


async def make_golden(
    runs: QemuRuns, cold: Driver, launch: Launch, *, report: Report, limit_s: float = 300.0
) -> Golden:
    """Boot the guest with `cold`, wait until it is ready, save it into the guest's directory and end it.

    `cold` must give guests a memory file. Raises DriverError. Cancelled or failed: nothing is left behind.
    """
    guest = runs.guest(launch)
    home = Path(guest.directory)
    mark = _disk_mark(guest)
    parked = Parked(replica=launch.replica, generation=0, tier=Tier.COLD)
    running = await cold.wake(parked, launch, generation=1, report=report)
    staging = Path(tempfile.mkdtemp(dir=home, prefix=".golden-"))
    try:
        await runs.save(running, staging, layout=Layout.RAM_FILE, limit_s=limit_s)
        golden = Golden(
            directory=str(home / DIRECTORY),
            tool=runs.hypervisor.named,
            guest=guest.digest,
            machine=HostFacts.read(),
            ram_bytes=(staging / qemu.RAM).stat().st_size,
            disk_mark=mark,
        )
        await runs.stop(running)
        (staging / RECORD).write_text(json.dumps(asdict(golden)), encoding="utf-8")
        sync_file(staging / RECORD)
        shutil.rmtree(home / DIRECTORY, ignore_errors=True)
        os.rename(staging, home / DIRECTORY)
        sync_directory(home)
        return golden
    except OSError as error:
        raise DriverError(f"the golden image could not be written: {error}") from error
    finally:
        await runs.stop(running)
        shutil.rmtree(staging, ignore_errors=True)


def _disk_mark(guest: Guest) -> str:
    if guest.disk is None:
        return ""
    try:
        status = os.stat(guest.disk)
    except OSError:
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"
