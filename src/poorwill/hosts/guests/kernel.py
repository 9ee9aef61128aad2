"""Fetches a Debian kernel and busybox for a guest, without installing them, and orders kernel modules.

Uses `apt-get download` and `dpkg-deb --extract`, which need no privilege. Nothing outside the given cache
directory is written.
"""

import lzma
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault

MODULES = ("virtio_pci", "virtio_net", "virtio_blk")
"""What a guest needs beyond Debian's cloud kernel; `module_order` adds what these depend on."""

_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_BUSYBOX_PACKAGE = "busybox-static"
_DEPENDS = re.compile(rb"(?:^|\0)depends=([^\0]*)\0")
_IMAGE = re.compile(r"Depends: (linux-image-\d\S+)")
_LIMIT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel image and the directory of its modules."""

    image: Path
    modules: Path

    @property
    def version(self) -> str:
        """The kernel's release, as `uname -r` says it inside."""
        return self.modules.name


def fetch_kernel(cache: Path) -> Kernel:
    """Return Debian's current cloud kernel, from the cache or by downloading it (about 27 MB).

    Raises OperatorFault if apt cannot provide it.
    """
    depends = _call(["apt-cache", "depends", _KERNEL_PACKAGE], cwd=None)
    match = _IMAGE.search(depends)
    if match is None:
        raise _fault(f"apt knows no package {_KERNEL_PACKAGE}", "run apt-get update")
    root = _unpacked(match[1], cache)
    modules = next(iter((root / "lib/modules").glob("*")), None) or next((root / "usr/lib/modules").glob("*"))
    return Kernel(image=next((root / "boot").glob("vmlinuz-*")), modules=modules)


def fetch_busybox(cache: Path) -> Path:
    """Return a statically linked busybox, from the cache or by downloading it (about 1 MB)."""
    root = _unpacked(_BUSYBOX_PACKAGE, cache)
    found = [path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.is_file()]
    if not found:
        raise _fault(f"{_BUSYBOX_PACKAGE} holds no busybox", "empty the cache directory")
    return found[0]


def module_order(kernel: Kernel, wanted: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return modules with what they depend on, in loading order, each with its uncompressed content.

    Dependencies are read from the modules themselves (`depends=` in their .modinfo section, as modinfo(8)
    shows), since an unpacked package has no modules.dep. A module that is built in is left out.
    """
    files = {
        path.name.split(".", 1)[0].replace("-", "_"): path
        for path in kernel.modules.rglob("*.ko*")
        if path.is_file()
    }
    seen: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in seen or name not in files:
            return
        content = _content(files[name])
        for needed in _needs(content):
            visit(needed)
        seen[name] = content

    for name in wanted:
        visit(name)
    return list(seen.items())


def _needs(module: bytes) -> Iterator[str]:
    match = _DEPENDS.search(module)
    for name in match[1].decode().split(",") if match else ():
        if name:
            yield name.replace("-", "_")


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    return lzma.decompress(raw) if path.suffix == ".xz" else raw


def _unpacked(package: str, cache: Path) -> Path:
    """Download and extract a package once; a half-extracted one is never taken for whole."""
    root = cache / package
    if root.is_dir():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{package}-") as own:
        _call(["apt-get", "download", "-q", package], cwd=Path(own))
        staging = Path(own) / "root"
        _call(["dpkg-deb", "--extract", str(next(Path(own).glob("*.deb"))), str(staging)], cwd=cache)
        try:
            staging.rename(root)
        except OSError:
            if not root.is_dir():  # another program has not just unpacked the same package
                raise
    return root


def _call(argv: list[str], *, cwd: Path | None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _fault(f"{argv[0]} did not work: {error}", "a guest is built on Debian") from error
    if done.returncode:
        raise _fault(f"{' '.join(argv[:3])} failed: {done.stderr.strip()[-300:]}", "run apt-get update")
    return done.stdout


def _fault(message: str, hint: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, message, hint=hint)
