"""Whether KVM works is proved by a boot with a time limit, never by the presence of a device."""

# The tests write a small program and run it.

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.errors import OperatorFault
from poorwill.hosts.guests.directory import UP_MARK, Guest
from poorwill.hosts.processes import procfs
from poorwill.tiers.suspended.qemu.kvm import prove_kvm
from poorwill.tiers.suspended.qemu.program import Accelerator, Hypervisor, find_hypervisor

GUEST = Guest(
    directory="/guest",
    kernel="/guest/kernel",
    initrd="/guest/initrd",
    disk=None,
    memory_mib=128,
    cpus=1,
    port=8000,
    engine="tiny",
    digest="0",
)


def stand_in(path: Path, script: str) -> Hypervisor:
    """A hypervisor whose program is this shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Hypervisor(binary=str(path), version=(10, 0, 0))


async def prove(hypervisor: Hypervisor, *, limit_s: float = 20.0) -> tuple[Accelerator, str]:
    # /dev/null is a device that may be read and written, as /dev/kvm is where nothing else helps.
    found, why = await prove_kvm(hypervisor, GUEST, limit_s=limit_s, device="/dev/null")
    return found.accelerator, why


async def test_a_guest_that_speaks_proves_kvm_and_is_ended(tmp_path: Path):
    pid_file = tmp_path / "pid"
    hypervisor = stand_in(
        tmp_path / "qemu", f"echo $$ >{pid_file}; echo firmware; echo '{UP_MARK}'; exec sleep 600"
    )
    accelerator, why = await prove(hypervisor)
    assert accelerator is Accelerator.KVM and "reached the guest's own code" in why
    assert procfs.read_stat(int(pid_file.read_text())) is None


async def test_a_trial_inherits_no_descriptor(tmp_path: Path):
    listing = tmp_path / "descriptors"
    hypervisor = stand_in(tmp_path / "qemu", f"ls -l /proc/self/fd >{listing}; echo '{UP_MARK}'")
    with (tmp_path / "private").open("w") as private:
        os.set_inheritable(private.fileno(), True)
        accelerator, _ = await prove(hypervisor)
    assert accelerator is Accelerator.KVM
    assert "/private" not in listing.read_text() and "/descriptors" in listing.read_text()


async def test_a_trial_that_is_cancelled_leaves_no_process(tmp_path: Path):
    pid_file = tmp_path / "pid"
    hypervisor = stand_in(tmp_path / "qemu", f"echo $$ >{pid_file}; exec sleep 600")
    trial = asyncio.get_running_loop().create_task(prove(hypervisor))
    await until(lambda: pid_file.exists() and pid_file.read_text() != "")
    trial.cancel()
    await asyncio.wait({trial})
    assert trial.cancelled() and procfs.read_stat(int(pid_file.read_text())) is None


async def test_a_guest_that_hangs_is_given_up(tmp_path: Path):
    pid_file = tmp_path / "pid"
    hypervisor = stand_in(tmp_path / "qemu", f"echo $$ >{pid_file}; exec sleep 600")
    accelerator, why = await prove(hypervisor, limit_s=0.5)
    assert accelerator is Accelerator.TCG
    assert why == "software emulation: the trial boot under KVM did not get there within 0.5 s"
    assert procfs.read_stat(int(pid_file.read_text())) is None


async def test_a_hypervisor_that_gives_up_says_why(tmp_path: Path):
    hypervisor = stand_in(tmp_path / "qemu", "echo 'failed to set MSR 0x10a' >&2; exit 1")
    accelerator, why = await prove(hypervisor)
    assert accelerator is Accelerator.TCG
    assert why.endswith("ended: failed to set MSR 0x10a")


async def test_without_the_device_nothing_is_started(tmp_path: Path):
    hypervisor = replace(stand_in(tmp_path / "qemu", "false"), binary="/no/such/program")
    found, why = await prove_kvm(hypervisor, GUEST, device=str(tmp_path / "kvm"))
    assert found.accelerator is Accelerator.TCG and "missing or not permitted" in why


async def test_a_bad_qemu_is_named_with_a_remedy(tmp_path: Path):
    with pytest.raises(OperatorFault, match="apt-get install qemu-system-x86"):
        await find_hypervisor("no-such-qemu")
    strange = stand_in(tmp_path / "strange", "echo hello")
    with pytest.raises(OperatorFault, match="is no QEMU"):
        await find_hypervisor(strange.binary)
    old = stand_in(tmp_path / "old", "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)'")
    assert (await find_hypervisor(old.binary)).named == "qemu 7.2.22 tcg"


def test_an_old_qemu_saves_a_stream():
    old = Hypervisor(binary="qemu", version=(7, 2, 22))
    new = Hypervisor(binary="qemu", version=(10, 0, 2))
    assert old.save_uri("/a b/state") == "exec:cat > '/a b/state'"
    assert new.save_uri("/a b/state") == "file:/a b/state"
    assert (old.full_layout, new.full_layout) == ("stream", "mapped-ram")
