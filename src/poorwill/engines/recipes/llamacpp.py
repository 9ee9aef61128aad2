"""llama.cpp, embedded: its own HTTP server from the wheel xllamacpp, in a child process."""

import sys
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import LLAMACPP_SLOTS, ModelSettings, OptionKind, OptionKinds
from poorwill.core.words import Tier
from poorwill.engines.programs.llamacpp_server import LOAD_MODES
from poorwill.engines.recipe import LaunchContext, Recipe, flags
from poorwill.engines.weights.files import weights_of
from poorwill.engines.weights.gguf_header import read_gguf_header

SLEEP_OPTION = "sleep_idle_seconds"
"""Makes the tier `asleep` possible: the server unloads its model when idle so long."""

OPTIONS: OptionKinds = MappingProxyType(
    {
        **dict.fromkeys(("parallel", "threads", "gpu_layers", "prompt_cache_mib"), OptionKind.WHOLE),
        **dict.fromkeys(("load_verbosity", "verbosity", SLEEP_OPTION), OptionKind.WHOLE),
        **dict.fromkeys(("embeddings", "no_warmup"), OptionKind.FLAG),
        "load_mode": LOAD_MODES,
    }
)
"""What `[model.engine.options]` may hold; each is a flag of programs/llamacpp_server.py."""


SPARE_THREADS = 8
"""Each open connection holds one of the server's threads: besides those of clients there are the gateway's
idle ones, probes and metrics."""


def llamacpp_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe. Raises OperatorFault if the model file is missing or no model."""
    engine = settings.engine
    header = read_gguf_header(engine.path)
    name = engine.engine_model or settings.name
    load_mode, why = _load_mode(settings)
    options = {"parallel": LLAMACPP_SLOTS, "load_mode": load_mode, **engine.options}
    clients = max(int(options["parallel"]), settings.replica.max_concurrency)
    argv = (
        *(sys.executable, "-P", "-u", "-m", "poorwill.engines.programs.llamacpp_server"),
        *("--model", header.path, "--alias", name, "--host", context.host, "--port", str(context.port)),
        *("--context", str(min(engine.context, header.context))),
        *("--http-threads", str(clients + SPARE_THREADS)),
        *flags(options),
        *engine.args,
    )
    return Recipe(
        argv=argv,
        env={**context.inherited(), **engine.env},
        ready_path=engine.ready_path or "/health",
        weights=weights_of(engine.path, words=engine.args),
        version=f"xllamacpp {_version()}",
        engine_model=name,
        sleep="llama.cpp" if SLEEP_OPTION in engine.options else None,
        loads_cached=load_mode != "direct_io",
        maps_weights=load_mode in ("auto", "mmap", "mlock"),
        note=f"load_mode {load_mode}: {why}",
    )


def _load_mode(settings: ModelSettings) -> tuple[str, str]:
    """Return how the engine gets its weights, and why: as measured (docs/parking-figures.md, Load modes)."""
    configured = settings.engine.options.get("load_mode")
    if configured is not None:
        return str(configured), "as configured"
    frozen = Tier.FROZEN in settings.replica.park.ladder
    return "mmap", "its image is small for the tier frozen" if frozen else "it starts and wakes sooner"


def _version() -> str:
    try:
        return version("xllamacpp")
    except PackageNotFoundError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "the engine llama.cpp needs the package xllamacpp",
            hint="pip install xllamacpp",
        ) from error
