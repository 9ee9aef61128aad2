"""Builds a guest directory: kernel, initial file system, record. No container engine, no privilege.

The initial file system holds busybox, this Python, the engine and an agent for the clock; the model stays
where it is and is attached as a read-only disk, so that replicas share its pages and a snapshot need not
carry it twice.
"""

import hashlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.hosts.guests.archive import Archive, ArchiveError
from poorwill.hosts.guests.directory import INITRD, KERNEL, Guest, digest_of, write_guest
from poorwill.hosts.guests.kernel import MODULES, Kernel, module_order
from poorwill.hosts.guests.python_files import (
    INTERPRETER,
    LIBRARIES,
    PACKAGES,
    add_python,
    byte_code,
)

PORT = 8000
MODEL = "/model.gguf"
"""Where the model is inside: a link to the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPlan:
    """What to build. In `arguments`, `{model}` and `{port}` stand for the paths and port inside."""

    directory: Path
    engine: str
    argv: Sequence[str]
    """What starts the engine, as on this machine: a Python program and its arguments. The interpreter
    becomes the guest's, the model file's path becomes `MODEL`."""
    packages: Sequence[str] = ()
    """What the program imports beyond the standard library."""
    scripts: Sequence[Path] = ()
    """Python files named in `argv`, which are copied."""
    model: Path | None = None
    memory_mib: int = 768
    cpus: int = 2
    env: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""
    """Changes whenever the engine or the model file does, without reading it."""

    def identity(self) -> str:
        """Return a digest of engine, arguments, environment and model; not of memory and processors."""
        what = [self.engine, _command(self), sorted(self.env.items()), self.mark]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def build_guest(plan: GuestPlan, *, kernel: Kernel, busybox: Path, replacing: bool = False) -> Guest:
    """Build the guest; the directory appears, or changes, only once it is whole. Blocks for several seconds.

    Raises OperatorFault if the directory exists and is not to be replaced, a package is missing, a file
    is unreadable, or the memory is too small.
    """
    if plan.directory.exists() and not replacing:
        raise _fault(f"there is a guest in {plan.directory} already", "replace or remove it")
    plan.directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plan.directory.parent, prefix=".guest-") as staging:
        home = Path(staging, "guest")
        home.mkdir()
        try:
            (home / KERNEL).write_bytes(kernel.image.read_bytes())
            _write_initrd(home / INITRD, plan, kernel=kernel, busybox=busybox)
            _refuse_small_memory(home / INITRD, plan)
            write_guest(_record(home, plan, kernel=kernel))
        except (OSError, ArchiveError, SyntaxError) as error:
            raise _fault(f"cannot build the guest: {error}", "fix this and try again") from error
        if plan.directory.exists():
            os.rename(plan.directory, Path(staging, "replaced"))
        os.rename(home, plan.directory)
    return _record(plan.directory, plan, kernel=kernel)


def _refuse_small_memory(initrd: Path, plan: GuestPlan) -> None:
    """Raise OperatorFault if the guest's memory cannot even hold its file system.

    The kernel unpacks it into a file system of at most half of what the kernel (about 48 MiB) and the
    packed form leave: 3.2 times its size in all, with a margin. The engine's own needs come on top.
    """
    least_mib = 48 + round(3.2 * initrd.stat().st_size / 2**20)
    if plan.memory_mib < least_mib:
        raise _fault(
            f"{plan.memory_mib} MiB are too little for this guest",
            f"give it {least_mib} MiB and what the engine needs",
        )


def _record(home: Path, plan: GuestPlan, *, kernel: Kernel) -> Guest:
    disk = str(plan.model.absolute()) if plan.model else None
    parts = [str(home / KERNEL), str(home / INITRD), *([disk] if disk else [])]
    return Guest(
        directory=str(home),
        kernel=str(home / KERNEL),
        initrd=str(home / INITRD),
        disk=disk,
        memory_mib=plan.memory_mib,
        cpus=plan.cpus,
        port=PORT,
        engine=plan.engine,
        digest=digest_of(*parts),
        plan=plan.identity(),
        facts={
            "kernel": kernel.version,
            "python": sys.version.split()[0],
            "command": shlex.join(_command(plan)),
        },
    )


def _write_initrd(target: Path, plan: GuestPlan, *, kernel: Kernel, busybox: Path) -> None:
    with target.open("wb") as out:
        archive = Archive(out=out)
        for directory in ("proc", "sys", "dev", "tmp", "root"):
            archive.directory(directory)
        archive.device("dev/console", major=5, minor=1)
        archive.file("bin/busybox", busybox)
        archive.link("bin/sh", "busybox")
        archive.text("init", _resource("guest_init.sh"), executable=True)
        archive.text("agent.pyc", byte_code(_path("agent.py"), "agent"))
        archive.text("guest.env", _environment(plan))
        archive.text("engine.sh", f"exec {shlex.join(_command(plan))}\n")
        for path in plan.scripts:
            archive.file(path.name, path)
        modules = module_order(kernel, MODULES)
        archive.text("modules/order", "".join(f"{name}\n" for name, _ in modules))
        for name, content in modules:
            archive.text(f"modules/{name}.ko", content)
        if plan.model:
            archive.link(MODEL, "/dev/vda")
        add_python(archive, packages=plan.packages)
        archive.finish()


def _command(plan: GuestPlan) -> list[str]:
    inside = {sys.executable: INTERPRETER, str(plan.model): MODEL}
    inside |= {str(path): f"/{path.name}" for path in plan.scripts}
    return [inside.get(word, word) for word in plan.argv]


def _environment(plan: GuestPlan) -> str:
    names = {
        "PYTHONHOME": "/usr",
        "PYTHONPATH": PACKAGES,
        "PYTHONUNBUFFERED": "1",
        "LD_LIBRARY_PATH": LIBRARIES,
        "HOME": "/root",
        **plan.env,
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in names.items())


def _path(name: str) -> Path:
    return Path(str(files("poorwill.hosts.guests").joinpath(name)))


def _resource(name: str) -> str:
    return files("poorwill.hosts.guests").joinpath(name).read_text(encoding="utf-8")


def _fault(message: str, hint: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, message, hint=hint)
