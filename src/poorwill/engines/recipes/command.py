"""Any OpenAI-compatible server that a command line starts, and presets for those that are well known.

A preset knows the flags, the readiness path, the variables that keep compile and kernel caches where they
survive a restart, and what makes the engine's own sleep available. Flags as of vLLM 0.33, SGLang 0.5.23,
transformers 5.23 and Ollama's environment (each project's documentation).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.launch import Place, StopCommand
from poorwill.core.settings import EngineSettings, ModelSettings
from poorwill.engines.recipe import LaunchContext, Recipe, flags, program_version
from poorwill.engines.weights.files import hub_cache, weights_of
from poorwill.hosts.containers.run_line import CLIENT_VARIABLES, completed, removal, run_line

SLEEP_OPTION = "sleep"
"""`[model.engine.options] sleep = true` starts vLLM or SGLang with their sleep API; `sleep = 2` is vLLM's
level 2, which drops the weights instead of keeping them in host memory."""


_PARALLEL = frozenset(
    ("tensor-parallel-size", "tp", "pipeline-parallel-size", "pp", "data-parallel-size", "dp")
)
_MEMORY = frozenset({"gpu-memory-utilization", "kv-cache-memory-bytes"})
"""vLLM's flags that say by hand what follows from the devices it is given (vllm/engine/arg_utils.py). Its
share is one of all the memory that a device has; it does not start if so much is not free."""


def cache_variables(cache: str) -> dict[str, str]:
    """Return the variables that put compile and kernel caches under `cache`."""
    return {
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "FLASHINFER_WORKSPACE_BASE": f"{cache}/flashinfer",
        "CUDA_CACHE_PATH": f"{cache}/cuda",
    }


def command_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe for `command`: `{port}`, `{host}`, `{path}` and `{name}` are filled in.

    Raises OperatorFault if there is no command, or no such program.
    """
    engine = settings.engine
    if not engine.command:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"model {settings.name}: the engine `command` needs a command",
            hint='command = ["llama-server", "-m", "{path}", "--port", "{port}"]',
        )
    argv = _filled((*engine.command, *engine.args), settings, context)
    return _recipe(settings, context, argv, cache_variables(context.cache))


def vllm_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe for `vllm serve`."""
    engine, sleeps = settings.engine, _sleeps(settings.engine)
    argv = (
        *(engine.command or ("vllm", "serve")),
        *(_path(settings), "--host", context.host, "--port", str(context.port)),
        *("--served-model-name", engine.engine_model or settings.name),
        *(("--enable-sleep-mode",) if sleeps else ()),
        *_vllm_devices(engine, context.place),
        *_vllm_adapters(engine),
        *flags(_without_sleep(engine)),
        *engine.args,
    )
    env = {"NO_COLOR": "1", "VLLM_LOGGING_COLOR": "0"} | cache_variables(context.cache)
    if sleeps:
        env["VLLM_SERVER_DEV_MODE"] = "1"
    return _recipe(settings, context, argv, env, sleep=_vllm_sleep(engine))


def _vllm_devices(engine: EngineSettings, place: Place | None) -> Iterator[str]:
    """Yield the flags by which vLLM uses all its devices, and of one that it shares only its part."""
    by_hand = {name.replace("_", "-") for name in engine.options}
    by_hand |= {word.partition("=")[0].lstrip("-").replace("_", "-") for word in engine.args}
    if place is None:
        return
    if len(place.devices) > 1 and not by_hand & _PARALLEL:
        yield from ("--tensor-parallel-size", str(len(place.devices)))
    if place.share_bytes and not by_hand & _MEMORY:
        share = place.share_bytes * 10_000 // place.total_bytes / 10_000
        yield from ("--gpu-memory-utilization", str(share))


def _vllm_adapters(engine: EngineSettings) -> Iterator[str]:
    """Yield the flags by which vLLM serves LoRA adapters, each under a name of its own."""
    if engine.adapters:
        yield from ("--enable-lora", "--lora-modules")
        yield from (f"{name}={path}" for name, path in engine.adapters.items())


def sglang_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe for SGLang's server."""
    engine, sleeps = settings.engine, _sleeps(settings.engine)
    saver = ("--enable-memory-saver", "--enable-weights-cpu-backup")
    argv = (
        *(engine.command or ("python3", "-m", "sglang.launch_server")),
        *("--model-path", _path(settings), "--host", context.host, "--port", str(context.port)),
        *("--served-model-name", engine.engine_model or settings.name),
        "--enable-metrics",  # whether it works is seen there
        *(saver if sleeps else ()),
        *flags(_without_sleep(engine)),
        *engine.args,
    )
    env = {"SGLANG_LOG_MS": "1"} | cache_variables(context.cache)
    return _recipe(settings, context, argv, env, sleep="sglang" if sleeps else None)


def transformers_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe for `transformers serve`.

    It answers only to the path it was given, so a local model is given by the model's own name, as a link
    where the program runs. A model of the hub keeps its id, and an engine with a user of its own, who cannot
    enter there, the path: the gateway asks for that.
    """
    engine = settings.engine
    path = _path(settings)
    local = os.path.isdir(path) and not engine.user
    named = engine.engine_model or (settings.name if local else path)
    argv = (
        *(engine.command or ("transformers", "serve")),
        *(named, "--host", context.host, "--port", str(context.port)),
        *("--model-timeout", "-1"),  # parking is poorwill's business
        *flags(engine.options),
        *engine.args,
    )
    env = cache_variables(context.cache)
    recipe = _recipe(settings, context, argv, env, engine_model=named)
    return replace(recipe, linked=path if local else "")


def ollama_recipe(settings: ModelSettings, context: LaunchContext) -> Recipe:
    """Return the recipe for `ollama serve`; the model is loaded by the warm-up request and kept."""
    engine = settings.engine
    if not engine.engine_model:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"model {settings.name}: the engine `ollama` needs engine_model",
            hint='engine_model = "qwen3:0.6b", as `ollama list` shows it',
        )
    argv = (*(engine.command or ("ollama", "serve")), *engine.args)
    env = {"OLLAMA_HOST": f"{context.host}:{context.port}", "OLLAMA_KEEP_ALIVE": "-1"}
    if settings.replica.max_concurrency:
        env["OLLAMA_NUM_PARALLEL"] = str(settings.replica.max_concurrency)
    ready = engine.ready_path or "/api/version"
    return _recipe(settings, context, argv, env, sleep="ollama", ready_path=ready)


def _recipe(
    settings: ModelSettings,
    context: LaunchContext,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    *,
    sleep: str | None = None,
    engine_model: str = "",
    ready_path: str = "",
) -> Recipe:
    """Return the recipe; a container is named, and gets the engine's variables and its devices alone."""
    engine = settings.engine
    whole = {**context.inherited(), **env, **engine.env}
    ends, container = _filled(engine.stop_command, settings, context), ""
    if (line := run_line(argv)) is not None:
        devices = context.place.devices if context.place is not None else None
        container = next(line.values("--name"), context.container)
        argv = completed(line, name=container, devices=devices, variables=(*env, *engine.env)).words()
        ends = ends or removal(line, container)
        whole = {**{name: context.env[name] for name in CLIENT_VARIABLES if name in context.env}, **whole}
    return Recipe(
        argv=argv,
        env=whole,
        ready_path=ready_path or engine.ready_path or "/health",
        weights=weights_of(engine.path, cache=hub_cache(whole), words=argv),
        version=program_version(argv[0], whole),
        engine_model=engine_model or engine.engine_model or settings.name,
        sleep=sleep,
        stop=StopCommand(argv=ends, container=container) if ends else None,
    )


def _path(settings: ModelSettings) -> str:
    if not settings.engine.path:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"model {settings.name}: the engine {settings.engine.kind} needs a path",
            hint="a model directory, or a model id of the hub",
        )
    return settings.engine.path


def _sleeps(engine: EngineSettings) -> bool:
    return bool(engine.options.get(SLEEP_OPTION))


def _vllm_sleep(engine: EngineSettings) -> str | None:
    level = engine.options.get(SLEEP_OPTION)
    if not level:
        return None
    return "vllm-2" if level is not True and level == 2 else "vllm"


def _without_sleep(engine: EngineSettings) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in engine.options.items() if name != SLEEP_OPTION}


def _filled(command: Sequence[str], settings: ModelSettings, context: LaunchContext) -> tuple[str, ...]:
    """Return a command with what its placeholders stand for."""
    engine = settings.engine
    name = engine.engine_model or settings.name
    words = {"port": str(context.port), "host": context.host, "path": engine.path, "name": name}
    for mark, value in words.items():
        command = [word.replace(f"{{{mark}}}", value) for word in command]
    return tuple(command)
