"""Which files of a repository of the hub are the model that a name means."""

import re
from collections.abc import Iterable, Sequence

_PART = re.compile(r"-\d{5}-of-(\d{5})(?=\.\w+$)")
_USUAL = ("Q4_K_M", "Q8_0")
"""What is taken if nothing is said: the first is llama.cpp's own choice for `-hf` (its server's README)."""
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".tflite", ".ot", ".ckpt")
_WEIGHTS = (".safetensors", *_OTHER_WEIGHTS)


def choose_gguf(files: Iterable[str], which: str) -> Sequence[str]:
    """Return the parts of the GGUF that `which` means, in order; empty if there is none.

    `which` is a file's name or a word of it (`Q4_K_M`); empty: the usual quantisation, or the first file.
    """
    found = sorted(f for f in files if f.endswith(".gguf") and "mmproj" not in f.lower())
    groups: dict[str, list[str]] = {}
    for file in found:
        groups.setdefault(_PART.sub("", file), []).append(file)
    for parts in groups.values():
        if which in parts or which == _PART.sub("", parts[0]):
            return parts
    for word in (which,) if which else _USUAL:
        there = re.compile(rf"(?:^|[-._/]){re.escape(word)}(?:[-._/]|$)", re.I)
        for name, parts in groups.items():
            if there.search(name.removesuffix(".gguf")):
                return parts
    return () if which else next(iter(groups.values()), ())


def choose_all(files: Iterable[str]) -> Sequence[str]:
    """Return the files of a model that an engine loads from a directory, the weights last.

    Weights in other formats are left out where there are safetensors, and so are copies of another layout.
    """
    every = [f for f in files if not f.startswith((".", "original/", "onnx/", "openvino/"))]
    tensors = [f for f in every if f.endswith(".safetensors") and "/" not in f]
    unwanted = _OTHER_WEIGHTS if tensors else (".gguf", ".onnx", ".h5", ".msgpack", ".tflite", ".ot", ".ckpt")
    layouts = any(f.startswith("model") for f in tensors)
    kept = [f for f in every if not f.endswith(unwanted) and not (layouts and f.startswith("consolidated"))]
    return sorted(kept, key=lambda file: (file.endswith(_WEIGHTS), file))


def whole(files: Sequence[str]) -> bool:
    """Return whether all parts are there of every file that says how many it has."""
    counts: dict[tuple[str, str], int] = {}
    for file in files:
        if match := _PART.search(file):
            key = _PART.sub("", file), match[1]
            counts[key] = counts.get(key, 0) + 1
    return all(count == int(of) for (_, of), count in counts.items())
