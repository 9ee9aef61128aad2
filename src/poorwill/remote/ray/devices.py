"""The devices that a host gives to its replicas: whole ones, each to one engine at a time."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from poorwill.core.format import counted
from poorwill.core.launch import Place
from poorwill.core.ports.driver import NoCapacity
from poorwill.hosts.processes import procfs


@dataclass(slots=True, kw_only=True, eq=False)
class GivenDevices:
    """Who has which; engines know their own, so that nothing of it has to outlive the service."""

    ids: Sequence[str]
    """As CUDA_VISIBLE_DEVICES names them."""
    waking: dict[object, Collection[str]] = field(default_factory=dict)
    """Those of wakes under way."""

    @contextmanager
    def given(self, count: int, *, others: Iterable[Place | None], kept: Place | None) -> Iterator[Place]:
        """Give a wake its devices meanwhile: those it was parked on, or the first that nobody has.

        `others` are the places of the engines that live. Raises NoCapacity.
        """
        taken = {each for place in others if place for each in place.devices}.union(*self.waking.values())
        free = [each for each in self.ids if each not in taken]
        devices = kept.devices if kept is not None else tuple(free[:count])
        if len(devices) < count or not taken.isdisjoint(devices):
            raise NoCapacity(f"{len(free)} of {counted(len(self.ids), 'device')} are free")
        me = object()
        self.waking[me] = devices
        try:
            yield Place(devices=devices)
        finally:
            del self.waking[me]


def place_of(pid: int) -> Place | None:
    """Return the devices that a process was started to see; None if it sees all."""
    seen = procfs.variable(pid, "CUDA_VISIBLE_DEVICES").decode()
    return Place(devices=tuple(seen.split(","))) if seen else None
