"""A model of an engine that is installed beside poorwill, with what suits that engine."""

from collections.abc import Mapping

from poorwill.config.moving.carried import Carried, CarriedModel, model_name

_ASLEEP = ("asleep", "cold")
_SLEEPING: Mapping[str, object] = {"options": {"sleep": True}, "ladder": _ASLEEP}
INSTALLED: Mapping[str, tuple[str, str, Mapping[str, object]]] = {
    "vllm": ("path", "vLLM. Its own sleep is the first tier: the weights go, the process stays.", _SLEEPING),
    "sglang": (
        "path",
        "SGLang. Its own sleep is the first tier: the memory goes, the process stays.",
        _SLEEPING,
    ),
    "transformers": ("path", "transformers serve.", {"ladder": ["cold"]}),
    "ollama": ("engine_model", "Ollama keeps the model; poorwill starts and ends it.", {"ladder": _ASLEEP}),
}
"""The key that names the model, a comment, and the other keys, by engine."""


def installed(engine: str, model: str, *, name: str = "") -> Carried:
    """Return the fleet of one model; `model` is a directory, a model id of the hub, or Ollama's name."""
    key, comment, keys = INSTALLED[engine]
    called = name or model_name(model if key == "engine_model" else model.rstrip("/").rpartition("/")[2])
    one = CarriedModel(name=called, keys={"engine": engine, key: model, **keys}, origin=comment)
    return Carried(source="", models=(one,))
