"""An engine on a rented machine: its machine starts it, so there is only what to ask it and where.

Nothing of its program, its weights or its log is here; what a kind of engine is asked for readiness is all
that is left of the kind.
"""

from collections.abc import Mapping
from types import MappingProxyType

from poorwill.core.settings import ModelSettings
from poorwill.engines.recipe import LaunchContext, Recipe, Weights

_READY_PATHS: Mapping[str, str] = MappingProxyType({"ollama": "/api/version"})
"""Where it is not /health, as for engines here."""


def rented_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe: nothing to execute. It changes where what the engine is asked changes."""
    engine = settings.engine
    return Recipe(
        argv=(),
        env={},
        ready_path=engine.ready_path or _READY_PATHS.get(engine.kind, "/health"),
        weights=Weights(),
        version=settings.cloud.named if settings.cloud else "",
        engine_model=engine.engine_model or settings.name,
    )
