"""QEMU as a program: which one is here, what it can do, and the command line of a guest.

Starts nothing but `--version`. Every path on the command line that belongs to one run is relative to the
run's directory, which is QEMU's working directory: two runs can then never share a socket or a memory
file, and a long directory name does not exceed the 108 bytes of a Unix socket's address.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.hosts.files.aside import in_thread
from poorwill.hosts.guests.directory import Guest

BINARY = "qemu-system-x86_64"
RAM = "ram"
STATE = "state"
MONITOR = "monitor.sock"
AGENT = "agent.sock"
INSTALL = "apt-get install qemu-system-x86, from bookworm-backports for QEMU 10"

_FILE_URI = (8, 2)
_MAPPED_RAM = (9, 0)
_VERSION = re.compile(r"version (\d+)\.(\d+)\.(\d+)")
_LIMIT_S = 20.0


class Accelerator(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"  # software emulation: for tests, two orders of magnitude slower than the processor


class Memory(StrEnum):
    """Where a guest's memory is while it runs."""

    SHARED = "shared"  # a file it writes to; a park leaves it where it is
    PRIVATE = "private"  # a golden image's file, read-only; what the guest writes stays its own
    ANONYMOUS = "anonymous"  # no file; a park writes all of it


class Layout(StrEnum):
    """What a snapshot of a guest consists of."""

    RAM_FILE = "ram-file"  # the memory file, and device state beside it (x-ignore-shared)
    MAPPED_RAM = "mapped-ram"  # one file, each page at a fixed place, empty pages left out
    STREAM = "stream"  # one file as QEMU before 9.0 writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervisor:
    """One installed QEMU and the accelerator that was proved to work with it."""

    binary: str
    version: tuple[int, int, int]
    accelerator: Accelerator = Accelerator.TCG

    @property
    def named(self) -> str:
        """Return program and version for manifests: a snapshot is restored by the same version only."""
        return f"qemu {'.'.join(map(str, self.version))} {self.accelerator}"

    @property
    def full_layout(self) -> Layout:
        """Return the best layout for memory that is in no file of its own."""
        return Layout.MAPPED_RAM if self.version[:2] >= _MAPPED_RAM else Layout.STREAM

    def save_uri(self, path: str) -> str:
        """Return where `migrate` writes; QEMU before 8.2 knows no `file:` and pipes through a shell."""
        return f"file:{path}" if self.version[:2] >= _FILE_URI else f"exec:cat > {shlex.quote(path)}"

    def load_uri(self, path: str) -> str:
        """Return where `migrate-incoming` reads."""
        return f"file:{path}" if self.version[:2] >= _FILE_URI else f"exec:cat {shlex.quote(path)}"


def _version(path: str) -> str:
    """Return what the program says about itself, empty if it says nothing in time."""
    # Not asyncio's own: under uvloop a child inherits descriptors that are not meant for it.
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


CAPABILITIES: Mapping[Layout, tuple[str, ...]] = {
    Layout.RAM_FILE: ("x-ignore-shared",),
    Layout.MAPPED_RAM: ("mapped-ram",),
    Layout.STREAM: (),
}
"""Migration capabilities of each layout; the same on saving and loading (qapi/migration.json)."""


async def find_hypervisor(binary: str = BINARY) -> Hypervisor:
    """Return the installed QEMU, with software emulation; `qemu_kvm.prove` may promise more.

    Raises OperatorFault if there is none or it does not say its version.
    """
    path = shutil.which(binary)
    if path is None:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, f"no {binary} on the path", hint=INSTALL)
    match = _VERSION.search(await in_thread(lambda stop: _version(path)))
    if match is None:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, f"{path} is no QEMU", hint=INSTALL)
    return Hypervisor(binary=path, version=(int(match[1]), int(match[2]), int(match[3])))


def command(
    hypervisor: Hypervisor,
    guest: Guest,
    *,
    host: str,
    port: int,
    log_path: str,
    memory: Memory,
    golden_ram: str | None = None,
    incoming: bool = False,
) -> tuple[str, ...]:
    """Return the argument vector of a guest whose engine serves on `host`:`port`.

    `golden_ram` is the memory file for `Memory.PRIVATE`. With `incoming` it waits for a snapshot. The guest
    reaches nothing outside (`restrict=on`); only the forwarded port reaches it.
    """
    return (
        hypervisor.binary,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *_processor(hypervisor, guest),
        *_memory(guest, memory, golden_ram),
        *("-kernel", guest.kernel, "-initrd", guest.initrd),
        *("-append", kernel_line(hypervisor)),
        *("-chardev", f"file,id=console,path={_escaped(log_path)},append=on"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,path={AGENT},server=on,wait=off"),
        *("-serial", "chardev:agent"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:{host}:{port}-:{guest.port}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *_disk(guest),
        *("-qmp", f"unix:{MONITOR},server=on,wait=off"),
        *(("-incoming", "defer") if incoming else ()),
    )


def kernel_line(hypervisor: Hypervisor, *words: str) -> str:
    """Return the kernel's command line.

    init_on_free: the memory of the unpacked initial file system and of past requests becomes zeros, which
    a snapshot leaves out. An emulated time stamp counter is not to be trusted.
    """
    tsc = ("tsc=unstable",) if hypervisor.accelerator is Accelerator.TCG else ()
    return " ".join(("console=ttyS0", "quiet", "panic=-1", "init_on_free=1", *tsc, *words))


def _processor(hypervisor: Hypervisor, guest: Guest) -> tuple[str, ...]:
    if hypervisor.accelerator is Accelerator.KVM:
        return ("-accel", "kvm", "-cpu", "host", "-smp", str(guest.cpus))
    return ("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(guest.cpus))


def _memory(guest: Guest, memory: Memory, golden_ram: str | None) -> tuple[str, ...]:
    size = f"size={guest.memory_mib}M"
    backend = {
        Memory.SHARED: f"memory-backend-file,id=ram,{size},mem-path={RAM},share=on",
        Memory.PRIVATE: f"memory-backend-file,id=ram,{size},share=off,mem-path={_escaped(golden_ram or RAM)}",
        Memory.ANONYMOUS: f"memory-backend-ram,id=ram,{size}",
    }[memory]
    return (
        *("-machine", "q35,memory-backend=ram", "-m", f"{guest.memory_mib}M"),
        *("-object", backend),
    )


def _disk(guest: Guest) -> tuple[str, ...]:
    if guest.disk is None:
        return ()
    drive = f"id=model,if=none,format=raw,readonly=on,file={_escaped(guest.disk)}"
    return ("-drive", drive, "-device", "virtio-blk-pci,drive=model")


def _escaped(path: str) -> str:
    """Return a path for a QEMU option: a comma is doubled (qemu(1))."""
    return path.replace(",", ",,")
