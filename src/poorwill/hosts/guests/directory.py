"""A guest: the directory a virtual machine boots from, as `poorwill guest build` makes it.

Owns the layout of that directory and its record `guest.json`. Starts nothing. A guest is read-only once
built: replicas share its kernel, its initial file system and its model disk.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from poorwill.core.errors import ErrorCode, OperatorFault

RECORD = "guest.json"
KERNEL = "kernel"
INITRD = "initrd"
FORMAT = 1

UP_MARK = "poorwill-guest: up"
"""What the guest's init prints on the console once its kernel and file system work."""

PROBE_WORD = "poorwill.probe"
"""On the kernel's command line: print `UP_MARK` and power off. A trial boot ends at once with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One built guest. Paths are absolute; `disk`, if set, is the model file, attached read-only."""

    directory: str
    kernel: str
    initrd: str
    disk: str | None
    memory_mib: int
    cpus: int
    port: int
    """The port the engine listens on inside."""
    engine: str
    digest: str
    """Digest of kernel, initial file system and model: a snapshot of another guest is refused."""
    plan: str = ""
    """`GuestPlan.identity` of what it was built from: another one would build another guest."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """For people: kernel and Python version, engine arguments, model file."""


def open_guest(directory: str | Path) -> Guest:
    """Read a guest's record.

    Raises OperatorFault if there is none, if a file it names is missing, or if it was written by
    a poorwill with another layout.
    """
    home = Path(directory).absolute()
    record = _record(home)
    disk = record.pop("disk")
    guest = Guest(
        directory=str(home),
        kernel=str(home / KERNEL),
        initrd=str(home / INITRD),
        disk=disk,
        **record,
    )
    missing = [path for path in (guest.kernel, guest.initrd, disk) if path and not Path(path).is_file()]
    if missing:
        raise _fault(f"the guest {home} lacks {', '.join(missing)}")
    return guest


def write_guest(guest: Guest) -> None:
    """Write the record of a guest whose files are in place."""
    record = asdict(guest)
    for name in ("directory", "kernel", "initrd"):
        del record[name]
    text = json.dumps({"format": FORMAT, **record}, indent=2, sort_keys=True)
    Path(guest.directory, RECORD).write_text(text + "\n", encoding="utf-8")


def digest_of(*paths: str | Path) -> str:
    """Return the SHA-256 over the content of files, in order, as hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _record(home: Path) -> dict[str, Any]:
    try:
        record = json.loads((home / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _fault(f"{home} is no guest: {error}") from error
    if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
        raise _fault(f"{home} was built by another version of poorwill")
    return record


def _fault(message: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, message, hint="build it with: poorwill guest build MODEL")
