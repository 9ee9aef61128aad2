"""The devices of this machine, as a fleet's configuration gives them out."""

import socket
from collections.abc import Sequence
from types import ModuleType

from poorwill.config.rules.devices import stated_devices, unplaceable_problems
from poorwill.core.extras import install_extra
from poorwill.core.problems import Problem
from poorwill.core.settings import DeviceSettings, FleetSettings
from poorwill.core.words import ReplicaId
from poorwill.hosts.devices.nvml import NvmlDevices, StatedDevices
from poorwill.hosts.processes.mark import read_mark, seal_key
from poorwill.policies.placement.devices import DeviceState

HostDevices = NvmlDevices | StatedDevices

NO_NVML = f"the package nvidia-ml-py is not installed: {install_extra('nvml')}"


def open_devices(settings: FleetSettings, nvml: ModuleType | None) -> HostDevices | None:
    """Return the devices that the fleet's replicas get; None if it gives none out. `nvml` as `load_nvml`."""
    if not settings.gives_devices:
        return None
    return host_devices(settings.devices, fleet=settings.directory, nvml=nvml)


def host_devices(stated: Sequence[DeviceSettings], *, fleet: str, nvml: ModuleType | None) -> HostDevices:
    """Return this machine's devices: through NVML where that is there, else as they are stated.

    `fleet` is the directory of the fleet whose replicas are told apart from foreign programs.
    """
    host = socket.gethostname()
    if nvml is None or not _answers(nvml, stated):
        return StatedDevices(states=stated_devices(stated, host=host), trouble="" if stated else NO_NVML)
    return NvmlDevices(nvml=nvml, stated=stated, host=host, replica_of=lambda pid: _replica_of(pid, fleet))


def _answers(nvml: ModuleType, stated: Sequence[DeviceSettings]) -> bool:
    """Whether NVML is to be asked: a machine without a driver has just what is stated."""
    if not stated:
        return True
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return False
    nvml.nvmlShutdown()
    return True


def _replica_of(pid: int, fleet: str) -> ReplicaId | None:
    mark = read_mark(pid, key=seal_key(fleet))
    return ReplicaId(mark.replica) if mark is not None and mark.fleet == fleet else None


def device_problems(
    settings: FleetSettings, nvml: ModuleType | None
) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """Return what keeps the fleet's models from ever getting their devices here, and warnings. Blocks."""
    devices = open_devices(settings, nvml)
    if devices is None:
        return (), ()
    states = devices.read()
    warnings = [Problem(where="devices", what=f"{each.id}: {each.wrong}") for each in states if each.wrong]
    if devices.trouble:
        warnings.append(Problem(where="devices", what=devices.trouble))
    return unplaceable_problems(settings, states), warnings


def seen_devices(
    settings: FleetSettings | None, nvml: ModuleType | None
) -> tuple[Sequence[DeviceState], str]:
    """Return this machine's devices, used by the fleet or not, and why none could be asked for. Blocks."""
    stated = settings.devices if settings is not None else ()
    fleet = settings.directory if settings is not None else ""
    devices = host_devices(stated, fleet=fleet, nvml=nvml)
    return devices.read(), devices.trouble
