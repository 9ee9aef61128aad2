"""An engine that poorwill does not start, elsewhere or on a rented machine: all it needs is a path to ask.

Its program, weights and log are there.
"""

from collections.abc import Mapping
from types import MappingProxyType

from poorwill.core.settings import ModelSettings
from poorwill.engines.recipe import LaunchContext, Recipe
from poorwill.engines.weights.files import Weights

_READY_PATHS: Mapping[str, str] = MappingProxyType({"ollama": "/api/version"})
"""Readiness paths other than /health."""

_ANY_READY_PATH = "/v1/models"
"""Of an engine elsewhere of which nothing is known: every OpenAI-compatible server has it."""


def rented_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe: nothing to execute."""
    engine, away = settings.engine, settings.away
    by_kind = _ANY_READY_PATH if engine.kind == "command" and settings.cloud is None else "/health"
    return Recipe(
        argv=(),
        env={},
        ready_path=engine.ready_path or _READY_PATHS.get(engine.kind, by_kind),
        weights=Weights(),
        version=away.named if away is not None else "",
        engine_model=engine.engine_model or settings.name,
    )
