"""Why a replica gets no place, with the arithmetic, for people."""

from collections.abc import Sequence

from poorwill.core.format import counted
from poorwill.core.settings import DeviceNeed
from poorwill.policies.placement.devices import DeviceState
from poorwill.policies.placement.places import (
    UNNAMED_BYTES,
    House,
    Wanted,
    candidates,
    find_place,
    missing_bytes,
    newcomer,
)


def gib(count: int) -> str:
    """Return a size of device memory, in the unit that `nvidia-smi` counts in: `20 GiB`, `400 MiB`."""
    return f"{count / 2**30:.4g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def never_fits(wanted: Wanted, devices: Sequence[DeviceState], host_bytes: int = 0) -> str:
    """Return why a replica does not fit even if it were alone, with the arithmetic; empty if it does."""
    if host_bytes and wanted.host_bytes > host_bytes:
        return f"needs {gib(wanted.host_bytes)} of host memory; the fleet may use {gib(host_bytes)}"
    alone = House(devices)
    if find_place(wanted, alone) is not None:
        return ""
    need = wanted.need
    words = f"needs {need_words(need)}"
    if need.on:
        words += f" out of {', '.join(need.on)}"
    will_do = len(candidates(wanted, alone))
    have = (
        ", ".join(f"{one.id} has {gib(one.bytes)}{_why_not(one, wanted)}" for one in devices)
        or "none is there"
    )
    return f"{words}; {will_do or 'none'} of {counted(len(devices), 'device')} will do: {have}"


def fitting(wanted: Wanted, devices: Sequence[DeviceState], most: int) -> int:
    """Return how many replicas of a model fit side by side, if they were alone; no more than `most`."""
    house = House(devices)
    for number in range(most):
        place = find_place(wanted, house)
        if place is None:
            return number
        house.add(newcomer(wanted, place, devices))
    return most


def need_words(need: DeviceNeed) -> str:
    """Say what is needed."""
    if not need.gpus:
        return f"{gib(need.gpu_memory_bytes)} of one device"
    each = f" of at least {gib(need.gpu_memory_bytes)}" if need.gpu_memory_bytes else ""
    return f"{counted(need.gpus, 'whole device')}{each}"


def _why_not(device: DeviceState, wanted: Wanted) -> str:
    if device.unfit:
        return f" but {device.unfit}"
    if wanted.need.on and not device.is_one_of(wanted.need.on):
        return " but is not in `on`"
    if wanted.need.gpus > 1 and device.instance:
        return " but is a MIG instance, of which an engine sees one"
    return ""


def short_of(wanted: Wanted, house: House) -> str:
    """Return what a replica needs and who holds it, if only programs that are no replicas are in the way."""
    devices = [device for device in candidates(wanted, house) if house.foreign.get(device.id)]
    device = min(devices, key=lambda one: missing_bytes(wanted.need, one, house))
    here = {resident.occupant.replica for resident in house.here(device)}
    strangers = [holder for holder in device.holders if holder.replica not in here]
    others = sorted(strangers, key=lambda each: -(each.bytes or 0))
    named = [f"{each.program or 'a program unseen from here'} (pid {each.pid})" for each in others]
    words = [
        f"{name} holds {gib(each.bytes) if each.bytes else 'memory'}"
        for name, each in zip(named, others, strict=True)
    ]
    rest = house.foreign[device.id] - sum(each.bytes or 0 for each in others)
    if not words or rest >= UNNAMED_BYTES:
        words.append(f"{gib(rest)} {'more ' if words else ''}is held by nobody that NVML names")
    free = max(0, house.free(device))
    return f"needs {need_words(wanted.need)}; {device.id} has {gib(free)} free: {', '.join(words[:4])}"
