"""Which files a model is: the parts of a split GGUF, shards, configuration and tokenizer, adapters.

All of them make the digest that a snapshot is refused by. None is read: names, sizes, inodes and times tell a
change. The time of the last status change is among them, because nobody can set it back.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_PART = re.compile(r"^(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
"""How llama.cpp names the parts of a split model (tools/gguf-split)."""
_MOST_PARTS = 10_000
_MOST_FILES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What is known of a model's files without reading them."""

    path: str | None = None
    bytes: int = 0
    """Of the weights."""
    mark: str = ""
    """Changes whenever any file of the model does."""
    files: tuple[str, ...] = ()
    """All of them, the weights in front."""


def weights_of(path: str, *, cache: str = "", words: Iterable[str] = ()) -> Weights:
    """Return the weights under a file, a directory, or a model id in the hub cache; empty if there are none.

    `words` are the engine's arguments: files that they name (adapters, projectors) belong to the model.
    Blocks for directory listings.
    """
    place = _place(path, cache)
    if place is None:
        return Weights()
    if place.is_file():
        weights = [part for part in gguf_parts(place) if part.is_file()]
        files = weights
    else:
        files = sorted(file for file in islice(place.rglob("*"), _MOST_FILES) if file.is_file())
        weights = [file for file in files if file.parent == place and file.suffix in SUFFIXES]
    named = [Path(word.rpartition("=")[2]) for word in words]
    adapters = [each for each in named if each.is_absolute() and each.exists() and each != place]
    every = (*files, *sorted(set(adapters)))
    return Weights(
        path=str(place),
        bytes=sum(file.stat().st_size for file in weights),
        mark=json.dumps([_state(file) for file in every]),
        files=tuple(dict.fromkeys(str(file) for file in (*weights, *every))),
    )


def gguf_parts(path: str | Path) -> list[Path]:
    """Return the files of a model, any one of which may be given: one, or all parts of a split GGUF."""
    place = Path(path)
    match = _PART.match(place.name)
    if match is None or not 0 < int(match["count"]) <= _MOST_PARTS:
        return [place]
    count = int(match["count"])
    return [
        place.with_name(f"{match['name']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    ]


def hub_cache(env: Mapping[str, str]) -> str:
    """Return the Hugging Face hub cache directory (huggingface_hub, constants.py)."""
    home = env.get("HF_HOME") or str(
        Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME", "/"), ".cache"), "huggingface")
    )
    return env.get("HF_HUB_CACHE") or str(Path(home, "hub"))


def _place(path: str, cache: str) -> Path | None:
    """Return the file or directory of a model; of one in the hub cache the snapshot that `main` refers to."""
    place = Path(path)
    if path and place.exists():
        return place
    if not cache or path.count("/") != 1:
        return None
    home = Path(cache) / f"models--{path.replace('/', '--')}"
    try:
        main = home / "snapshots" / (home / "refs" / "main").read_text().strip()
        if main.is_dir():
            return main
    except (OSError, ValueError):
        pass  # an engine may have been given a revision: the newest snapshot is the best guess
    return max((home / "snapshots").glob("*"), key=lambda entry: entry.stat().st_mtime, default=None)


def _state(file: Path) -> list[str | int]:
    status = os.stat(file)
    return [str(file), status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
