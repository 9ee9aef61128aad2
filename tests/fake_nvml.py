"""A machine's devices as `pynvml` (nvidia-ml-py 13.615) reports them, for a machine that has none.

`FakeNvml` has the functions that poorwill calls, under their names, with their errors. What each does is from
NVIDIA's NVML API reference (docs.nvidia.com/deploy/nvml-api) and pynvml.py. `test_nvml.py` holds that every
name here is one there and takes the same arguments.

- nvmlDeviceGetMemoryInfo: version 2 has `reserved`, which version 1 counts as used; FUNCTION_NOT_FOUND where
  the driver is older than R510.
- nvmlDeviceGetMigMode: (current, pending); NOT_SUPPORTED on a device without MIG.
- nvmlDeviceGetMigDeviceHandleByIndex: NOT_FOUND for an index without an instance.
- nvmlDeviceGet{Compute,Graphics}RunningProcesses: objects with pid and usedGpuMemory, which is None where it
  is not known.
- nvmlDeviceGetTotalEccErrors, nvmlDeviceGetRemappedRows: NOT_SUPPORTED on consumer devices.
- any call for a device that fell off the bus: GPU_IS_LOST; before a reset that is due: RESET_REQUIRED.
- any call before nvmlInit: UNINITIALIZED.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

GIB = 2**30


class NVMLError(Exception):
    """As pynvml's: `value` is the code, the text is what it means."""

    def __init__(self, value: int) -> None:
        super().__init__(_WORDS[value])
        self.value = value


_WORDS = {
    1: "Uninitialized",
    3: "Not Supported",
    6: "Not Found",
    9: "Driver Not Loaded",
    13: "Function Not Found",
    15: "GPU is lost",
    16: "GPU requires restart",
}


@dataclass
class FakeGpu:
    """One device, or one MIG instance of one."""

    uuid: str
    bytes: int = 80 * GIB
    reserved: int = 0
    holders: dict[int, int | None] = field(default_factory=dict)
    """Bytes by pid; None: not known."""
    drawing: dict[int, int | None] = field(default_factory=dict)
    leaked: int = 0
    """In use, and nobody's."""
    instances: "dict[int, FakeGpu] | None" = None
    """By index, where MIG is on."""
    mig: bool = True
    """Whether it could do MIG at all."""
    ecc: bool = True
    uncorrected: int = 0
    remap_pending: bool = False
    remap_failed: bool = False
    lost: int = 0
    """GPU_IS_LOST (15) or RESET_REQUIRED (16)."""
    no_memory: bool = False
    """It shares the host's."""


class FakeNvml:
    """The module. Handles are the devices themselves."""

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlMemory_v2 = 0x02000028

    def __init__(self, *gpus: FakeGpu, old: bool = False, driver: bool = True) -> None:
        self.gpus = list(gpus)
        self.old = old
        self.driver = driver
        self.open = False

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NVMLError(9)
        self.open = True

    def nvmlShutdown(self) -> None:
        self.open = False

    def nvmlDeviceGetCount(self) -> int:
        if not self.open or not self.driver:
            raise NVMLError(1)
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return _there(self.gpus[index])

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:
        return _there(handle).uuid

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        return "NVIDIA Fake" if _there(handle) else ""

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu, version: int | None = None) -> SimpleNamespace:
        gpu = _there(handle)
        if gpu.no_memory:
            raise NVMLError(3)
        if version is not None and self.old:
            raise NVMLError(13)
        ours = sum(count or 0 for count in {**gpu.drawing, **gpu.holders}.values()) + gpu.leaked
        used = ours + (0 if version else gpu.reserved)
        return SimpleNamespace(
            total=gpu.bytes, used=used, free=gpu.bytes - gpu.reserved - ours, reserved=gpu.reserved
        )

    def nvmlDeviceGetMigMode(self, device: FakeGpu) -> tuple[int, int]:
        if not _there(device).mig:
            raise NVMLError(3)
        return (0, 0) if device.instances is None else (1, 1)

    def nvmlDeviceGetMaxMigDeviceCount(self, device: FakeGpu) -> int:
        return 7 if _there(device).instances is not None else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: FakeGpu, index: int) -> FakeGpu:
        if index not in (_there(device).instances or {}):
            raise NVMLError(6)
        return (device.instances or {})[index]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[SimpleNamespace]:
        return _processes(_there(handle).holders)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: FakeGpu) -> list[SimpleNamespace]:
        return _processes(_there(handle).drawing)

    def nvmlDeviceGetTotalEccErrors(self, handle: FakeGpu, errorType: int, counterType: int) -> int:
        if not _there(handle).ecc:
            raise NVMLError(3)
        return handle.uncorrected

    def nvmlDeviceGetRemappedRows(self, device: FakeGpu) -> tuple[int, int, int, int]:
        if not _there(device).ecc:
            raise NVMLError(3)
        return 0, device.uncorrected, int(device.remap_pending), int(device.remap_failed)


def _there(gpu: FakeGpu) -> FakeGpu:
    if gpu.lost:
        raise NVMLError(gpu.lost)
    return gpu


def _processes(by_pid: dict[int, int | None]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=count) for pid, count in by_pid.items()]
