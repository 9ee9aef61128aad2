"""The toy engine: programs/toy_server.py, for tests and benchmarks."""

import sys
from types import MappingProxyType

from poorwill import __version__
from poorwill.core.settings import ModelSettings, OptionKind, OptionKinds
from poorwill.engines.recipe import LaunchContext, Recipe, flags
from poorwill.engines.weights.files import weights_of

WHOLE, NUMBER, FLAG = OptionKind.WHOLE, OptionKind.NUMBER, OptionKind.FLAG

OPTIONS: OptionKinds = MappingProxyType(
    {
        **dict.fromkeys(("load_seconds", "tokens_per_second", "prefill_seconds"), NUMBER),
        **dict.fromkeys(("slots", "rss_mb", "flood_log", "fail_requests"), WHOLE),
        **dict.fromkeys(("hang_after_requests", "spin_after_requests"), WHOLE),
        **dict.fromkeys(("die_after_requests", "die_in_request"), WHOLE),
        **dict.fromkeys(("fail_start", "never_ready", "hang", "ignore_sigterm"), FLAG),
        "exit_after": NUMBER,
    }
)
"""What `[model.engine.options]` may hold; each is a flag of the program."""


def toy_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe. A path is optional: it only counts as the model's weights."""
    engine = settings.engine
    name = engine.engine_model or settings.name
    argv = (
        *(sys.executable, "-P", "-u", "-m", "poorwill.engines.programs.toy_server"),
        *("--model", name, "--host", context.host, "--port", str(context.port)),
        *flags(engine.options),
        *engine.args,
    )
    return Recipe(
        argv=argv,
        env={**context.inherited(), **engine.env},
        ready_path=engine.ready_path or "/health",
        weights=weights_of(engine.path),
        version=f"poorwill {__version__}",
        engine_model=name,
    )
