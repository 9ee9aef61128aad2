"""What a model's starts should take here before any was measured: its files and this machine, predicted."""

from collections.abc import Mapping
from types import MappingProxyType

from poorwill.core.engine_times import ENGINE_TIMES, USUAL_HOST
from poorwill.core.errors import PoorwillError
from poorwill.core.loaders import GB, LOADERS, Storage, weight_rate
from poorwill.core.prediction import Estimate, Machine, Start, predict_start, wakes_by_tier
from poorwill.core.settings import ModelSettings
from poorwill.core.words import SECOND_US, Phase, Tier
from poorwill.engines.gguf_header import read_gguf_header
from poorwill.engines.recipe import hub_cache, weights_of
from poorwill.engines.storage_speed import kept_speed

_LOAD_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "runai_streamer": "runai",
        "runai_streamer_sharded": "runai",
        "tensorizer": "tensorizer",
        "fastsafetensors": "fastsafetensors",
        "instanttensor": "instanttensor",
    }
)
"""vLLM's and SGLang's `--load-format` to `core.loaders`."""


def expected_start(
    model: ModelSettings, *, directory: str, env: Mapping[str, str], host: float = USUAL_HOST
) -> tuple[Estimate, ...]:
    """Return the predicted phases of a start, empty where nothing is known of the model's size.

    `directory` is the fleet's, for its record of the storage; `host` as in `Machine`.
    Blocks for a file's header and a directory listing; never raises for a model that cannot be read.
    """
    if model.engine.kind == "toy":
        return _toy(model)
    start = known_start(model, env=env)
    if start is None:
        return ()
    return predict_start(start, _machine(directory, host))


def expected_wakes(
    model: ModelSettings, *, directory: str, env: Mapping[str, str], host: float = USUAL_HOST
) -> dict[Tier, tuple[Estimate, ...]]:
    """Return the predicted phases of a wake from each tier, for as long as none was measured.

    A snapshot is taken to be as large as the weights. `hibernated` is left out: only its cloud knows.
    """
    if model.engine.kind == "toy":
        start, size, ranks = _toy(model), 0.0, 1
    else:
        known = known_start(model, env=env)
        if known is None:
            return {}
        start = predict_start(known, _machine(directory, host))
        size, ranks = known.weight_bytes, known.ranks
    machine = _machine(directory, host)
    return wakes_by_tier(start, image_bytes=size, machine=machine, ranks=ranks)


def expected_rate(model: ModelSettings, *, directory: str) -> float | None:
    """Return the bytes a second at which weights should be read here, None where nobody measured it."""
    machine = _machine(directory, USUAL_HOST)
    if machine.bandwidth is None:
        return None
    return weight_rate(
        LOADERS[_loader(model)], machine.storage, bandwidth=machine.bandwidth, ranks=_ranks(model)
    )


def known_start(model: ModelSettings, *, env: Mapping[str, str]) -> Start | None:
    """Return what is known of a model's start from its files, None where its size is unknown.

    Blocks for a file's header and a directory listing.
    """
    engine = model.engine
    if engine.path.endswith(".gguf"):
        try:
            header = read_gguf_header(engine.path)
        except PoorwillError:
            return None
        layers = header.values.get(f"{header.architecture}.block_count")
        return Start(
            parameters=header.parameters,
            bytes=header.file_bytes,
            layers=layers if isinstance(layers, int) else None,
            engine=engine.kind,
            loader=_loader(model),
            ranks=_ranks(model),
        )
    weights = weights_of(engine.path, cache=hub_cache(env))
    if not weights.bytes:
        return None
    return Start(
        parameters=weights.bytes
        / 2,  # two bytes each; fewer if quantised, which only the files know
        bytes=weights.bytes,
        engine=engine.kind,
        loader=_loader(model),
        ranks=_ranks(model),
    )


def _machine(directory: str, host: float) -> Machine:
    speed = kept_speed(directory)
    storage = Storage.NETWORK if speed and speed.remote else Storage.NVME
    bandwidth = speed.bytes_s if speed else None
    return Machine(storage=storage, bandwidth=bandwidth, bus=24 * GB, host=host)


def _loader(model: ModelSettings) -> str:
    engine = model.engine
    words = [str(engine.options.get("load_format", "")), *engine.args]
    named = next((_LOAD_FORMATS[word] for word in words if word in _LOAD_FORMATS), None)
    times = ENGINE_TIMES.get(engine.kind)
    return named or (times.loader if times else "safetensors")


def _ranks(model: ModelSettings) -> int:
    wanted = model.engine.options.get("tensor_parallel_size", model.engine.options.get("tp", 1))
    return max(1, wanted) if isinstance(wanted, int) else 1


def _toy(model: ModelSettings) -> tuple[Estimate, ...]:
    took_us = round((float(model.engine.options.get("load_seconds", 0)) + 0.2) * SECOND_US)
    whole = Estimate(
        phase=Phase.WEIGHTS, expected_us=took_us, low_us=took_us, high_us=2 * took_us, why="as told"
    )
    return (whole,)
