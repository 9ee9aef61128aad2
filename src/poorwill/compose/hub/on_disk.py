"""The models that lie on this machine: in the hub's cache, in llama.cpp's and in Ollama's.

The hub's layout is huggingface_hub's (its guide "Understand caching"): `models--ORG--NAME/snapshots/COMMIT`
has links into `blobs`, and `refs/REVISION` names the commit.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from poorwill.config.moving.ollama import ollama_home, ollama_models
from poorwill.config.values.hub_names import HubName, hub_name
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import ModelSettings
from poorwill.engines.weights.files import SUFFIXES, hub_cache
from poorwill.remote.hub.choose import choose_gguf, whole


class ModelOnDisk(Struct, frozen=True, kw_only=True):
    """A model in a cache of this machine; `models` of the fleet use it.

    `used_us` is when its files were last read, as the file system tells: often a day late. UNIX time.
    """

    name: str
    cache: str
    path: str
    size_bytes: int
    used_us: int
    models: tuple[str, ...]


class ModelsDocument(Struct, frozen=True, kw_only=True):
    """The models in the caches of this machine."""

    models: tuple[ModelOnDisk, ...]


def wants_gguf(name: HubName, engine: str) -> bool:
    """Return whether a model's engine loads one file of the repository instead of all."""
    return engine in ("llama.cpp", "toy") or name.which.endswith(".gguf")


def located(model: ModelSettings, env: Mapping[str, str]) -> ModelSettings:
    """Return the model with the path of its files, if it is given by name and they are on disk."""
    name = hub_name(model.engine.path)
    path = path_of(name, model.engine.kind, env) if name else None
    return replace(model, engine=replace(model.engine, path=path)) if path else model


def on_disk(model: ModelSettings, env: Mapping[str, str]) -> ModelSettings:
    """Return the model with the path of its files. Raises OperatorFault if they are not on disk."""
    found = located(model, env)
    if hub_name(found.engine.path) is None:
        return found
    what = f"model {model.name}: {model.engine.path} is not on disk"
    raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=f"poorwill pull {model.name}")


def path_of(name: HubName, engine: str, env: Mapping[str, str]) -> str | None:
    """Return the file or directory of a model that is on disk as a whole; None if it is not."""
    snapshot = _snapshot(Path(hub_cache(env)), name)
    if not wants_gguf(name, engine):
        return str(snapshot) if snapshot and _complete(snapshot) else None
    if snapshot is not None:
        files = [str(f.relative_to(snapshot)) for f in snapshot.rglob("*.gguf") if f.exists()]
        parts = choose_gguf(files, name.which)
        if parts and whole(parts):
            return str(snapshot / parts[0])
    return _of_others(name, env) if name.revision == "main" else None


def _snapshot(cache: Path, name: HubName) -> Path | None:
    home = cache / f"models--{name.repo.replace('/', '--')}"
    commit = name.revision
    with suppress(OSError, ValueError):
        commit = (home / "refs" / name.revision).read_text().strip()
    found = home / "snapshots" / commit
    return found if commit and found.is_dir() else None


def _complete(snapshot: Path) -> bool:
    """Return whether a directory has a configuration and all weights: they are downloaded last."""
    here = {f.name for f in snapshot.iterdir() if f.exists()}
    with suppress(OSError, ValueError, KeyError, AttributeError):
        index = json.loads((snapshot / "model.safetensors.index.json").read_text())
        return set(index["weight_map"].values()) <= here
    weights = [one for one in here if one.endswith(SUFFIXES)]
    return "config.json" in here and bool(weights) and whole(weights)


def _of_others(name: HubName, env: Mapping[str, str]) -> str | None:
    """Return the file that llama.cpp (`-hf`) or Ollama (`hf.co/...`) has downloaded of the same model."""
    cache, prefix = _llamacpp_cache(env), f"{name.repo.replace('/', '_')}_"
    with suppress(OSError):
        files = {f.removeprefix(prefix): f for f in os.listdir(cache) if f.startswith(prefix)}
        parts = choose_gguf(files, name.which)
        if parts and whole(parts):
            return os.path.join(cache, files[parts[0]])
    called = f"hf.co/{name.repo}" + (f":{name.which}" if name.which else "")
    for one in ollama_models(ollama_home(env)):
        file = one.layers.get("model", "")
        if one.name.lower() == called.lower() and os.path.exists(file):
            return file
    return None


def _llamacpp_cache(env: Mapping[str, str]) -> str:
    base = env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME", "/"), ".cache")
    return env.get("LLAMA_CACHE") or os.path.join(base, "llama.cpp")


def models_on_disk(models: Sequence[ModelSettings], env: Mapping[str, str]) -> Iterator[ModelOnDisk]:
    """Yield every model in the caches of this machine. Blocks for directory listings."""
    users = [(str(model.name), os.path.realpath(located(model, env).engine.path)) for model in models]

    def found(name: str, cache: str, path: Path, files: Sequence[Path]) -> ModelOnDisk:
        states = [file.stat() for file in files]
        mine = {os.path.realpath(one) for one in (path, *files)}
        below = f"{os.path.realpath(path)}/"
        return ModelOnDisk(
            name=name,
            cache=cache,
            path=str(path),
            size_bytes=sum(state.st_size for state in states),
            used_us=max((state.st_atime_ns // 1000 for state in states), default=0),
            models=tuple(user for user, used in users if used in mine or used.startswith(below)),
        )

    for home in sorted(Path(hub_cache(env)).glob("models--*--*")):
        blobs = [file for file in (home / "blobs").glob("*") if file.is_file()]
        yield found("hf:" + home.name.removeprefix("models--").replace("--", "/", 1), "hub", home, blobs)
    for file in sorted(Path(_llamacpp_cache(env)).glob("*.gguf")):
        yield found(file.name, "llama.cpp", file, [file])
    for one in ollama_models(ollama_home(env)):
        if os.path.exists(blob := one.layers.get("model", "")):
            yield found(one.name, "ollama", Path(blob), [Path(blob)])


def remove(one: ModelOnDisk | None, *, named: str) -> ModelOnDisk:
    """Remove a model from its cache, and return it. Raises OperatorFault if it must not be."""
    if one is None:
        hint = "poorwill models lists what is there"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, f"no model {named!r} in the caches", hint=hint)
    if one.models:
        hint = "take it out of fleet.toml first"
        raise OperatorFault(ErrorCode.IN_USE, f"{named} is used by {', '.join(one.models)}", hint=hint)
    if one.cache == "ollama":
        what = f"{named} is Ollama's, whose blobs can belong to several models"
        raise OperatorFault(ErrorCode.IN_USE, what, hint=f"ollama rm {named}")
    try:
        if os.path.isdir(one.path):
            shutil.rmtree(one.path)
        else:
            os.unlink(one.path)
    except OSError as error:
        what = f"cannot remove {error.filename or one.path}: {error.strerror}"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="look at its owner and mode") from error
    return one
