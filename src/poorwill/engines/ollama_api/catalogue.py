"""What Ollama's API says of models: which there are, which are loaded, what one is.

Names are those of `fleet.toml`. A digest is of the name alone: it tells one model from another, no more.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from poorwill.core.ports.view import ReplicaStatus
from poorwill.core.words import SECOND_US, ModelName

VERSION = "0.12.0"
"""The version of Ollama whose API this is."""
Json = dict[str, Any]


def tags(models: Iterable[ModelName], *, since_us: int) -> Json:
    """Return the models that there are."""
    return {"models": [_row(model) | {"modified_at": _time(since_us)} for model in models]}


def loaded(replicas: Iterable[ReplicaStatus], *, now_us: int) -> Json:
    """Return the models that are ready; one expires when it will be parked if nobody asks."""
    rows = []
    for replica in replicas:
        if replica.state == "ready":
            parks_us = replica.parks_at_us or now_us + 3600 * SECOND_US
            rows.append(_row(replica.model) | {"expires_at": _time(parks_us), "size_vram": 0})
    return {"models": rows}


def shown(model: ModelName, row: Mapping[str, object], *, since_us: int) -> Json:
    """Return what one model is, as far as its row in `/v1/models` tells."""
    context = row.get("context_length")
    sees = "image" in str(row.get("architecture"))
    return {
        "modelfile": f"# {model} is configured in poorwill's fleet.toml\n",
        "parameters": f"num_ctx {context}" if context else "",
        "template": "",
        "details": _details(),
        "model_info": {"general.architecture": "unknown", "unknown.context_length": context}
        if context
        else {},
        "capabilities": ["completion", "tools", *(["vision"] if sees else [])],
        "modified_at": _time(since_us),
    }


def _row(model: ModelName) -> Json:
    digest = hashlib.sha256(model.encode()).hexdigest()
    return {"name": model, "model": model, "size": 0, "digest": digest, "details": _details()}


def _details() -> Json:
    blank = dict.fromkeys(("parent_model", "format", "family", "parameter_size", "quantization_level"), "")
    return {**blank, "families": None}


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / SECOND_US, UTC).isoformat().replace("+00:00", "Z")
