"""Devices as NVML reports them, through the package `nvidia-ml-py` (module `pynvml`).

Facts that are relied upon, each from NVIDIA's NVML API reference or from pynvml 13.615:

- Memory, version 2, tells `reserved` (driver and firmware) apart from `used`; version 1 counts it as used.
  Old drivers lack version 2 (FUNCTION_NOT_FOUND). CPU and GPU may share all memory (NOT_SUPPORTED).
- A device in MIG mode is no device to CUDA: its instances are, each with a UUID, a memory and processes of
  its own. Their indices have holes (NOT_FOUND), and a process sees one instance at most (MIG user guide).
- `usedGpuMemory` of a process is None where the driver does not know it. Process ids are the host's, also
  within a container.
- Most questions about ECC are NOT_SUPPORTED on consumer devices. A remapping that failed cannot be mended by
  a reset; one that is pending waits for one (NVIDIA's memory error management).
- A device that fell off the bus answers GPU_IS_LOST or, until a reset, RESET_REQUIRED, to any question.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from poorwill.core.format import counted
from poorwill.core.settings import DeviceSettings
from poorwill.core.words import ReplicaId
from poorwill.hosts.processes import procfs
from poorwill.policies.placement.devices import DeviceState, Holder

LIMIT_S = 5.0
"""How long NVML may take to answer: it hangs when a driver or a device does."""


@dataclass(slots=True, kw_only=True)
class NvmlDevices:
    """The devices of this machine, asked for anew at every look. Implements the port `Devices`."""

    nvml: ModuleType
    stated: Sequence[DeviceSettings] = ()
    """Those that replicas may use; empty: all."""
    host: str = ""
    replica_of: Callable[[int], ReplicaId | None]
    """Whose a process is, if it is a replica's."""
    limit_s: float = LIMIT_S
    trouble: str = ""
    _begun: bool = False
    _last: Sequence[DeviceState] = ()
    _looking: "asyncio.Future[Sequence[DeviceState]] | None" = None
    _uuids: dict[int, str] = field(default_factory=dict)

    async def look(self) -> Sequence[DeviceState]:
        """Return every device as it is now; see `Devices.look`. Looks at the same time are one."""
        if self._looking is None or self._looking.done():
            self._looking = _in_daemon(self.read)
        try:
            async with asyncio.timeout(self.limit_s):
                self._last = await asyncio.shield(self._looking)
        except TimeoutError:
            unfit = f"NVML has not answered for {self.limit_s:g} s"
            return [replace(each, unfit=unfit) for each in self._last]
        return self._last

    def read(self) -> Sequence[DeviceState]:
        """Return what NVML says; blocks. Never raises: `trouble` says why it could not be asked at all."""
        try:
            if not self._begun:
                self.nvml.nvmlInit()
                self._begun = True
            found = [state for index in range(self.nvml.nvmlDeviceGetCount()) for state in self._at(index)]
            self.trouble = ""
        except self.nvml.NVMLError as error:
            self._begun = False
            self.trouble, found = f"NVML: {error}", []
        return only_stated(found, self.stated, self.trouble) if self.stated else found

    def _at(self, index: int) -> list[DeviceState]:
        """Return the device of an index, or the instances it is divided into."""
        nvml = self.nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            self._uuids[index] = nvml.nvmlDeviceGetUUID(handle)
            mode = self._ask(nvml.nvmlDeviceGetMigMode, handle)
            if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
                return [self._state(index, handle, handle)]
            numbers = range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
            found = [
                self._ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number) for number in numbers
            ]
            instances = [self._state(index, each, handle) for each in found if each is not None]
            return instances or [self._unfit(index, "it is in MIG mode and has no instance")]
        except nvml.NVMLError as error:
            return [self._unfit(index, f"NVML: {error}")]

    def _unfit(self, index: int, why: str) -> DeviceState:
        name = self._uuids.get(index, str(index))
        return DeviceState(id=name, index=index, host=self.host, bytes=0, unfit=why)

    def _state(self, index: int, handle: object, device: object) -> DeviceState:
        """Return one device. `device` is the whole of which `handle` may be an instance."""
        nvml = self.nvml
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle, version=nvml.nvmlMemory_v2)
        reserved = 0 if memory is None else memory.reserved
        if memory is None:
            memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        unfit, caution = self._health(device)
        return DeviceState(
            id=nvml.nvmlDeviceGetUUID(handle),
            index=index,
            host=self.host,
            name=self._ask(nvml.nvmlDeviceGetName, handle) or "",
            bytes=0 if memory is None else memory.total - reserved,
            used_bytes=None if memory is None else memory.used,
            holders=self._holders(handle),
            unfit=unfit,
            caution=caution,
            instance=handle is not device,
        )

    def _holders(self, handle: object) -> tuple[Holder, ...]:
        """Return the processes that hold memory. One that computes and draws is listed twice, as one."""
        found: dict[int, int | None] = {}
        for listed in (
            self.nvml.nvmlDeviceGetComputeRunningProcesses,
            self.nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for process in self._ask(listed, handle) or ():
                found[process.pid] = max(found.get(process.pid) or 0, process.usedGpuMemory or 0) or None
        return tuple(
            Holder(pid=pid, bytes=count, program=program_of(pid), replica=self.replica_of(pid))
            for pid, count in found.items()
        )

    def _health(self, device: object) -> tuple[str, str]:
        """Return why no replica may use a device, and what an operator should know of it."""
        nvml = self.nvml
        _, _, pending, failed = self._ask(nvml.nvmlDeviceGetRemappedRows, device) or (0, 0, 0, 0)
        kind, since = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        errors = self._ask(nvml.nvmlDeviceGetTotalEccErrors, device, kind, since)
        cautions = ["faulty memory rows wait for a reset to be remapped"] if pending else []
        if errors:
            cautions.append(f"{counted(errors, 'uncorrected memory error')} since the driver was loaded")
        return "a faulty memory row could not be remapped" if failed else "", "; ".join(cautions)

    def _ask(self, question: Callable[..., Any], *arguments: object, **named: object) -> Any:
        """Return the answer, None if this device has none. Raises NVMLError for a device that is lost."""
        try:
            return question(*arguments, **named)
        except self.nvml.NVMLError as error:
            if error.value in (self.nvml.NVML_ERROR_GPU_IS_LOST, self.nvml.NVML_ERROR_RESET_REQUIRED):
                raise
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedDevices:
    """Devices that only the configuration knows: what they really hold cannot be seen."""

    states: Sequence[DeviceState]
    trouble: str = ""

    def read(self) -> Sequence[DeviceState]:
        """Return the devices as they are stated."""
        return self.states

    async def look(self) -> Sequence[DeviceState]:
        """Return the devices as they are stated."""
        return self.states


def only_stated(
    found: Sequence[DeviceState], stated: Sequence[DeviceSettings], trouble: str = ""
) -> list[DeviceState]:
    """Return the devices that are stated, with what was found of them."""
    return [_found_or_not(found, one, trouble) for one in stated]


def _found_or_not(found: Sequence[DeviceState], one: DeviceSettings, trouble: str) -> DeviceState:
    for state in found:
        if state.id == one.uuid or (not one.uuid and state.index == one.index):
            most = min(one.memory_bytes, state.bytes) if state.bytes else one.memory_bytes
            return replace(state, bytes=most if one.memory_bytes else state.bytes)
    why = trouble or "NVML does not know it"
    return DeviceState(id=one.uuid or str(one.index), index=one.index, bytes=one.memory_bytes, unfit=why)


def program_of(pid: int) -> str:
    """Return a process's program for people, without the options, which may be secret; empty if unseen."""
    if procfs.read_stat(pid) is None:
        return ""
    words = procfs.command_line(pid).split()
    options = [at for at, word in enumerate(words) if word.startswith("--")]
    return " ".join(words[: min([3, *options])]) or "unknown"


def load_nvml() -> ModuleType | None:
    """Return the module `pynvml`, None if it is not installed."""
    with suppress(ImportError):
        import pynvml

        return pynvml  # type: ignore[no-any-return]
    return None


def _in_daemon(work: Callable[[], Sequence[DeviceState]]) -> "asyncio.Future[Sequence[DeviceState]]":
    """Run work in a thread that nobody waits for at exit: a hung driver must not keep poorwill alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Sequence[DeviceState]] = loop.create_future()

    def run() -> None:
        result = work()
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(result))

    threading.Thread(target=run, name="nvml", daemon=True).start()
    return done
