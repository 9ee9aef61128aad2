"""The toy engine: programs/toy_server.py, for tests and benchmarks."""

import sys
from importlib.metadata import version

from poorwill.core.settings import ModelSettings
from poorwill.engines.recipe import Place, Recipe, flags, weights_of

OPTIONS = (
    *("load_seconds", "tokens_per_second", "prefill_seconds", "slots", "rss_mb", "fail_start"),
    *("never_ready", "exit_after", "hang", "hang_after_requests", "die_after_requests"),
    *("die_in_request", "fail_requests", "ignore_sigterm", "flood_log", "sleep_api"),
)
"""What `[model.engine.options]` may hold; each is a flag of the program."""


def toy_recipe(settings: ModelSettings, place: Place) -> Recipe:
    """Return the recipe. A path is optional: it only counts as the model's weights."""
    engine = settings.engine
    name = engine.engine_model or settings.name
    argv = (
        *(sys.executable, "-P", "-u", "-m", "poorwill.engines.programs.toy_server"),
        *("--model", name, "--host", place.host, "--port", str(place.port)),
        *flags(engine.options),
        *engine.args,
    )
    return Recipe(
        argv=argv,
        env={**place.inherited(), **engine.env},
        ready_path=engine.ready_path or "/health",
        weights=weights_of(engine.path),
        version=f"poorwill {version('poorwill')}",
        engine_model=name,
        sleep="toy" if engine.options.get("sleep_api") else None,
    )
