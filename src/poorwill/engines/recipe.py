"""How one kind of engine is started and asked, as plain data that the kind's own file fills in."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.launch import Place, StopCommand
from poorwill.core.settings import ModelSettings
from poorwill.engines.weights.files import Weights

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
    container: str = ""
    """The name of the replica's container, if it runs in one."""
    place: Place | None = None
    """The devices that the engine is to see; None: those that poorwill sees."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Variables of the user that the engine runs as, if that is not poorwill's."""

    def inherited(self) -> dict[str, str]:
        """Return what an engine gets of poorwill's environment."""
        known = {name: self.env[name] for name in INHERITED if name in self.env}
        return {"PATH": os.defpath, "LANG": "C.UTF-8", **known, **self.own, **_visible(self.place)}


def _visible(place: Place | None) -> dict[str, str]:
    """Return the variables by which an engine sees its devices alone.

    By index, CUDA counts from the fastest device unless told to count as NVML does (CUDA's programming guide,
    "CUDA environment variables").
    """
    if place is None:
        return {}
    by_index = any(device.isdecimal() for device in place.devices)
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if by_index else {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(place.devices), **order}


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
    stop: StopCommand | None = None
    sleep: str | None = None
    linked: str = ""
    """A directory that the model's name is linked to in the program's working directory: for engines that
    serve a model only under its path."""
    loads_cached: bool = True
    """A start reads the weights through the page cache."""
    maps_weights: bool = False
    """The weights stay mapped from their files, also in a process that is restored."""
    note: str = ""
    """What the anatomy says of how the engine gets its weights."""

    def digest(self) -> str:
        """Return a digest of what the engine would serve and how."""
        what = [list(self.argv), sorted(self.env.items()), self.weights.mark, self.version]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


Prepare = Callable[[ModelSettings, LaunchContext], Recipe]


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
