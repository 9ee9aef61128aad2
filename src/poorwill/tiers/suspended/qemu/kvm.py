"""Whether KVM works here, proved by booting a guest with it under a time limit.

That /dev/kvm exists and opens proves nothing: nested in another hypervisor a guest may start and then never
reach its own code. Without the proof a guest runs under software emulation, which always works and is two
orders of magnitude slower; whoever asks is told which one it is and why.
"""

import asyncio
import os
import subprocess
import tempfile
from dataclasses import replace
from functools import partial

from poorwill.hosts.guests.directory import PROBE_WORD, UP_MARK, Guest
from poorwill.tiers.suspended.qemu.program import Accelerator, Hypervisor, kernel_line

DEVICE = "/dev/kvm"
LIMIT_S = 20.0
_KEPT_BYTES = 400
_MOST_BYTES = 2**20
"""A boot says less."""

_LOOK_S = 0.02


async def prove_kvm(
    hypervisor: Hypervisor, guest: Guest, *, limit_s: float = LIMIT_S, device: str = DEVICE
) -> tuple[Hypervisor, str]:
    """Boot the guest's kernel and init under KVM; return the hypervisor to use and why, for people.

    Takes `limit_s` at most, usually a second. Cancelled: the trial's process is gone.
    """
    emulated = replace(hypervisor, accelerator=Accelerator.TCG)
    if not os.access(device, os.R_OK | os.W_OK):
        return emulated, f"software emulation: {device} is missing or not permitted"
    accelerated = replace(hypervisor, accelerator=Accelerator.KVM)
    failure = await _trial(accelerated, guest, limit_s=limit_s)
    if failure is None:
        return accelerated, "KVM: a trial boot reached the guest's own code"
    return emulated, f"software emulation: the trial boot under KVM {failure}"


async def _trial(hypervisor: Hypervisor, guest: Guest, *, limit_s: float) -> str | None:
    """Return None if the guest's init printed its mark, else what happened instead."""
    # Not asyncio's own: under uvloop a child inherits descriptors that are not meant for it.
    start = partial(subprocess.Popen, _command(hypervisor, guest), stdin=subprocess.DEVNULL)
    with (
        tempfile.TemporaryFile() as said,
        start(stdout=said, stderr=said, start_new_session=True) as child,
    ):
        try:
            async with asyncio.timeout(limit_s):
                ended = False
                while True:
                    heard = os.pread(said.fileno(), _MOST_BYTES, 0)
                    if UP_MARK.encode() in heard:
                        return None
                    if ended:
                        return f"ended: {_printable(heard)}"
                    ended = child.poll() is not None  # what it said last is looked at once more
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            return f"did not get there within {limit_s:g} s"
        finally:
            child.kill()


def _command(hypervisor: Hypervisor, guest: Guest) -> tuple[str, ...]:
    return (
        hypervisor.binary,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", str(hypervisor.accelerator), "-cpu", "host"),
        *("-smp", "1", "-m", f"{guest.memory_mib}M"),
        *("-kernel", guest.kernel, "-initrd", guest.initrd),
        *("-append", kernel_line(hypervisor, PROBE_WORD)),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
    )


def _printable(heard: bytes) -> str:
    text = heard[-_KEPT_BYTES:].decode("utf-8", "replace").strip()
    return "".join(character if character.isprintable() else " " for character in text) or "silently"
