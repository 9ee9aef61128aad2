"""How one kind of engine is started and asked, as plain data that the kind's own file fills in."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import ModelSettings

WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth")

INHERITED = (
    *("PATH", "HOME", "USER", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "PYTHONPATH", "OLLAMA_MODELS"),
)
"""Variables an engine gets from poorwill's own environment; secrets only by `env` of the model's settings,
because a snapshot of the engine holds its environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchContext:
    """Where an engine is to run."""

    host: str
    port: int
    cache: str
    """A directory that outlives the engine, for its compile and kernel caches. Absolute."""
    env: Mapping[str, str]
    """poorwill's own environment; only what `INHERITED` names reaches an engine."""

    def inherited(self) -> dict[str, str]:
        """Return what an engine gets of poorwill's environment."""
        return {"PATH": os.defpath, "LANG": "C.UTF-8"} | {
            name: self.env[name] for name in INHERITED if name in self.env
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What is known of a model's weights without reading them."""

    path: str | None = None
    bytes: int = 0
    mark: str = ""
    """Changes whenever the files change: names, sizes and modification times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to start one engine and what to ask it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready_path: str
    weights: Weights
    version: str
    """Of the engine's program, as far as it can be told without running it."""
    engine_model: str
    sleep: str | None = None
    linked: str = ""
    """A directory that the model's name is linked to in the program's working directory: for engines that
    serve a model only under its path."""

    def digest(self) -> str:
        """Return a digest of what the engine would serve and how."""
        what = [list(self.argv), sorted(self.env.items()), self.weights.mark, self.version]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


Prepare = Callable[[ModelSettings, LaunchContext], Recipe]


def weights_of(path: str, *, cache: str = "") -> Weights:
    """Return the weights under a file, a directory, or a model id in the hub cache; empty if there are none.

    Blocks for a directory listing.
    """
    place = Path(path)
    if path and place.is_file():
        return _weights(place, [place])
    if path and place.is_dir():
        return _weights(place, _weight_files(place))
    if cache and path.count("/") == 1:
        snapshots = Path(cache) / f"models--{path.replace('/', '--')}" / "snapshots"
        newest = max(snapshots.glob("*"), key=lambda entry: entry.stat().st_mtime, default=None)
        if newest is not None:
            return _weights(newest, _weight_files(newest))
    return Weights()


def flags(options: Mapping[str, str | int | float | bool]) -> tuple[str, ...]:
    """Return options as flags: `gpu_layers = 8` as `--gpu-layers 8`, `embeddings = true` as
    `--embeddings`."""
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not False:
            words += [flag, str(value)]
    return tuple(words)


def linked(directory: Path, name: str, target: str) -> str:
    """Make `name` within a directory lead to the target, and return the directory. Raises OperatorFault."""
    link = directory / name
    if {"", ".", ".."} & set(name.split("/")):
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"the model's name {name!r} leads out of {directory}",
            hint="give it another with engine_model",
        )
    try:
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (link.is_symlink() and os.readlink(link) == target):
            draft = link.with_name(f".{link.name}.new")
            draft.unlink(missing_ok=True)
            draft.symlink_to(target)
            draft.replace(link)
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot link {link} to {target}: {error.strerror}",
            hint=f"make {directory} writable",
        ) from error
    return str(directory)


def hub_cache(env: Mapping[str, str]) -> str:
    """Return the Hugging Face hub cache directory (huggingface_hub, constants.py)."""
    home = env.get("HF_HOME") or str(
        Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME", "/"), ".cache"), "huggingface")
    )
    return env.get("HF_HUB_CACHE") or str(Path(home, "hub"))


def program_version(program: str, env: Mapping[str, str]) -> str:
    """Return a text that changes with the program's file. Raises OperatorFault if there is none."""
    found = shutil.which(program, path=env.get("PATH", os.defpath))
    if found is None:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"no program {program!r} on PATH",
            hint="install it, or give its whole path",
        )
    status = os.stat(found)
    return f"{found} {status.st_size} {status.st_mtime_ns}"


def _weight_files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.iterdir() if p.suffix in WEIGHT_SUFFIXES and p.is_file())


def _weights(path: Path, files: Iterable[Path]) -> Weights:
    stats = [(file.name, file.stat()) for file in files]
    return Weights(
        path=str(path),
        bytes=sum(status.st_size for _, status in stats),
        mark=json.dumps([(name, status.st_size, status.st_mtime_ns) for name, status in stats]),
    )
