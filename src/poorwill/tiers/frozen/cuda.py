"""GPU state of CUDA processes through the driver's checkpoint calls (CUDA driver API, "CUDA Checkpointing").

RUNNING -lock-> LOCKED -checkpoint-> CHECKPOINTED -restore-> LOCKED -unlock-> RUNNING. Checkpointing copies
the device's memory into the process's own, so that the process grows by it, and releases the GPU.

The order is what keeps it from hanging: all processes are locked before any is checkpointed, and all are
restored before any is unlocked (NVIDIA/cuda-checkpoint issues 30 and 45: a rank that waits for a locked peer
hangs). Free memory is looked at before a restore, because one that runs out of it leaves the process
checkpointed for good (issue 44). One GPU is what this is made for; processes on several GPUs that
share memory between them are not.

Driver calls may hang and cannot be cancelled, so `CudaDevice` makes them in a child that can be killed.
"""

import asyncio
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, Protocol

from poorwill.core.ports.driver import DriverError
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.session import end_session
from poorwill.tiers.frozen.criu import TOOL_PATH, start_in_session
from poorwill.tiers.frozen.device import DeviceBroken, DeviceImage, DeviceWake, NoDevice

LOCK_LIMIT_MS = 10_000
"""How long submitted work may take to drain. A lock that times out leaves the process running."""

MARGIN = 1.02
MARGIN_BYTES = 256 * 2**20
"""Free memory wanted beyond what was released: contexts and fragmentation."""


class CudaState(StrEnum):
    """The six states of a CUDA process (CUprocessState)."""

    RUNNING = "running"
    LOCKED = "locked"
    CHECKPOINTED = "checkpointed"
    FAILED = "failed"
    CHECKPOINTING = "checkpointing"
    RESTORING = "restoring"


class CudaFailed(Exception):
    """A driver call failed. `code` is the driver's own name of the error."""

    def __init__(self, call: str, code: str) -> None:
        super().__init__(f"{call}: {code}")
        self.code = code


class CudaBroken(Exception):
    """A failure that could not be undone: some process is left in a state from which it cannot go on."""


class CudaCalls(Protocol):
    """The driver's calls, one process each; they block. Raise CudaFailed."""

    def open(self) -> None:
        """Initialise the driver; before every other call but `free_bytes`."""
        ...

    def state(self, pid: int) -> CudaState:
        """Return the process's state."""
        ...

    def lock(self, pid: int, *, limit_ms: int) -> None:
        """RUNNING to LOCKED; after `limit_ms` it fails and stays RUNNING."""
        ...

    def checkpoint(self, pid: int) -> None:
        """LOCKED to CHECKPOINTED."""
        ...

    def restore(self, pid: int) -> None:
        """CHECKPOINTED to LOCKED, on the same GPUs."""
        ...

    def unlock(self, pid: int) -> None:
        """LOCKED to RUNNING."""
        ...

    def free_bytes(self) -> Mapping[str, int]:
        """Return the free memory of each GPU, by UUID."""
        ...


def take_down(cuda: CudaCalls, pids: Sequence[int]) -> dict[str, int]:
    """Lock all processes, then checkpoint all; return the bytes released on each GPU.

    Raises CudaFailed with every process running as before, CudaBroken if some process does not.
    """
    before = cuda.free_bytes()
    try:
        for pid in pids:
            cuda.lock(pid, limit_ms=LOCK_LIMIT_MS)
        for pid in pids:
            cuda.checkpoint(pid)
    except CudaFailed as error:
        _undo(cuda, pids, error)
        raise
    after = cuda.free_bytes()
    return {gpu: max(0, after[gpu] - before.get(gpu, 0)) for gpu in after}


def check_room(cuda: CudaCalls, need_bytes: Mapping[str, int]) -> None:
    """Raise CudaFailed if a GPU has less free memory than was released on it, and a margin."""
    free = cuda.free_bytes()
    for gpu, count in need_bytes.items():
        wanted = int(count * MARGIN) + MARGIN_BYTES if count else 0
        if free.get(gpu, 0) < wanted:
            raise CudaFailed("restore", f"{wanted} bytes are needed on {gpu}, {free.get(gpu, 0)} are free")


def bring_back(cuda: CudaCalls, pids: Sequence[int], need_bytes: Mapping[str, int]) -> None:
    """Restore all processes, then unlock all, if there is room on every GPU.

    Raises CudaFailed if there is none and nothing was touched, CudaBroken for any later failure.
    """
    check_room(cuda, need_bytes)
    try:
        for pid in pids:
            cuda.restore(pid)
        for pid in pids:
            cuda.unlock(pid)
        for pid in pids:
            state = cuda.state(pid)
            if state is not CudaState.RUNNING:
                raise CudaBroken(f"process {pid} is {state} after its restore")
    except CudaFailed as error:
        raise CudaBroken(str(error)) from error


def _undo(cuda: CudaCalls, pids: Sequence[int], error: CudaFailed) -> None:
    """Bring every process back to RUNNING, restoring all before unlocking any."""
    try:
        for pid in pids:
            if cuda.state(pid) is CudaState.CHECKPOINTED:
                cuda.restore(pid)
        for pid in pids:
            if cuda.state(pid) is CudaState.LOCKED:
                cuda.unlock(pid)
        left = {pid: state for pid in pids if (state := cuda.state(pid)) is not CudaState.RUNNING}
    except CudaFailed as failure:
        raise CudaBroken(f"{error}; undoing it failed: {failure}") from error
    if left:
        raise CudaBroken(f"{error}; left behind: {left}") from error


@dataclass(frozen=True, slots=True)
class NvidiaCuda:
    """The real calls, through the package `cuda-bindings`. Implements `CudaCalls`."""

    def state(self, pid: int) -> CudaState:
        """See `CudaCalls.state`."""
        (value,) = self._ask("get the state of", pid, "cuCheckpointProcessGetState")
        return CudaState(value.name.removeprefix("CU_PROCESS_STATE_").lower())

    def lock(self, pid: int, *, limit_ms: int) -> None:
        """See `CudaCalls.lock`."""
        from cuda.bindings import driver

        arguments = driver.CUcheckpointLockArgs()
        arguments.timeoutMs = limit_ms
        self._ask("lock", pid, "cuCheckpointProcessLock", arguments)

    def checkpoint(self, pid: int) -> None:
        """See `CudaCalls.checkpoint`."""
        self._ask("checkpoint", pid, "cuCheckpointProcessCheckpoint", None)

    def restore(self, pid: int) -> None:
        """See `CudaCalls.restore`."""
        self._ask("restore", pid, "cuCheckpointProcessRestore", None)

    def unlock(self, pid: int) -> None:
        """See `CudaCalls.unlock`."""
        self._ask("unlock", pid, "cuCheckpointProcessUnlock", None)

    def free_bytes(self) -> Mapping[str, int]:
        """See `CudaCalls.free_bytes`."""
        from cuda.bindings import nvml

        nvml.init_v2()
        try:
            handles = [
                nvml.device_get_handle_by_index_v2(index) for index in range(nvml.device_get_count_v2())
            ]
            return {
                nvml.device_get_uuid(handle): int(nvml.device_get_memory_info_v2(handle).free)
                for handle in handles
            }
        finally:
            nvml.shutdown()

    def open(self) -> None:
        """Initialise the driver. Raises CudaFailed."""
        from cuda.bindings import driver

        result = driver.cuInit(0)[0]
        if result.value != 0:
            raise CudaFailed("initialise CUDA", result.name)

    def _ask(self, call: str, pid: int, function: str, *arguments: object) -> tuple[Any, ...]:
        from cuda.bindings import driver

        result, *values = getattr(driver, function)(pid, *arguments)
        if result.value != 0:
            raise CudaFailed(f"{call} process {pid}", result.name)
        return tuple(values)


def answer(request: Mapping[str, Any], cuda: CudaCalls) -> str:
    """Carry out one request of `CudaDevice` and return the answer as JSON."""
    try:
        if request["call"] == "take_down":
            return json.dumps({"bytes_by_gpu": take_down(cuda, request["pids"])})
        if request["call"] == "check_room":
            check_room(cuda, request["bytes_by_gpu"])
        else:
            bring_back(cuda, request["pids"], request["bytes_by_gpu"])
        return json.dumps({})
    except CudaBroken as error:
        return json.dumps({"error": str(error), "broken": True})
    except (CudaFailed, ImportError, RuntimeError) as error:
        return json.dumps({"error": str(error), "broken": False})


def serve_calls(descriptor: int, cuda: CudaCalls) -> None:
    """Answer requests, a line each, until the other end closes: what the child process runs.

    The driver is initialised from the start in a thread of its own: `cuInit` takes 2.7 s on some machines
    (NVIDIA nvcf, issue 263). Free memory is NVML's to tell, which does not wait for that.
    """
    failures: list[Exception] = []

    def open_driver() -> None:
        try:
            cuda.open()
        except Exception as error:
            failures.append(error)

    opening = threading.Thread(target=open_driver, daemon=True)
    opening.start()
    with socket.socket(fileno=descriptor) as requests, requests.makefile("rw") as lines:
        for line in lines:
            request = json.loads(line)
            if request["call"] != "check_room":
                opening.join()
            said = {"error": str(failures[0]), "broken": False} if failures else None
            lines.write((json.dumps(said) if said else answer(request, cuda)) + "\n")
            lines.flush()


_CHILD = (
    "import sys; from poorwill.tiers.frozen.cuda import NvidiaCuda, serve_calls; "
    "serve_calls(int(sys.argv[1]), NvidiaCuda())"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaDevice:
    """GPU state of engines, taken down and brought back in a child process. Implements `Device`."""

    env: Mapping[str, str] = field(default_factory=dict)
    """The child's environment: containers find the driver's library through LD_LIBRARY_PATH."""
    limit_s: float = 300.0
    """For one call: a hung driver call is killed with its child."""
    program: Sequence[str] = (sys.executable, "-I", "-c", _CHILD)
    """What runs `serve_calls` on the descriptor that is its last argument."""

    async def take_down(self, pids: Sequence[int]) -> DeviceImage:
        """See `Device.take_down`. Only processes that hold a GPU device file are touched."""
        holders = [pid for pid in pids if _holds_gpu(pid)]
        if not holders:
            return DeviceImage()
        async with self._child() as child:
            said = await child.ask({"call": "take_down", "pids": holders})
        return DeviceImage(pids=tuple(holders), bytes_by_gpu=said["bytes_by_gpu"])

    async def bring_back(self, image: DeviceImage) -> None:
        """See `Device.bring_back`."""
        async with self._child() as child:
            await child.bring_back(image)

    @asynccontextmanager
    async def waking(self, image: DeviceImage) -> AsyncIterator[DeviceWake]:
        """See `Device.waking`: one child for all calls, which initialises CUDA during the restore."""
        if not image.pids:
            yield NoDevice()
            return
        async with self._child() as child:
            yield child

    @asynccontextmanager
    async def _child(self) -> AsyncIterator["_CudaChild"]:
        ours, theirs = socket.socketpair()
        with ours, tempfile.TemporaryFile() as output:
            with theirs:
                argv = [*self.program, str(theirs.fileno())]
                env = {"PATH": TOOL_PATH, **self.env}
                pid = start_in_session(argv, output, env, [theirs.fileno()])
            ours.setblocking(False)
            try:
                yield _CudaChild(requests=ours, output=output, limit_s=self.limit_s)
            finally:
                await end_session(pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CudaChild:
    """The child while it runs. Implements `DeviceWake`. Cancelled in a call: it is killed at the end."""

    requests: socket.socket
    output: IO[bytes]
    limit_s: float

    async def check_room(self, image: DeviceImage) -> None:
        """See `DeviceWake.check_room`."""
        await self.ask({"call": "check_room", "bytes_by_gpu": dict(image.bytes_by_gpu)})

    async def bring_back(self, image: DeviceImage) -> None:
        """See `DeviceWake.bring_back`."""
        pids, counts = list(image.pids), dict(image.bytes_by_gpu)
        await self.ask({"call": "bring_back", "pids": pids, "bytes_by_gpu": counts})

    async def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer. Raises DriverError if nothing was touched, DeviceBroken otherwise."""
        loop, text = asyncio.get_running_loop(), b""
        try:
            async with asyncio.timeout(self.limit_s):
                with suppress(OSError):  # it ended: the end of its answers says so
                    await loop.sock_sendall(self.requests, json.dumps(request).encode() + b"\n")
                    while not text.endswith(b"\n") and (more := await loop.sock_recv(self.requests, 65536)):
                        text += more
        except TimeoutError:
            said = f"{request['call']} hung for {self.limit_s:g} s and was killed"
            raise DeviceBroken(said) from None
        if not text.endswith(b"\n"):
            self.output.seek(0)
            why = self.output.read()[-500:].decode("utf-8", "replace")
            raise DeviceBroken(f"the child ended in {request['call']}: {why}")
        answered: dict[str, Any] = json.loads(text)
        if "error" in answered:
            kind = DeviceBroken if answered["broken"] else DriverError
            raise kind(answered["error"])
        return answered


def _holds_gpu(pid: int) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    return any(
        (procfs.open_file_path(pid, int(descriptor)) or "").startswith("/dev/nvidia")
        for descriptor in descriptors
    )
