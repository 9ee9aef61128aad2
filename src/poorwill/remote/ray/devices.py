"""The devices that a host gives to its replicas: whole ones, each to one engine at a time."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from poorwill.core.format import counted
from poorwill.core.launch import Place
from poorwill.core.ports.driver import NoCapacity
from poorwill.core.settings import DeviceNeed
from poorwill.hosts.processes import procfs
from poorwill.policies.placement.devices import DeviceState


@dataclass(slots=True, kw_only=True, eq=False)
class GivenDevices:
    """Who has which; engines know their own, so that nothing of it has to outlive the service."""

    devices: Sequence[DeviceState]
    """Those that work, of the host as [hosts] calls it."""
    waking: dict[object, Collection[str]] = field(default_factory=dict)
    """Those of wakes under way."""

    @contextmanager
    def given(
        self, need: DeviceNeed, *, others: Iterable[Place | None], kept: Place | None
    ) -> Iterator[Place]:
        """Give a wake its devices meanwhile: those it was parked on, or the first that will do and are free.

        `others` are the places of the engines that live. Raises NoCapacity.
        """
        taken = {each for place in others if place for each in place.devices}.union(*self.waking.values())
        fit = [each.id for each in self.devices if not need.on or each.is_one_of(need.on)]
        free = [each for each in fit if each not in taken]
        devices = kept.devices if kept is not None else tuple(free[: need.gpus])
        if len(devices) < need.gpus or not taken.isdisjoint(devices):
            pins = f" out of {', '.join(need.on)}" if need.on else ""
            raise NoCapacity(f"{len(free)} of {counted(len(fit), 'device')}{pins} are free")
        me = object()
        self.waking[me] = devices
        try:
            yield Place(devices=devices)
        finally:
            del self.waking[me]


def plain_devices(count: int, *, host: str) -> tuple[DeviceState, ...]:
    """Return the first devices of a host, of which nothing but the number is known."""
    return tuple(DeviceState(id=str(index), index=index, host=host, bytes=0) for index in range(count))


def place_of(pid: int) -> Place | None:
    """Return the devices that a process was started to see; None if it sees all."""
    seen = procfs.variable(pid, "CUDA_VISIBLE_DEVICES").decode()
    return Place(devices=tuple(seen.split(","))) if seen else None
