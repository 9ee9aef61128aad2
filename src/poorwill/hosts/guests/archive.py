"""Writes a guest's root file system as a `newc` cpio archive, the format of an initramfs.

Owns the byte layout and nothing else: what goes in is decided by `guest_build`. Reproducible: entries keep
the order they are added in, owner and times are zero, so that the same input has the same digest. Device
nodes are written as entries, so that no privilege is needed to build one.

The layout is the kernel's, Documentation/driver-api/early-userspace/buffer-format.rst: a header of thirteen
8-digit hexadecimal fields, the name, the data, each padded to 4 bytes.
"""

import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_LARGEST_FILE = 2**32 - 1
_CHARACTER_DEVICE = stat.S_IFCHR


class ArchiveError(ValueError):
    """A file cannot be put into the archive."""


@dataclass(slots=True, kw_only=True)
class Archive:
    """An archive being written to `out`. Parent directories are added as they are needed."""

    out: BinaryIO
    _count: int = 0
    _directories: set[str] = field(default_factory=set)

    def directory(self, path: str, *, mode: int = 0o755) -> None:
        """Add a directory and its parents; one that is there already is left alone."""
        name = path.strip("/")
        if not name or name in self._directories:
            return
        self._parents(name)
        self._directories.add(name)
        self._entry(name, mode=stat.S_IFDIR | mode)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link at `path`."""
        self._parents(path)
        self._entry(path, mode=stat.S_IFLNK | 0o777, data=target.encode())

    def device(self, path: str, *, major: int, minor: int) -> None:
        """Add a character device."""
        self._parents(path)
        self._entry(path, mode=_CHARACTER_DEVICE | 0o600, device=(major, minor))

    def text(self, path: str, content: str | bytes, *, executable: bool = False) -> None:
        """Add a file with this content."""
        data = content.encode() if isinstance(content, str) else content
        self._parents(path)
        self._entry(path, mode=stat.S_IFREG | (0o755 if executable else 0o644), data=data)

    def file(self, path: str, source: Path) -> None:
        """Add a copy of `source`, following links; it is executable if `source` is.

        Raises ArchiveError if it is 4 GiB or larger, which the format cannot hold.
        """
        size = source.stat().st_size
        if size > _LARGEST_FILE:
            raise ArchiveError(f"{source} is larger than the 4 GiB that an initramfs can hold")
        mode = 0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644
        self._parents(path)
        self._header(path, mode=stat.S_IFREG | mode, size=size, device=(0, 0))
        with source.open("rb") as file:
            shutil.copyfileobj(file, self.out, 2**20)
        self._pad(size)

    def finish(self) -> None:
        """Write the trailer; nothing may be added afterwards."""
        self._entry("TRAILER!!!", mode=0)

    def _parents(self, path: str) -> None:
        for parent in reversed(PurePosixPath(path.strip("/")).parents):
            if str(parent) != ".":
                self.directory(str(parent))

    def _entry(self, path: str, *, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._header(path, mode=mode, size=len(data), device=device)
        self.out.write(data)
        self._pad(len(data))

    def _header(self, path: str, *, mode: int, size: int, device: tuple[int, int]) -> None:
        name = path.strip("/").encode() + b"\0"
        self._count += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._count, mode, 0, 0, links, 0, size, 0, 0, *device, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % value for value in fields) + name
        self.out.write(head)
        self._pad(len(head))

    def _pad(self, written: int) -> None:
        self.out.write(b"\0" * (-written % 4))
