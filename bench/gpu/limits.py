"""What the machine could do at best: the bus between host and GPU, and the disk, measured; and its names."""

import os
import platform
import time
from pathlib import Path

COPY_BYTES = 2**30
ROUNDS = 5


def asked(answer):
    result, *values = answer
    if result.value != 0:
        raise SystemExit(f"CUDA: {result.name}")
    return values[0] if len(values) == 1 else values


def hardware() -> dict[str, object]:
    """Name everything a figure depends on. Ends the program, saying why, where there is no GPU."""
    try:
        from cuda.bindings import nvml
    except ImportError:
        raise SystemExit("no cuda-bindings here: pip install 'poorwill[cuda]'") from None
    try:
        nvml.init_v2()
    except Exception as error:  # the library has a class of its own for each status
        raise SystemExit(f"no NVIDIA driver answers here: {error}") from error
    try:
        handle = nvml.device_get_handle_by_index_v2(0)
        gpu, gpu_driver = nvml.device_get_name(handle), nvml.system_get_driver_version()
        count = nvml.device_get_count_v2()
    finally:
        nvml.shutdown()
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "gpu": str(gpu),
        "gpus": count,
        "gpu_driver": str(gpu_driver),
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
    }


def bus_bytes_s() -> dict[str, float]:
    """Return the best of some copies of 1 GiB between pinned host memory and the GPU, each way."""
    from cuda.bindings import driver

    asked(driver.cuInit(0))
    context = asked(driver.cuDevicePrimaryCtxRetain(asked(driver.cuDeviceGet(0))))
    asked(driver.cuCtxSetCurrent(context))
    pinned = asked(driver.cuMemHostAlloc(COPY_BYTES, 0))
    block = asked(driver.cuMemAlloc(COPY_BYTES))
    try:
        to_gpu = min(_timed(driver.cuMemcpyHtoD, block, pinned) for _ in range(ROUNDS))
        to_host = min(_timed(driver.cuMemcpyDtoH, pinned, block) for _ in range(ROUNDS))
    finally:
        asked(driver.cuMemFree(block))
        asked(driver.cuMemFreeHost(pinned))
        asked(driver.cuDevicePrimaryCtxRelease(asked(driver.cuDeviceGet(0))))
    return {"to_gpu": COPY_BYTES / to_gpu, "to_host": COPY_BYTES / to_host}


def _timed(copy, target, source) -> float:
    began = time.perf_counter()
    asked(copy(target, source, COPY_BYTES))
    return time.perf_counter() - began


def drop_page_cache() -> None:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        raise SystemExit(f"dropping the page cache needs root: {error}") from error


def read_s(files: list[Path]) -> float:
    """Return how long a plain sequential read of files takes."""
    buffer = bytearray(8 * 2**20)
    began = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - began
