"""Reads the header of a GGUF file: what model it is, and whether it is whole. Never reads weights.

The format is documented in ggml-org/ggml, docs/gguf.md: magic, version, counts, key-value pairs, tensor
descriptions, then the tensors' data, aligned.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.engines.weights.files import gguf_parts
from poorwill.hosts.files.opening import open_to_read

Value = str | int | float | bool

_MAGIC = b"GGUF"
_SCALARS: Mapping[int, str] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
)
_STRING, _ARRAY = 8, 9
_MOST = 1 << 22
"""No sane header has more keys, tensors or list members than this: Gemma's vocabulary has 2 ** 18."""
_MOST_TEXT = 1 << 26
"""Nor longer texts, in bytes: some files carry their whole tokenizer.json in one, of some 30 MB."""
_MOST_BYTES = 1 << 27
"""Nor more bytes in all: that of the largest vocabulary has a tenth of them."""
_DEEPEST = 4
"""Nor more arrays within one another."""

TYPE_BYTES: Mapping[int, tuple[int, int]] = MappingProxyType(
    {
        **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
        **{9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176)},
        **{14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98)},
        **{19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136)},
        **{24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56)},
        **{30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18)},
    }
)
"""ggml type -> (weights in a block, bytes of a block); ggml.h. A type not in here is taken on trust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What the header tells."""

    path: str
    file_bytes: int
    architecture: str
    name: str
    parameters: int
    context: int
    chat_template: bool
    values: Mapping[str, Value]
    """Every key whose value is a scalar or a string."""


def read_gguf_header(path: str | Path) -> GgufHeader:
    """Read and check the headers of a model's files; blocks for as long as some megabytes each take to read.

    Any part of a split model may be given; `path` is then the first, which an engine wants to be given.

    Raises OperatorFault: a file is missing, unreadable, no GGUF, of an unknown version, no language model, or
    shorter than its own header says.
    """
    first, *others = gguf_parts(path)
    whole = _read(first, part=False)
    rest = [_read(other, part=True) for other in others]
    return replace(
        whole,
        file_bytes=whole.file_bytes + sum(part.file_bytes for part in rest),
        parameters=whole.parameters + sum(part.parameters for part in rest),
    )


def _read(path: Path, *, part: bool) -> GgufHeader:
    try:
        with open(open_to_read(path), "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            return _header(str(path), file, size, part=part)
    except OSError as error:
        hint = "give the path of a GGUF file (poorwill demo makes a small one)"
        if len(gguf_parts(path)) > 1:
            hint = "a split model needs all its parts beside each other: finish the download"
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"cannot read the model {path}: {error.strerror}", hint=hint
        ) from error
    except (struct.error, _Short) as error:
        raise _fault(path, "is truncated: it ends within its header", "download or copy it again") from error


def gguf_fault(path: str) -> tuple[str, str] | None:
    """Return what is wrong with a GGUF file and what would fix it, None if its header is sound."""
    try:
        read_gguf_header(path)
    except OperatorFault as fault:
        return fault.message, fault.hint or ""
    return None


class _Short(Exception):
    """The file ended where more was promised."""


def _fault(path: str | Path, what: str, hint: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, f"the model {path} {what}", hint=hint)


def _header(path: str, file: BinaryIO, size: int, *, part: bool) -> GgufHeader:
    """Read one file's header. `part`: a later one of a split model, whose first has the model's keys."""
    magic = file.read(4)
    if magic != _MAGIC:
        raise _fault(
            path,
            "is no GGUF file",
            "llama.cpp serves GGUF files; convert the model or use another engine",
        )
    (version,) = _unpack(file, "<I")
    if version not in (2, 3):
        raise _fault(path, f"has GGUF version {version}", "versions 2 and 3 (little endian) are understood")
    tensors, pairs = _unpack(file, "<QQ")
    if max(tensors, pairs) > _MOST:
        raise _fault(path, "has an impossible header", "the file is damaged; download or copy it again")
    values: dict[str, Value] = {}
    for _ in range(pairs):
        key = _text(file)
        value = _value(file, path, *_unpack(file, "<I"))
        if value is not None:
            values[key] = value
    architecture = str(values.get("general.architecture", ""))
    context = values.get(f"{architecture}.context_length")
    if part:
        context = 0
    elif not architecture or not isinstance(context, int):
        raise _fault(path, "is no language model", "its header names no architecture and context length")
    parameters, data_bytes = _tensors(file, tensors)
    alignment = int(values.get("general.alignment", 32)) or 32
    start = -(-file.tell() // alignment) * alignment
    if size < start + data_bytes:
        missing = start + data_bytes - size
        raise _fault(path, f"is truncated: {missing:,} bytes are missing", "download or copy it again")
    return GgufHeader(
        path=path,
        file_bytes=size,
        architecture=architecture,
        name=str(values.get("general.name", "")),
        parameters=parameters,
        context=context,
        chat_template="tokenizer.chat_template" in values,
        values=MappingProxyType(values),
    )


def _tensors(file: BinaryIO, count: int) -> tuple[int, int]:
    """Return the number of weights and the bytes of the data section."""
    parameters = end = 0
    for _ in range(count):
        _text(file)
        (dimensions,) = _unpack(file, "<I")
        if dimensions > 8:
            raise _Short
        weights = prod(_unpack(file, f"<{dimensions}Q"))
        kind, offset = _unpack(file, "<IQ")
        block, size = TYPE_BYTES.get(kind, (1, 0))
        parameters += weights
        end = max(end, offset + weights // block * size)
    return parameters, end


def _value(file: BinaryIO, path: str, kind: int, depth: int = 0) -> Value | None:
    """Read one value; an array is skipped."""
    if kind in _SCALARS:
        value: Value = _unpack(file, "<" + _SCALARS[kind])[0]
        return value
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        raise _fault(path, f"has a value of unknown type {kind}", "the file is damaged or of a later format")
    member, count = _unpack(file, "<IQ")
    if count > _MOST or depth == _DEEPEST:
        raise _fault(path, "has an impossible header", "the file is damaged; download or copy it again")
    if member in _SCALARS:
        file.seek(struct.calcsize("<" + _SCALARS[member]) * count, 1)
    else:
        for _ in range(count):
            if member == _STRING:
                file.seek(_length(file), 1)
            else:
                _value(file, path, member, depth + 1)
    return None


def _text(file: BinaryIO) -> str:
    size = _length(file)
    data = file.read(size)
    if len(data) < size:
        raise _Short
    return data.decode("utf-8", "replace")


def _length(file: BinaryIO) -> int:
    size: int = _unpack(file, "<Q")[0]
    if size > _MOST_TEXT:
        raise _Short
    return size


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    if file.tell() > _MOST_BYTES:
        raise _Short
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
