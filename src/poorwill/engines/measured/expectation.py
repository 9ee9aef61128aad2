"""What a model's starts should take here before any was measured: its files and this machine, predicted."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from poorwill.core.errors import PoorwillError
from poorwill.core.settings import ModelSettings
from poorwill.core.words import SECOND_US, Phase, Tier
from poorwill.engines.measured.storage_speed import kept_speed
from poorwill.engines.recipes.command import cache_variables
from poorwill.engines.weights.files import hub_cache, weights_of
from poorwill.engines.weights.gguf_header import read_gguf_header
from poorwill.hosts.files.opening import read_whole
from poorwill.policies.coldstart.engine_times import ENGINE_TIMES, CompileCache
from poorwill.policies.coldstart.loaders import GB, LOADERS, Storage, weight_rate
from poorwill.policies.coldstart.prediction import (
    Estimate,
    HostPace,
    Machine,
    Start,
    predict_start,
    wakes_by_tier,
)

USUAL_PACE = HostPace()
_LOAD_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "runai_streamer": "runai",
        "runai_streamer_sharded": "runai-sharded",
        "tensorizer": "tensorizer",
        "fastsafetensors": "fastsafetensors",
        "instanttensor": "instanttensor",
    }
)
"""vLLM's and SGLang's `--load-format` to `policies.coldstart.loaders`."""


def expected_wakes(
    model: ModelSettings, *, directory: str, env: Mapping[str, str], host: HostPace = USUAL_PACE
) -> dict[Tier, tuple[Estimate, ...]]:
    """Return the predicted phases of a wake from each tier, for as long as none was measured.

    Empty if nothing is known of the model's size. A snapshot is taken to be as large as the weights;
    `hibernated` is left out: only its cloud knows. `directory` is the fleet's, for its record of the storage
    and its compile caches; `host` is what it has shown of itself. Blocks for a file's header and directory
    listings; never raises for a model that cannot be read.
    """
    if model.engine.kind == "toy":
        start, size, on_device, ranks = _toy(model), 0.0, 0.0, 1
    else:
        known = known_start(model, directory=directory, env=env)
        if known is None:
            return {}
        start = predict_start(known, known_machine(directory, host))
        size, on_device, ranks = known.weight_bytes, known.device_bytes, known.ranks
    machine = known_machine(directory, host)
    return wakes_by_tier(start, image_bytes=size, machine=machine, device_bytes=on_device, ranks=ranks)


def expected_rate(model: ModelSettings, *, directory: str) -> float | None:
    """Return the bytes a second at which weights should be read here, None if it was not measured."""
    machine = known_machine(directory)
    if machine.bandwidth is None:
        return None
    return weight_rate(
        LOADERS[_loader(model)],
        machine.storage,
        bandwidth=machine.bandwidth,
        ranks=_ranks(model),
        apart=_experts_apart(model) or _stages(model) > 1,
    )


def known_start(model: ModelSettings, *, directory: str, env: Mapping[str, str]) -> Start | None:
    """Return what is known of a model's start from its files, None if its size is unknown.

    Blocks for a file's header and directory listings.
    """
    engine = model.engine
    start = Start(
        parameters=0,
        engine=engine.kind,
        loader=_loader(model),
        ranks=_ranks(model),
        stages=_stages(model),
        experts_apart=_experts_apart(model),
        compile_cache=_compile_cache(directory, engine.kind),
        eager=_eager(model),
    )
    if engine.path.endswith(".gguf"):
        try:
            header = read_gguf_header(engine.path)
        except PoorwillError:
            return None
        layers = header.values.get(f"{header.architecture}.block_count")
        return replace(
            start,
            parameters=header.parameters,
            bytes=header.file_bytes,
            layers=layers if isinstance(layers, int) else None,
        )
    weights = weights_of(engine.path, cache=hub_cache(env))
    if not weights.bytes:
        return None
    config = _model_config(weights.path)
    parameters = weights.bytes * 8 / _bits(config)
    share = _active_share(config)
    return replace(
        start,
        parameters=parameters,
        bytes=weights.bytes,
        active=None if share is None else parameters * share,
        layers=_layers(config),
    )


MOST_CONFIG = 2**24
"""Largest config.json."""


def _model_config(path: str | None) -> Mapping[str, Any]:
    """Return the model's config.json, with its text part on top if it has several; empty without one."""
    try:
        found = json.loads(read_whole(Path(path or "", "config.json"), most_bytes=MOST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    text = found.get("text_config")
    return {**found, **text} if isinstance(text, dict) else found


def _layers(config: Mapping[str, Any]) -> int | None:
    layers = config.get("num_hidden_layers")
    return layers if isinstance(layers, int) and 0 < layers < 1000 else None


def _active_share(config: Mapping[str, Any]) -> float | None:
    """Return about how much of a mixture of experts takes part in a token; None if it is none.

    Experts hold all but about a twentieth of the published ones.
    """
    counts = [config.get(name) for name in ("num_experts", "n_routed_experts", "num_local_experts")]
    experts = next((count for count in counts if isinstance(count, int) and count > 1), None)
    chosen = config.get("num_experts_per_tok")
    if experts is None or not isinstance(chosen, int) or not 0 < chosen < experts:
        return None
    return 0.05 + 0.95 * chosen / experts


def _bits(config: Mapping[str, Any]) -> float:
    """Return the bits of a parameter: of its quantisation, else of its type, else sixteen."""
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        bits = quantised.get("bits", 8 if "fp8" in str(quantised.get("quant_method")) else 4)
        return float(bits) if isinstance(bits, int) and 1 <= bits <= 16 else 8.0
    kind = str(config.get("dtype") or config.get("torch_dtype"))
    return 32.0 if kind.endswith("float32") else 16.0


def _compile_cache(directory: str, kind: str) -> CompileCache:
    """Return whether a start finds earlier compilations where poorwill has the engine keep them."""
    caches = cache_variables(str(Path(directory, "cache", kind)))
    try:
        any_kept = any(Path(caches["VLLM_CACHE_ROOT"], "torch_compile_cache").iterdir())
    except OSError:
        any_kept = False
    return CompileCache.HIT if any_kept else CompileCache.MISS


def _eager(model: ModelSettings) -> bool:
    engine = model.engine
    told = any(engine.options.get(name) is True for name in ("enforce_eager", "disable_cuda_graph"))
    return told or "--enforce-eager" in engine.args or "--disable-cuda-graph" in engine.args


def known_machine(directory: str, host: HostPace = USUAL_PACE) -> Machine:
    """Return the machine as a fleet has measured it."""
    speed = kept_speed(directory)
    storage = Storage.NETWORK if speed and speed.remote else Storage.NVME
    bandwidth = speed.bytes_s if speed else None
    return Machine(storage=storage, bandwidth=bandwidth, bus=24 * GB, host=host.factor, phases=host.phases)


def _loader(model: ModelSettings) -> str:
    engine = model.engine
    words = [str(engine.options.get("load_format", "")), *engine.args]
    named = next((_LOAD_FORMATS[word] for word in words if word in _LOAD_FORMATS), None)
    times = ENGINE_TIMES.get(engine.kind)
    return named or (times.loader if times else "safetensors")


def _ranks(model: ModelSettings) -> int:
    return _whole(model, "tensor_parallel_size", "tp", "tp_size") * _stages(model)


def _stages(model: ModelSettings) -> int:
    return _whole(model, "pipeline_parallel_size", "pp", "pp_size")


def _experts_apart(model: ModelSettings) -> bool:
    engine = model.engine
    told = engine.options.get("enable_expert_parallel") is True
    return told or "--enable-expert-parallel" in engine.args


def _whole(model: ModelSettings, *names: str) -> int:
    """Return the first of these options that is a number above 0, else 1."""
    given = (model.engine.options.get(name) for name in names)
    return next((count for count in given if isinstance(count, int) and count > 0), 1)


def _toy(model: ModelSettings) -> tuple[Estimate, ...]:
    load_s = float(model.engine.options.get("load_seconds", 0))
    parts = {Phase.SPAWN: 0.2, Phase.WEIGHTS: 0.7 * load_s, Phase.KV_CACHE: 0.1 * load_s}
    return tuple(
        Estimate(
            phase=phase,
            expected_us=round(seconds * SECOND_US),
            low_us=round(seconds * SECOND_US),
            high_us=round(2 * seconds * SECOND_US),
            why="as configured",
        )
        for phase, seconds in (parts | {Phase.WARMUP: 0.2 * load_s}).items()
    )
