"""An engine on a rented machine, which starts it: poorwill only needs its address and readiness path.

Its program, weights and log are on that machine.
"""

from collections.abc import Mapping
from types import MappingProxyType

from poorwill.core.settings import ModelSettings
from poorwill.engines.recipe import LaunchContext, Recipe
from poorwill.engines.weights.files import Weights

_READY_PATHS: Mapping[str, str] = MappingProxyType({"ollama": "/api/version"})
"""Readiness paths other than /health."""


def rented_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe: nothing to execute."""
    engine = settings.engine
    return Recipe(
        argv=(),
        env={},
        ready_path=engine.ready_path or _READY_PATHS.get(engine.kind, "/health"),
        weights=Weights(),
        version=settings.cloud.named if settings.cloud else "",
        engine_model=engine.engine_model or settings.name,
    )
