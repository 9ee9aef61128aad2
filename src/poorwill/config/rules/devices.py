"""What models ask of devices: what contradicts itself, and what can never be given."""

from collections.abc import Iterator, Sequence

from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.config.values.scalars import nearest
from poorwill.core.problems import Problem
from poorwill.core.settings import DeviceSettings, FleetSettings, ModelSettings
from poorwill.core.words import ReplicaId, Tier
from poorwill.policies.placement.devices import DeviceState
from poorwill.policies.placement.places import Wanted
from poorwill.policies.placement.refusals import fitting, need_words, never_fits

VISIBLE = "CUDA_VISIBLE_DEVICES"


def stated_devices(stated: Sequence[DeviceSettings], *, host: str = "") -> list[DeviceState]:
    """Return the devices of a configuration as they are when nobody uses them."""
    return [
        DeviceState(id=one.uuid or str(one.index), index=one.index, host=host, bytes=one.memory_bytes)
        for one in stated
    ]


def check_devices(fleet: FleetSettings, found: FileProblems) -> None:
    """Report what is wrong with the devices and with what models need of them."""
    names = [str(model.name) for model in fleet.models]
    for model in fleet.models:
        _check_need(model, names, ModelProblems(name=model.name, found=found))
    if found.partial or found.is_bad(("devices",)):
        return
    _check_twice(fleet.devices, found)
    if fleet.devices and all(device.memory_bytes for device in fleet.devices):
        for model, why in unplaceable(fleet, stated_devices(fleet.devices)):
            here, hint = ModelProblems(name=model.name, found=found), "ask for less, or state what there is"
            here.wrong([_key(model), "gpus", "gpu_memory", "on"], why, hint)


def _check_twice(devices: Sequence[DeviceSettings], found: FileProblems) -> None:
    seen: dict[str, int] = {}
    for number, device in enumerate(devices):
        index = "" if device.uuid.startswith("MIG-") else f"index {device.index}"  # instances share one
        for key, name in (("index", index), ("uuid", device.uuid)):
            if name and name in seen:
                hint = f"devices[{seen[name]}] has it"
                found.wrong(("devices", number, key), f"{name} is stated twice", hint)
            seen.setdefault(name, number)


def unplaceable(fleet: FleetSettings, devices: Sequence[DeviceState]) -> Iterator[tuple[ModelSettings, str]]:
    """Yield the models that would not fit if they were alone, with all their replicas, and why."""
    for model in (each for each in fleet.models if not each.hosts):
        wanted = Wanted(replica=ReplicaId(model.name), model=model.name, need=model.devices)
        why, count = never_fits(wanted, devices), model.replicas.most
        if why:
            yield model, f"can never fit: it {why}"
        elif (fit := fitting(wanted, devices, count)) < count:
            needs = f"each needs {need_words(model.devices)}"
            yield model, f"can never have {count} replicas ready: {needs}, and {fit} fit side by side"


def unplaceable_problems(fleet: FleetSettings, devices: Sequence[DeviceState]) -> list[Problem]:
    """Return a problem for each model that would not fit on the devices of this machine if it were alone."""
    hint = "ask for less; poorwill doctor shows the devices"
    return [
        Problem(where=f"models.{model.name}.{_key(model)}", what=why, hint=hint)
        for model, why in unplaceable(fleet, devices)
    ]


def _key(model: ModelSettings) -> str:
    return "gpus" if model.devices.gpus else "gpu_memory"


def _check_need(model: ModelSettings, names: Sequence[str], here: ModelProblems) -> None:
    need = model.devices
    for key, given in (("on", need.on), ("apart", need.apart)):
        if given and not need.any:
            here.wrong([key], "says which device, but the model needs none", "add gpus or gpu_memory")
    for other in need.apart:
        if other == model.name or other not in names:
            hint = "replicas of one model share a device" if other == model.name else nearest(other, names)
            here.wrong(["apart"], f"{other!r} is no other model here", hint)
    if not need.any:
        return
    if VISIBLE in model.engine.env:
        what = f"{VISIBLE} is set by hand and by gpus or gpu_memory"
        here.wrong([f"env.{VISIBLE}"], what, "leave it out: an engine sees the devices that it is given")
    if model.away is not None:
        here.wrong(["gpus", "gpu_memory"], "is for this machine, and the model is on another one")
    if Tier.SUSPENDED in model.replica.park.ladder:
        what = "suspended parks a virtual machine, which has no device"
        here.wrong(["ladder", "gpus", "gpu_memory"], what, 'write ladder = ["asleep", "cold"]')
