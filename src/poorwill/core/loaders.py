"""How fast weights reach the accelerator: storage, loader and bus, as a rate. Pure arithmetic.

A loader reads with so many streams; one stream gets what the latency of that kind of storage allows, all
together get what the storage, the loader's own software and the bus to the accelerators allow. The least of
these is the rate. So the same loader that saturates a local drive can idle on a network drive, and more
streams help exactly until something else is the limit.

Every figure is calibrated on published measurements; docs/anatomy.md lists them, with the errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

GB = 1_000_000_000


class Storage(StrEnum):
    """Where weights are read from."""

    CACHE = "cache"  # the page cache or a memory file system
    NVME = "nvme"  # a local drive
    BLOCK = "block"  # a cloud's network drive
    NETWORK = "network"  # a shared file system
    OBJECT = "object"  # an object store


STREAM_RATE: Mapping[Storage, float] = MappingProxyType(
    {
        Storage.CACHE: 5.5 * GB,
        Storage.NVME: 3.0 * GB,
        Storage.BLOCK: 0.32 * GB,
        Storage.NETWORK: 2.0 * GB,
        Storage.OBJECT: 0.12 * GB,
    }
)
"""Bytes a second of one reading stream where nothing else is the limit."""

USUAL_BANDWIDTH: Mapping[Storage, float] = MappingProxyType(
    {
        Storage.CACHE: 100 * GB,
        Storage.NVME: 5 * GB,
        Storage.BLOCK: 1 * GB,
        Storage.NETWORK: 5 * GB,
        Storage.OBJECT: 3 * GB,
    }
)
"""Bytes a second of the storage as a whole, assumed where nobody measured it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """One way of reading weights."""

    streams: int
    """Read at once, unless configured otherwise."""
    reach: float
    """The share of the storage's bandwidth it can use."""
    cap: float
    """Bytes a second its software reaches with one accelerator, whatever the storage."""
    scaling: float
    """With n accelerators it reads n ** scaling times as fast as with one: 0 where one reads for all."""
    object_cap: float | None = None
    """The same cap where it reads from an object store."""


LOADERS: Mapping[str, Loader] = MappingProxyType(
    {
        "safetensors": Loader(streams=1, reach=1.0, cap=5.5 * GB, scaling=0.7),
        "runai": Loader(streams=16, reach=0.98, cap=6.5 * GB, scaling=0.0),
        "tensorizer": Loader(
            streams=16, reach=0.86, cap=4.8 * GB, scaling=0.3, object_cap=0.36 * GB
        ),
        "fastsafetensors": Loader(streams=4, reach=0.9, cap=3.2 * GB, scaling=0.55),
        "serverlessllm": Loader(streams=8, reach=0.74, cap=54 * GB, scaling=0.9),
        "instanttensor": Loader(streams=32, reach=0.8, cap=48 * GB, scaling=0.1),
        "gguf": Loader(streams=1, reach=1.0, cap=2.2 * GB, scaling=0.5),
        "ollama": Loader(streams=2, reach=1.0, cap=4.5 * GB, scaling=0.0),
    }
)


def weight_rate(
    loader: Loader,
    storage: Storage,
    *,
    bandwidth: float | None = None,
    streams: int | None = None,
    ranks: int = 1,
    bus: float = 24 * GB,
) -> float:
    """Return bytes a second from storage to the accelerators.

    `bandwidth` is the storage's, in bytes a second; `bus` that of one accelerator; `ranks` the accelerators a
    model is spread over.
    """
    spread: float = ranks**loader.scaling
    reading = (streams or loader.streams) * STREAM_RATE[storage] * spread
    reachable = (bandwidth or USUAL_BANDWIDTH[storage]) * loader.reach
    cap = loader.cap
    if storage is Storage.OBJECT and loader.object_cap is not None:
        cap = loader.object_cap
    return min(reading, reachable, cap * spread, bus * ranks)


def layers_of(parameters: float) -> int:
    """Return about how many layers a model of that many parameters has.

    17 P^0.37 (P in billions) within 24 and 94 follows the published Llama and Qwen models.
    """
    layers: float = 17.0 * (parameters / 1e9) ** 0.37
    return round(min(94.0, max(24.0, layers)))
