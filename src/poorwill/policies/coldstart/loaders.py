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
        Storage.NVME: 2.5 * GB,
        Storage.BLOCK: 0.32 * GB,
        Storage.NETWORK: 2.0 * GB,
        Storage.OBJECT: 0.12 * GB,
    }
)
"""Bytes a second of one reading stream if nothing else is the limit."""

USUAL_BANDWIDTH: Mapping[Storage, float] = MappingProxyType(
    {
        Storage.CACHE: 100 * GB,
        Storage.NVME: 5 * GB,
        Storage.BLOCK: 1 * GB,
        Storage.NETWORK: 5 * GB,
        Storage.OBJECT: 6 * GB,
    }
)
"""Bytes a second of the storage as a whole, assumed if it was not measured."""


PCIE_RATE: Mapping[str, float] = MappingProxyType({"3": 12 * GB, "4": 24 * GB, "5": 52 * GB})
"""What a PCIe generation moves to one accelerator over sixteen lanes, as measured, not as specified."""

PCIE_OF: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("p100", "v100", "t4", "rtx-2080"), "3"),
        **dict.fromkeys(("a100", "a40", "a30", "a10", "a10g", "l4", "l40", "l40s", "mi250"), "4"),
        **dict.fromkeys(("rtx-3090", "rtx-4090", "a4000", "a5000", "a6000", "rtx-6000-ada"), "4"),
        **dict.fromkeys(("h100", "h200", "h20", "b200", "b300", "mi300x", "mi325x", "mi355x"), "5"),
        **dict.fromkeys(("rtx-5090", "rtx-pro-6000"), "5"),
    }
)
"""The PCIe generation of an accelerator by its name."""
SEEN_GPUS = frozenset(
    {
        *("a100", "a40", "a10g", "l4", "l40s", "a4000", "a5000", "h100", "h200", "h20", "b200"),
        *("rtx-3090", "rtx-5090", "rtx-pro-6000", "mi355x"),
    }
)
"""Those on which a start was seen (tests/anatomy/data); of the others nothing but the bus is known."""
SEEN_BITS = (4.0, 17.0)
"""The least and the most bits a parameter with which an accelerator's start was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """One way of reading weights. With n accelerators it reads n ** scaling times as fast as with one."""

    streams: int
    """Read at once, unless configured otherwise."""
    reach: float
    """The share of the storage's bandwidth it can use."""
    cap: float
    """Bytes a second its software reaches with one accelerator, whatever the storage."""
    scaling: float
    """For weights in memory already; 0 if one accelerator reads for all."""
    cold_scaling: float | None = None
    """The same for weights from storage; None: no different."""
    apart_scaling: float | None = None
    """The same if every accelerator reads its own tensors (experts or layers), not a slice of each."""
    repeats: bool = False
    """Every accelerator reads the whole model, so they share the storage's bandwidth."""
    cold_cap: float | None = None
    """The same as `cap` if the weights come from storage."""
    object_cap: float | None = None
    """The same as `cap` if it reads from an object store."""
    setup_s: float = 0.0
    """Seconds before the first byte, however small the model."""

    def limit(self, storage: Storage) -> float:
        """Return the bytes a second its software reaches with one accelerator and that storage."""
        if storage is Storage.OBJECT and self.object_cap is not None:
            return self.object_cap
        if storage is not Storage.CACHE and self.cold_cap is not None:
            return self.cold_cap
        return self.cap

    def spread(self, storage: Storage, *, ranks: int, apart: bool) -> float:
        """Return how many times as fast as one accelerator so many read."""
        scaling = self.scaling
        if storage is not Storage.CACHE and self.cold_scaling is not None:
            scaling = self.cold_scaling
        if apart and self.apart_scaling is not None:
            scaling = self.apart_scaling
        spread: float = ranks**scaling
        return spread


LOADERS: Mapping[str, Loader] = MappingProxyType(
    {
        "safetensors": Loader(
            streams=1, reach=1.0, cap=5.5 * GB, scaling=0.4, cold_scaling=0.2, apart_scaling=0.8
        ),
        "runai": Loader(streams=16, reach=0.98, cap=6.5 * GB, scaling=0.0, repeats=True),
        "runai-distributed": Loader(streams=16, reach=0.98, cap=6.5 * GB, scaling=0.4),
        "runai-sharded": Loader(streams=16, reach=0.98, cap=6.5 * GB, scaling=1.0),
        "tensorizer": Loader(streams=16, reach=0.86, cap=4.8 * GB, scaling=0.3, object_cap=0.36 * GB),
        "fastsafetensors": Loader(
            streams=4,
            reach=0.9,
            cap=4.6 * GB,
            cold_cap=2.7 * GB,
            scaling=0.7,
            cold_scaling=0.6,
            setup_s=0.4,
        ),
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
    apart: bool = False,
    bus: float = 24 * GB,
) -> float:
    """Return bytes a second from storage to the accelerators.

    `bandwidth` is the storage's, in bytes a second; `bus` that of one accelerator; `ranks` the accelerators a
    model is spread over, `apart` whether each holds whole experts or layers of it.
    """
    spread = loader.spread(storage, ranks=ranks, apart=apart)
    reading = (streams or loader.streams) * STREAM_RATE[storage] * spread
    reachable = (bandwidth or USUAL_BANDWIDTH[storage]) * loader.reach
    if loader.repeats:
        reachable /= ranks
    return min(reading, reachable, loader.limit(storage) * spread, bus * ranks)


def layers_of(parameters: float) -> int:
    """Return about how many layers a model of that many parameters has.

    17 P^0.37 (P in billions) within 24 and 94 follows the published Llama and Qwen models.
    """
    layers: float = 17.0 * (parameters / 1e9) ** 0.37
    return round(min(94.0, max(24.0, layers)))
