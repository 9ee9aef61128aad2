"""The names that clients use, what they mean, and what `/v1/models` says of each."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from poorwill.core.ports.names import Meaning, model_row
from poorwill.core.settings import EngineSettings, FleetSettings, ModelSettings
from poorwill.core.words import SECOND_US, ModelName
from poorwill.engines.dialects.bodies import with_values
from poorwill.engines.paths import ENGINE_PATHS
from poorwill.fleet.fleet import Fleet


class Catalogue:
    """The names of a served fleet. It follows the configuration."""

    def __init__(self, fleet: Fleet, *, started_us: int) -> None:
        self._fleet = fleet
        self._started_s = started_us // SECOND_US
        self._of: FleetSettings | None = None
        self._meanings: Mapping[str, Meaning] = {}

    def meaning(self, name: ModelName) -> Meaning | None:
        """Return what a name means that is not a model's own. On the warm path."""
        settings = self._fleet.reshaper.settings
        if settings is not self._of:
            self._of = settings
            self._meanings = {
                name: meant for model in settings.models for name, meant in meanings(model).items()
            }
        return self._meanings.get(name)

    def rows(self, may_use: Callable[[ModelName], bool]) -> Sequence[Mapping[str, object]]:
        """Return what `/v1/models` lists: every name of every model that may be used."""
        states: dict[ModelName, list[str]] = {}
        for one in self._fleet.view.status():
            states.setdefault(one.model, []).append(f"{one.state} {one.tier}" if one.tier else one.state)
        served = set(self._fleet.view.models())
        models = [model for model in self._fleet.reshaper.settings.models if model.name in served]
        return [
            row
            for model in models
            if may_use(model.name)
            for row in rows_of(model, states.get(model.name, []), started_s=self._started_s)
        ]


def meanings(model: ModelSettings) -> Mapping[str, Meaning]:
    """Return what the names mean that a model has besides its own."""
    found = {alias: Meaning(model=model.name) for alias in model.aliases}
    for name, values in model.presets.items():
        fixed = {key: value for key, value in values.items() if key != "default"}
        default = values.get("default", {})
        defaults = default if isinstance(default, Mapping) else {}
        change = partial(with_values, values=fixed, defaults=defaults)
        found[name] = Meaning(model=model.name, changed=change)
    adapters = {name: Meaning(model=model.name, adapter=name) for name in model.engine.adapters}
    return {**found, **adapters}


_WANTS: Mapping[str, str] = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "embeddings",
    "/v1/reranking": "embeddings",
    "/v1/audio/transcriptions": "mmproj",
}
"""Paths that llama.cpp refuses without an option of its own."""


def context_of(engine: EngineSettings) -> int | None:
    """Return the longest context that an engine is told to take; None: its model's files say it."""
    if engine.kind in ("llama.cpp", "toy"):
        return engine.context
    told = engine.options.get({"vllm": "max_model_len", "sglang": "context_length"}.get(engine.kind, ""))
    return told if isinstance(told, int) and told > 0 else None


def rows_of(model: ModelSettings, states: Sequence[str], *, started_s: int) -> Sequence[Mapping[str, object]]:
    """Return a row for each name of a model, in a shape that OpenAI's and Anthropic's clients both read.

    `context_length` is what OpenRouter and LM Studio call it, `max_model_len` vLLM.
    """
    engine = model.engine
    sees = "mmproj" in engine.options
    paths = sorted(
        path.removeprefix("/v1/")
        for path in ENGINE_PATHS.get(engine.kind, ())
        if engine.kind != "llama.cpp" or engine.options.get(_WANTS.get(path, ""), path not in _WANTS)
    )
    longest = context_of(engine)
    facts = {
        **({"context_length": longest, "max_model_len": longest} if longest else {}),
        "capabilities": paths,
        "architecture": {
            "input_modalities": ["text", "image"] if sees else ["text"],
            "output_modalities": ["text"],
        },
        "state": states[0] if len(states) == 1 else list(states),
        "aliases": list(model.names[1:]),
    }
    others = meanings(model)
    return [
        model_row(name, started_s) | facts | ({"root": model.name} if name in others else {})
        for name in (model.name, *others)
    ]
