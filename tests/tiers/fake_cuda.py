"""The CUDA driver's checkpoint calls without a GPU: six states, one memory, and the failures known of it.

Modelled after the driver API's documentation and NVIDIA/cuda-checkpoint's issues: 44 (a restore that runs
out of memory leaves the process checkpointed for good) and 30/45 (ranks that talk to one another hang when
one of them is checkpointed or unlocked while a peer is not ready for it).
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from poorwill.core.ports.driver import DriverError
from poorwill.tiers.frozen.cuda import (
    CudaBroken,
    CudaFailed,
    CudaState,
    bring_back,
    check_room,
    take_down,
)
from poorwill.tiers.frozen.device import DeviceImage

GPU = "GPU-fake"
ROOM = 80 * 2**30
HELD = 2**30
"""What each process of an engine holds on the GPU."""


class Hang(AssertionError):
    """Where the real driver would wait for ever."""


@dataclass
class FakeProcess:
    gpu_bytes: int
    state: CudaState = CudaState.RUNNING
    host_bytes: int = 0
    busy: bool = False
    """Its work does not drain: a lock times out."""
    doomed: bool = False
    """A restore ran out of memory once."""


@dataclass
class FakeCuda:
    """Implements `CudaCalls`. All its processes are ranks of one job where `ranks` is set."""

    processes: dict[int, FakeProcess]
    ranks: bool = False
    taken_by_others: int = 0
    fail_at: int | None = None
    """The number of the call, from 0, that fails with CUDA_ERROR_UNKNOWN and leaves the process FAILED."""
    calls: list[tuple[str, int]] = field(default_factory=list)

    def open(self) -> None:
        pass

    def state(self, pid: int) -> CudaState:
        self._hang_if(pid, {CudaState.CHECKPOINTED}, {CudaState.RUNNING}, "get the state")
        return self._process(pid, "get the state").state

    def lock(self, pid: int, *, limit_ms: int) -> None:
        process = self._called("lock", pid, CudaState.RUNNING)
        if process.busy:
            raise CudaFailed("lock", "CUDA_ERROR_NOT_READY")
        process.state = CudaState.LOCKED

    def checkpoint(self, pid: int) -> None:
        self._hang_if(pid, {CudaState.LOCKED}, {CudaState.RUNNING}, "checkpoint")
        process = self._called("checkpoint", pid, CudaState.LOCKED)
        process.state = CudaState.CHECKPOINTED
        process.gpu_bytes, process.host_bytes = 0, process.gpu_bytes

    def restore(self, pid: int) -> None:
        process = self._called("restore", pid, CudaState.CHECKPOINTED)
        if process.doomed:
            raise CudaFailed("restore", "CUDA_ERROR_ILLEGAL_STATE")
        if process.host_bytes > self.free_bytes()[GPU]:
            process.doomed = True
            raise CudaFailed("restore", "CUDA_ERROR_OPERATING_SYSTEM")
        process.state = CudaState.LOCKED
        process.gpu_bytes, process.host_bytes = process.host_bytes, 0

    def unlock(self, pid: int) -> None:
        self._hang_if(pid, {CudaState.LOCKED}, {CudaState.CHECKPOINTED}, "unlock")
        self._called("unlock", pid, CudaState.LOCKED).state = CudaState.RUNNING

    def free_bytes(self) -> dict[str, int]:
        used = sum(process.gpu_bytes for process in self.processes.values())
        return {GPU: ROOM - used - self.taken_by_others}

    def _process(self, pid: int, call: str) -> FakeProcess:
        if pid not in self.processes:
            raise CudaFailed(call, "CUDA_ERROR_INVALID_VALUE")
        return self.processes[pid]

    def _called(self, call: str, pid: int, needs: CudaState) -> FakeProcess:
        process = self._process(pid, call)
        number = len(self.calls)
        self.calls.append((call, pid))
        if number == self.fail_at:
            process.state = CudaState.FAILED
            raise CudaFailed(call, "CUDA_ERROR_UNKNOWN")
        if process.state is not needs:
            raise CudaFailed(call, "CUDA_ERROR_ILLEGAL_STATE")
        return process

    def _hang_if(self, pid: int, mine: set[CudaState], theirs: set[CudaState], call: str) -> None:
        if not self.ranks or pid not in self.processes or self.processes[pid].state not in mine:
            return
        for other, process in self.processes.items():
            if other != pid and process.state in theirs:
                raise Hang(f"{call} of {pid} while its peer {other} is {process.state}")


@dataclass
class FakeDevice:
    """A `Device` over the fake driver, in process; every call can be cancelled before and after its work."""

    cuda: FakeCuda | None = None

    async def take_down(self, pids: Sequence[int]) -> DeviceImage:
        await asyncio.sleep(0)
        self.cuda = FakeCuda(processes={pid: FakeProcess(gpu_bytes=HELD) for pid in pids})
        image = DeviceImage(pids=tuple(pids), bytes_by_gpu=take_down(self.cuda, pids))
        await asyncio.sleep(0)
        return image

    async def check_room(self, image: DeviceImage) -> None:
        await asyncio.sleep(0)
        assert self.cuda is not None
        try:
            check_room(self.cuda, image.bytes_by_gpu)
        except CudaFailed as error:
            raise DriverError(str(error)) from error

    async def bring_back(self, image: DeviceImage) -> None:
        await asyncio.sleep(0)
        assert self.cuda is not None
        try:
            bring_back(self.cuda, image.pids, image.bytes_by_gpu)
        except (CudaFailed, CudaBroken) as error:
            raise DriverError(str(error)) from error
        await asyncio.sleep(0)

    def waking(self, image: DeviceImage) -> AbstractAsyncContextManager["FakeDevice"]:
        return nullcontext(self)

    def states(self) -> set[CudaState]:
        """The states of the processes that were taken down last."""
        return {process.state for process in self.cuda.processes.values()} if self.cuda else set()

    def state_of(self, pid: int) -> CudaState | None:
        """The state of a process, None of one that was not taken down last."""
        process = self.cuda.processes.get(pid) if self.cuda else None
        return process.state if process else None
