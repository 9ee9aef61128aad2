"""The accelerators of a host, as they are now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from poorwill.core.words import ReplicaId


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds memory of a device."""

    pid: int
    bytes: int | None
    """None: NVML does not say."""
    program: str
    """For people; empty: the process is not to be seen from here, as from within a container."""
    replica: ReplicaId | None = None
    """The replica of this fleet that the process belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """One device, or one MIG instance, which is a device to whoever uses it."""

    id: str
    """As in `Place.devices`."""
    index: int
    """As `nvidia-smi` counts; of a MIG instance, its device's."""
    host: str = ""
    name: str = ""
    """What it is, for people: `NVIDIA H200`."""
    bytes: int
    """What replicas may use in all."""
    used_bytes: int | None = None
    """What is in use; None: it cannot be known."""
    holders: tuple[Holder, ...] = ()
    unfit: str = ""
    """Why no replica may be placed here: it is lost, or must be reset."""
    caution: str = ""
    """What an operator should know of a device that works."""
    instance: bool = False
    """A MIG instance: CUDA shows a process at most one of them."""

    @property
    def wrong(self) -> str:
        """What is wrong with it, for people; empty if nothing is."""
        return f"not used: {self.unfit}" if self.unfit else self.caution

    def is_one_of(self, names: Sequence[str]) -> bool:
        """Return whether one of the names, as `on` has them, is this device's."""
        own = {str(self.index), f"{self.host}:{self.index}"}
        return any(
            name in own or (name[:4] in ("GPU-", "MIG-") and self.id.startswith(name)) for name in names
        )


class Devices(Protocol):
    """What a host's devices are and hold."""

    @property
    def trouble(self) -> str:
        """Why the devices could not be asked for at the last look; empty: they could."""
        ...

    async def look(self) -> Sequence[DeviceState]:
        """Return every device as it is now. Never raises: what cannot be read is `unfit`, or not there.

        Cancelled: the look goes on in its thread and its result is dropped.
        """
        ...
