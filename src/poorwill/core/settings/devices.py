"""The settings of devices: the keys of `[[devices]]`, and those by which a model asks for some."""

from dataclasses import dataclass
from typing import Annotated

from poorwill.core.settings.notation import Bounds, Matching

_NAME = r"([A-Za-z0-9.-]+:)?\d{1,4}|(GPU|MIG)-[0-9A-Za-z/-]+"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """An accelerator that replicas may use. If one is stated, all must be: none is looked for then. Without
    this table the devices of the machine are asked for through NVML (`pip install 'poorwill[nvml]'`)."""

    index: Annotated[int, Bounds(most=1023)]
    """Its number as `nvidia-smi` shows it: the order of the PCI bus."""
    uuid: Annotated[str, Matching(r"((GPU|MIG)-[0-9A-Za-z/-]+)?", "a UUID as `nvidia-smi -L` shows it")] = ""
    """Its UUID, which outlives a change of the order. Engines see it by its index if it is not given."""
    memory_bytes: int = 0
    """What replicas may use of its memory; all that NVML reports, if not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNeed:
    """What a model's replica needs of the devices while it is ready."""

    gpus: Annotated[int, Bounds(most=64)] = 0
    """How many whole devices a replica needs. docs/devices.md says more."""
    gpu_memory_bytes: int = 0
    """How much of one device's memory a replica needs, which then shares it with others; with `gpus`, how
    much each of the whole devices must have."""
    on: tuple[Annotated[str, Matching(_NAME, "a UUID, an index, or HOST:INDEX")], ...] = ()
    """The only devices that will do: each a UUID (or its beginning), an index as text, or `HOST:INDEX`."""
    apart: tuple[str, ...] = ()
    """Models that are never ready on the same device."""

    @property
    def any(self) -> bool:
        """Whether a device is needed."""
        return bool(self.gpus or self.gpu_memory_bytes)
