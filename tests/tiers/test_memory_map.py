"""Where the pages of an image belong, read from criu's files, and from files that only look like them."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.tiers.frozen.memory_map import PAGE_BYTES, MemoryRange, NotAnImage, lazy_memory

MAGIC, PAGEMAP, MM = 0x54564319, 0x56084025, 0x57492820
LAZY, PRESENT, PARENT = 2, 4, 1


def varint(value: int) -> bytes:
    more = value >> 7
    return bytes([value & 0x7F | 0x80]) + varint(more) if more else bytes([value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    text = b""
    for number, value in fields:
        whole = isinstance(value, int)
        text += varint(number << 3 | (0 if whole else 2)) + varint(value if whole else len(value))  # type: ignore[arg-type]
        text += b"" if whole else value  # type: ignore[operator]
    return text


def write(path: Path, kind: int, *messages: bytes) -> None:
    records = b"".join(struct.pack("<I", len(each)) + each for each in messages)
    path.write_bytes(struct.pack("<II", MAGIC, kind) + records)


def test_lazy_pages_by_offset_and_mapping(tmp_path: Path):
    """Entries without pages take no room in the file; a run of pages is cut where a mapping ends."""
    page = PAGE_BYTES
    mappings = [(10 * page, 14 * page), (14 * page, 20 * page), (40 * page, 50 * page)]
    vmas = [(14, message((1, first), (2, last), (5, 3))) for first, last in mappings]
    write(tmp_path / "mm-7.img", MM, message((1, 5), *vmas))
    entries = [
        message((1, 10 * page), (2, 1), (4, PRESENT)),
        message((1, 12 * page), (2, 0), (4, PRESENT | LAZY), (5, 4)),
        message((1, 18 * page), (2, 2), (4, PARENT)),
        message((1, 40 * page), (2, 3), (4, PRESENT | LAZY)),
    ]
    write(tmp_path / "pagemap-7.img", PAGEMAP, message((1, 3)), *entries)
    assert lazy_memory(tmp_path, 7) == (
        "pages-3.img",
        [
            MemoryRange(offset=page, address=12 * page, bytes=2 * page),
            MemoryRange(offset=3 * page, address=14 * page, bytes=2 * page),
            MemoryRange(offset=5 * page, address=40 * page, bytes=3 * page),
        ],
    )
    write(tmp_path / "mm-7.img", MM, message((1, 5), vmas[0]))
    with pytest.raises(NotAnImage, match="no mapping"):
        lazy_memory(tmp_path, 7)


@given(data=st.binary(max_size=60), head=st.booleans())
def test_what_is_no_image_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bool):
    place = tmp_path_factory.mktemp("image")
    magic = struct.pack("<II", MAGIC, PAGEMAP) if head else b""
    (place / "pagemap-7.img").write_bytes(magic + data)
    (place / "mm-7.img").write_bytes(struct.pack("<II", MAGIC, MM) + data)
    with pytest.raises((NotAnImage, LookupError, ValueError, struct.error)):
        lazy_memory(place, 7)
        raise ValueError("by chance an image")
