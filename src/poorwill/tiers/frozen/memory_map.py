"""Where the pages of a criu image belong: which bytes of which file go to which address of which process.

criu's image files are its magic numbers and then records, each a length and a protobuf message
(criu.org/Images; images/pagemap.proto, mm.proto and vma.proto in criu's source). Read with a dozen lines
instead of a compiler's output: few fields are wanted, and a file that is something else is refused.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poorwill.hosts.processes.userfault import PAGE_BYTES
from poorwill.tiers.snapshots.image_files import CHUNK_BYTES

_MAGIC, _PAGEMAP, _MM = 0x54564319, 0x56084025, 0x57492820
_LAZY, _PRESENT = 2, 4
"""Flags of a pagemap entry: may be restored lazily, is in the pages' file (criu/include/pagemap.h)."""


class NotAnImage(ValueError):
    """A file is not what criu writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRange:
    """Bytes of a pages' file that belong to consecutive addresses within one mapping."""

    offset: int
    address: int
    bytes: int

    @property
    def last(self) -> int:
        """The first address behind it."""
        return self.address + self.bytes

    def part(self, first: int, last: int) -> "list[MemoryRange]":
        """Return what of it lies between two addresses, if anything does."""
        first, last = max(first, self.address), min(last, self.last)
        if first >= last:
            return []
        return [MemoryRange(offset=self.offset + first - self.address, address=first, bytes=last - first)]

    def without(self, first: int, last: int) -> "list[MemoryRange]":
        """Return what of it does not."""
        return self.part(self.address, first) + self.part(last, self.last)


def lazy_memory(image: Path, pid: int) -> tuple[str, list[MemoryRange]]:
    """Return the name of a process's file of pages, and where its lazy pages belong, by offset.

    Raises OSError, NotAnImage.
    """
    head, *entries = _messages(image / f"pagemap-{pid}.img", _PAGEMAP)
    (mm,) = _messages(image / f"mm-{pid}.img", _MM)
    vmas = [_Message.read(data).numbers for data in mm.parts.get(14, [])]
    mappings = sorted((vma[1], vma[2]) for vma in vmas)
    ranges: list[MemoryRange] = []
    offset = 0
    for entry in (each.numbers for each in entries):
        flags, count = entry.get(4, _PRESENT), entry.get(5, entry[2]) * PAGE_BYTES
        if not flags & _PRESENT:
            continue
        if flags & _LAZY:
            ranges += _within(mappings, offset, entry[1], count)
        offset += count
    return f"pages-{head.numbers[1]}.img", ranges


def eager_chunks(ranges: list[MemoryRange], size_bytes: int) -> set[int]:
    """Return the numbers of the chunks of a pages' file that hold more than lazy pages: criu reads them."""
    found = set[int]()
    at = 0
    for offset, count in [*((one.offset, one.bytes) for one in ranges), (size_bytes, 0)]:
        if at < offset:
            found.update(range(at // CHUNK_BYTES, (offset - 1) // CHUNK_BYTES + 1))
        at = max(at, offset + count)
    return found


def _within(mappings: list[tuple[int, int]], offset: int, address: int, count: int) -> Iterator[MemoryRange]:
    """Cut a run of pages where one mapping ends and the next begins: the kernel fills one at a time."""
    end = address + count
    for first, last in mappings:
        if first <= address < last:
            size = min(end, last) - address
            yield MemoryRange(offset=offset, address=address, bytes=size)
            offset, address = offset + size, address + size
            if address == end:
                return
    raise NotAnImage(f"no mapping holds the page at {address:#x}")


@dataclass(frozen=True, slots=True)
class _Message:
    """The fields of a protobuf message by number (protobuf.dev, Encoding)."""

    numbers: dict[int, int]
    parts: dict[int, list[bytes]]

    @staticmethod
    def read(data: bytes) -> "_Message":
        """Raises NotAnImage."""
        message = _Message({}, {})
        at = 0
        while at < len(data):
            key, at = _varint(data, at)
            value, at = _varint(data, at)
            match key & 7:
                case 0:
                    message.numbers[key >> 3] = value
                case 2:
                    message.parts.setdefault(key >> 3, []).append(data[at : at + value])
                    at += value
                case kind:
                    raise NotAnImage(f"a field of wire type {kind}")
        return message


def _messages(path: Path, kind: int) -> list[_Message]:
    data = path.read_bytes()
    if data[:8] != struct.pack("<II", _MAGIC, kind):
        raise NotAnImage(f"{path.name} has another magic number")
    found, at = [], 8
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        found.append(_Message.read(data[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise NotAnImage("a number is cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
