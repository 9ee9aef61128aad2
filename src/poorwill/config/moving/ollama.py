"""Ollama's models as a fleet: its manifests name the files that llama.cpp can serve without it.

The layout is ollama/server/modelpath.go's and manifest.go's: `manifests/HOST/NAMESPACE/NAME/TAG` is JSON that
lists layers by digest; `blobs/sha256-...` are their files.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from poorwill.config.moving.carried import Carried, CarriedModel, Left, model_name, refuse
from poorwill.hosts.files.opening import read_whole

_LAYER = "application/vnd.ollama.image."
_HOME, _OFFICIAL = "registry.ollama.ai", "library"
_MOST = 4 * 2**20
_PROJECTOR = 'the part that sees images is not served: use llama-server --mmproj, or engine = "ollama"'


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaModel:
    """One name of Ollama's, and its files by kind (`model`, `params`, `projector` ...)."""

    name: str
    layers: Mapping[str, str]


def ollama_home(env: Mapping[str, str]) -> str:
    """Return the directory of Ollama's models: the user's, or that of its service if there is no other."""
    service = "/usr/share/ollama/.ollama/models"
    own = os.path.join(env.get("HOME", "/"), ".ollama", "models")
    named = env.get("OLLAMA_MODELS")
    return named or (service if not os.path.isdir(own) and os.path.isdir(service) else own)


def ollama_models(home: str) -> Iterator[OllamaModel]:
    """Yield the models in a directory of Ollama's, by name. What cannot be read is left out."""
    root = Path(home, "manifests")
    for path in sorted(root.glob("*/*/*/*")):
        try:
            layers = json.loads(read_whole(path, most_bytes=_MOST))["layers"]
            files = {
                layer["mediaType"].removeprefix(_LAYER): str(
                    Path(home, "blobs", layer["digest"].replace(":", "-"))
                )
                for layer in layers
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        yield OllamaModel(name=_name(path.relative_to(root).parts), layers=files)


def name_of_blob(path: str) -> str:
    """Return Ollama's name for one of its blobs; empty if it is none, or no model's."""
    place = Path(os.path.realpath(path))
    if not re.fullmatch(r"sha256-[0-9a-f]{64}", place.name):
        return ""
    models = ollama_models(str(place.parent.parent))
    return next((one.name for one in models if Path(one.layers.get("model", "")).name == place.name), "")


def _name(parts: tuple[str, ...]) -> str:
    host, space, name, tag = parts
    whole = name if (host, space) == (_HOME, _OFFICIAL) else f"{space}/{name}"
    if host != _HOME:
        whole = f"{host}/{whole}"
    return model_name(whole if tag == "latest" else f"{whole}:{tag}")


def carry_ollama(home: str) -> Carried:
    """Return the fleet of all models in a directory of Ollama's; several names of one file become one model.

    Raises OperatorFault if there is none.
    """
    models: dict[str, CarriedModel] = {}
    left = []
    for one in ollama_models(home):
        file = one.layers.get("model", "")
        if not os.path.exists(file):
            left.append(Left(one.name, "has no model file here (ollama pull gets it), or is a cloud model"))
        elif file in models:
            before = models[file]
            names = [*_names(before), one.name]
            models[file] = CarriedModel(
                name=before.name,
                keys={**before.keys, "aliases": names},
                origin=before.origin,
                left=before.left,
            )
        else:
            models[file] = _model(one, file)
    if not models:
        raise refuse(
            f"no models of Ollama's in {home}", "OLLAMA_MODELS=DIR, or --from DIR, names another place"
        )
    note = Left("templates", "llama.cpp takes the one inside the model's file; compare an answer")
    return Carried(source="Ollama's models", models=tuple(models.values()), left=(*left, note), port=0)


def _names(model: CarriedModel) -> list[object]:
    names = model.keys.get("aliases", [])
    return list(names) if isinstance(names, list) else []


def _model(one: OllamaModel, file: str) -> CarriedModel:
    keys: dict[str, object] = {"engine": "llama.cpp", "path": file}
    left = [Left("projector", _PROJECTOR)] if "projector" in one.layers else []
    if "adapter" in one.layers:
        left.append(Left("adapter", "is not loaded: use llama-server --lora"))
    if "system" in one.layers:
        left.append(Left("system", "the system prompt is the client's business"))
    parameters = _parameters(one.layers.get("params", ""))
    context = parameters.pop("num_ctx", None)
    if isinstance(context, int) and context > 0:
        keys["context"] = context
    if parameters:
        left.append(Left("parameters", f"clients send them: {', '.join(parameters)}"))
    return CarriedModel(name=one.name, keys=keys, origin=f"was: ollama run {one.name}", left=tuple(left))


def _parameters(path: str) -> dict[str, object]:
    try:
        values = json.loads(read_whole(path, most_bytes=_MOST)) if path else {}
    except (OSError, ValueError):
        return {}
    return dict(values) if isinstance(values, dict) else {}
