"""What an engine keeps on a device (a GPU) beside the host's memory, as the frozen tier sees it.

Taking it down moves the device's content into the processes' own memory, where criu finds it; bringing it
back is the reverse. `cuda` does it; engines without a device need nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from poorwill.core.ports.driver import DriverError
from poorwill.tiers.snapshots.manifest import Manifest

_KEY = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceImage:
    """Which processes had device content that was taken down, and how much."""

    pids: tuple[int, ...] = ()
    bytes_by_gpu: Mapping[str, int] = field(default_factory=dict)
    """By the GPU's UUID."""

    @property
    def bytes(self) -> int:
        """Return the total over all devices."""
        return sum(self.bytes_by_gpu.values())


class DeviceBroken(DriverError):
    """A device call failed and could not be undone: the processes must be ended."""


class DeviceWake(Protocol):
    """The device calls of one wake. They are bounded by the implementation."""

    async def check_room(self, image: DeviceImage) -> None:
        """Raise DriverError if the device has no room for the image now."""
        ...

    async def bring_back(self, image: DeviceImage) -> None:
        """Move it back; the processes must be running. Raises DriverError: they must be ended."""
        ...


class Device(Protocol):
    """Device state of processes. Calls are bounded by the implementation."""

    async def take_down(self, pids: Sequence[int]) -> DeviceImage:
        """Move the processes' device content into their memory and release the device.

        Raises DriverError if nothing has changed, DeviceBroken otherwise. Cancelled or DeviceBroken: the
        processes must be ended.
        """
        ...

    async def bring_back(self, image: DeviceImage) -> None:
        """Move it back to processes that were not frozen after all; errors as in `DeviceWake`."""
        ...

    def waking(self, image: DeviceImage) -> AbstractAsyncContextManager[DeviceWake]:
        """Get ready to bring an image back: returns at once, and initialises the device meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class NoDevice:
    """The device of engines that compute on the CPU. Implements `Device` and `DeviceWake`."""

    async def take_down(self, pids: Sequence[int]) -> DeviceImage:
        """Return an empty image."""
        return DeviceImage()

    async def check_room(self, image: DeviceImage) -> None:
        """Refuse an image with device state."""
        if image.pids:
            raise DriverError("the snapshot has device state, and this poorwill handles no device")

    async def bring_back(self, image: DeviceImage) -> None:
        """Do what `check_room` does: there is no device to bring anything back to."""
        await self.check_room(image)

    def waking(self, image: DeviceImage) -> AbstractAsyncContextManager["NoDevice"]:
        """There is nothing to get ready."""
        return nullcontext(self)


def with_device_image(manifest: Manifest, image: DeviceImage) -> Manifest:
    """Note a device image in a manifest."""
    noted = {_KEY: msgspec.json.encode(image).decode()} if image.pids else {}
    return replace(manifest, extra={**manifest.extra, **noted})


def device_image(manifest: Manifest) -> DeviceImage:
    """Return the device image noted in a manifest; empty if there is none."""
    return msgspec.json.decode(manifest.extra.get(_KEY, "{}"), type=DeviceImage)
