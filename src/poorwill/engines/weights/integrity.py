"""Whether a model's files are whole, as far as their headers tell. Never reads weights.

A safetensors file begins with the length of its header (8 bytes, little endian) and the header, JSON that
names where each tensor's data begins and ends after it (huggingface/safetensors, README.md, Format). A model
in several files has an index that maps tensors to files.
"""

import json
import os
from pathlib import Path
from typing import Any

from poorwill.engines.weights.gguf_header import gguf_fault
from poorwill.hosts.files.opening import open_to_read, read_whole

MOST_HEADER = 100_000_000
"""The format's own limit."""
AGAIN = "download or copy it again"

Fault = tuple[str, str]


def weights_fault(path: str) -> Fault | None:
    """Return what is wrong with a model's file or directory and what would fix it, None if nothing shows.

    Blocks for headers and a directory listing.
    """
    place = Path(path)
    if place.suffix == ".gguf":
        return gguf_fault(path)
    try:
        if place.is_dir():
            return _directory_fault(place)
        return _safetensors_fault(place) if place.suffix == ".safetensors" else None
    except OSError as error:
        return f"cannot read {error.filename or path}: {error.strerror}", "check its permissions"


def _directory_fault(directory: Path) -> Fault | None:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        wanted = _indexed(index)
        if wanted is None:
            return f"{index} is no index of a model", AGAIN
        missing = sorted(name for name in wanted if not (directory / name).is_file())
        if missing:
            what = f"{len(missing)} of the {len(wanted)} files that its index names are missing"
            return f"{directory}: {what}, the first of them {missing[0]}", "finish the download"
    faults = map(_safetensors_fault, sorted(directory.glob("*.safetensors")))
    return next((fault for fault in faults if fault is not None), None)


def _indexed(index: Path) -> set[str] | None:
    found = _json(read_whole(index, most_bytes=MOST_HEADER))
    names = found.get("weight_map") if isinstance(found, dict) else None
    return set(map(str, names.values())) if isinstance(names, dict) and names else None


def _safetensors_fault(path: Path) -> Fault | None:
    with open(open_to_read(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MOST_HEADER, size - 8):
            return f"{path} is no safetensors file, or is cut off within its header", AGAIN
        header = _json(file.read(length))
    if not isinstance(header, dict):
        return f"the header of {path} is damaged", AGAIN
    ends = [_end(tensor) for name, tensor in header.items() if name != "__metadata__"]
    missing = 8 + length + max(ends, default=0) - size
    if missing > 0:
        return f"{path} is truncated: {missing:,} bytes are missing", AGAIN
    return None


def _end(tensor: Any) -> int:
    """Return where a tensor's data ends after the header, 0 for an entry that does not say."""
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    if isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int):
        return int(offsets[1])
    return 0


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
