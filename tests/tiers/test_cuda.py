"""GPU state: the order of the driver's calls, its known failures, and a freeze with device state in it."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import until

from poorwill.core.ports.driver import DriverError
from poorwill.core.words import Phase
from poorwill.hosts.processes import procfs
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.cuda import (
    CudaBroken,
    CudaDevice,
    CudaFailed,
    CudaState,
    answer,
    bring_back,
    take_down,
)
from poorwill.tiers.frozen.device import DeviceBroken, DeviceImage
from poorwill.tiers.snapshots.manifest import HostFacts

from .cases import new_cold, new_frozen
from .conftest import Fleet, ask
from .fake_cuda import GPU, ROOM, FakeCuda, FakeDevice, FakeProcess

GB = 2**30


def ranks(count: int, **changes: object) -> FakeCuda:
    processes = {100 + rank: FakeProcess(gpu_bytes=(rank + 1) * GB) for rank in range(count)}
    return FakeCuda(processes=processes, ranks=True, **changes)  # type: ignore[arg-type]


def states(cuda: FakeCuda) -> set[CudaState]:
    return {process.state for process in cuda.processes.values()}


def test_ranks_go_through_each_state_together():
    cuda = ranks(3)
    pids = list(cuda.processes)
    released = take_down(cuda, pids)
    assert released == {GPU: 6 * GB} and states(cuda) == {CudaState.CHECKPOINTED}
    assert [call for call, _ in cuda.calls] == ["lock"] * 3 + ["checkpoint"] * 3
    cuda.calls.clear()
    bring_back(cuda, pids, released)
    assert [call for call, _ in cuda.calls] == ["restore"] * 3 + ["unlock"] * 3
    assert states(cuda) == {CudaState.RUNNING}
    assert [process.gpu_bytes for process in cuda.processes.values()] == [GB, 2 * GB, 3 * GB]


def test_the_fake_hangs_where_the_driver_does():
    cuda = ranks(2)
    cuda.lock(100, limit_ms=1)
    with pytest.raises(AssertionError, match="while its peer 101 is running"):
        cuda.checkpoint(100)


def test_a_lock_timeout_leaves_all_running():
    cuda = ranks(3)
    cuda.processes[102].busy = True
    with pytest.raises(CudaFailed, match="NOT_READY"):
        take_down(cuda, list(cuda.processes))
    assert states(cuda) == {CudaState.RUNNING}


def test_a_restore_needs_free_memory():
    cuda = ranks(1)
    released = take_down(cuda, [100])
    cuda.taken_by_others = ROOM - GB // 2
    cuda.calls.clear()
    with pytest.raises(CudaFailed, match=rf"needed on {GPU}"):
        bring_back(cuda, [100], released)
    assert cuda.calls == [] and not cuda.processes[100].doomed
    cuda.taken_by_others = 0
    bring_back(cuda, [100], released)
    assert states(cuda) == {CudaState.RUNNING}


def test_a_restore_out_of_memory_is_broken():
    cuda = ranks(1)
    take_down(cuda, [100])
    cuda.taken_by_others = ROOM - GB // 2
    with pytest.raises(CudaBroken, match="OPERATING_SYSTEM"):
        bring_back(cuda, [100], {GPU: 0})  # as if the memory was taken right after the look
    cuda.taken_by_others = 0
    with pytest.raises(CudaBroken, match="ILLEGAL_STATE"):
        bring_back(cuda, [100], {GPU: 0})


@given(count=st.integers(1, 4), fail_at=st.integers(0, 20))
def test_a_failed_take_down_is_undone_or_broken(count: int, fail_at: int):
    cuda = ranks(count, fail_at=fail_at)
    held = {pid: process.gpu_bytes for pid, process in cuda.processes.items()}
    try:
        take_down(cuda, list(cuda.processes))
    except CudaBroken:
        assert CudaState.FAILED in states(cuda)
    except CudaFailed:
        assert states(cuda) == {CudaState.RUNNING}
        assert {pid: process.gpu_bytes for pid, process in cuda.processes.items()} == held
    else:
        assert states(cuda) == {CudaState.CHECKPOINTED}


@given(count=st.integers(1, 4), fail_at=st.integers(0, 8))
def test_a_failed_bring_back_is_broken(count: int, fail_at: int):
    cuda = ranks(count)
    pids = list(cuda.processes)
    released = take_down(cuda, pids)
    cuda.calls.clear()
    cuda.fail_at = fail_at
    try:
        bring_back(cuda, pids, released)
    except CudaBroken:
        assert fail_at < 2 * count
    else:
        assert states(cuda) == {CudaState.RUNNING}


def test_the_child_answers_in_json():
    cuda = ranks(1)
    said = json.loads(answer({"call": "take_down", "pids": [100]}, cuda))
    assert said == {"bytes_by_gpu": {GPU: GB}}
    request = {"call": "bring_back", "pids": [100], **said}
    assert json.loads(answer(request, cuda)) == {}
    said = json.loads(answer({"call": "take_down", "pids": [7]}, cuda))
    assert said["broken"] and "INVALID_VALUE" in said["error"]
    cuda.processes[100].busy = True
    said = json.loads(answer({"call": "take_down", "pids": [100]}, cuda))
    assert not said["broken"] and "NOT_READY" in said["error"]


async def test_an_engine_without_a_gpu_is_left_alone():
    assert await CudaDevice().take_down([os.getpid()]) == DeviceImage()


async def test_a_missing_driver_is_reported():
    if HostFacts.read().gpu_driver != "none":
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(DriverError, match=r"(?i)cuda") as caught:
        await CudaDevice().bring_back(DeviceImage(pids=(1,), bytes_by_gpu={GPU: 1}))
    assert not isinstance(caught.value, DeviceBroken)


async def test_a_call_that_hangs_is_killed_at_its_limit():
    with pytest.raises(DeviceBroken, match="hung"):
        await CudaDevice(limit_s=0.0).bring_back(DeviceImage(pids=(1,)))


CHILD = """
import os, sys
paths, gate, descriptor = sys.argv[1:]
sys.path[:0] = paths.split(":")
from poorwill.tiers.frozen.cuda import serve_calls
from tests.tiers.fake_cuda import CudaState, FakeCuda, FakeProcess

class SlowlyOpened(FakeCuda):
    def open(self):
        with open(gate + ".pids", "a") as pids:
            print(os.getpid(), file=pids)
        open(gate).read()  # a FIFO: until the test says go

held = FakeProcess(gpu_bytes=0, host_bytes=2**30, state=CudaState.CHECKPOINTED)
serve_calls(int(descriptor), SlowlyOpened(processes={100: held}))
"""


async def test_cuda_opens_during_the_restore(tmp_path: Path):
    """One child for all calls of a wake; what needs no CUDA is answered before that is initialised."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    device = CudaDevice(program=(sys.executable, "-c", CHILD, ":".join(sys.path), str(gate)))
    image = DeviceImage(pids=(100,), bytes_by_gpu={GPU: GB})
    async with device.waking(image) as wake:
        await wake.check_room(image)
        back = asyncio.get_running_loop().create_task(wake.bring_back(image))
        await asyncio.to_thread(gate.write_text, "go")
        await back
    (pid,) = (tmp_path / "gate.pids").read_text().split()
    assert procfs.read_stat(int(pid)) is None


async def test_a_left_wake_leaves_no_child(tmp_path: Path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    device = CudaDevice(program=(sys.executable, "-c", CHILD, ":".join(sys.path), str(gate)))
    image = DeviceImage(pids=(100,), bytes_by_gpu={GPU: GB})

    async def bring_back() -> None:
        async with device.waking(image) as wake:
            await wake.bring_back(image)

    waking = asyncio.get_running_loop().create_task(bring_back())
    pids = tmp_path / "gate.pids"
    pid = await until(lambda: pids.exists() and pids.read_text())
    waking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waking
    assert procfs.read_stat(int(pid)) is None


# a freeze with device state in it


async def test_device_state_follows_the_process(fleet: Fleet, criu: Criu):
    device = FakeDevice()
    driver = new_frozen(fleet, criu, device=device)
    launch = fleet.launch()
    running = await new_cold(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    parked = await driver.park(running, launch, generation=1)
    assert device.cuda is not None and device.states() == {CudaState.CHECKPOINTED}
    fleet.marks.clear()
    woken = await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert device.states() == {CudaState.RUNNING} and ask(woken) == "1"
    (mark,) = [mark for mark in fleet.marks if mark.phase is Phase.RESTORE_DEVICE]
    assert mark.bytes_read == GB


async def test_a_full_device_spares_the_image(fleet: Fleet, criu: Criu):
    device = FakeDevice()
    driver = new_frozen(fleet, criu, device=device)
    launch = fleet.launch()
    running = await new_cold(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    parked = await driver.park(running, launch, generation=1)
    assert device.cuda is not None
    device.cuda.taken_by_others = ROOM
    with pytest.raises(DriverError, match="are free"):
        await driver.wake(parked, launch, generation=2, report=fleet.report)
    assert fleet.processes.found() == []
    device.cuda.taken_by_others = 0
    assert ask(await driver.wake(parked, launch, generation=3, report=fleet.report)) == "1"


async def test_device_state_needs_a_device(fleet: Fleet, criu: Criu):
    launch = fleet.launch()
    running = await new_cold(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    parked = await new_frozen(fleet, criu, device=FakeDevice()).park(running, launch, generation=1)
    with pytest.raises(DriverError, match="handles no device"):
        await new_frozen(fleet, criu).wake(parked, launch, generation=2, report=fleet.report)
    assert fleet.processes.found() == []


async def test_a_failed_dump_gives_the_device_back(fleet: Fleet, criu: Criu, tmp_path):
    broken = tmp_path / "criu"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o700)
    device = FakeDevice()
    driver = new_frozen(fleet, replace(criu, binary=str(broken)), device=device)
    launch = fleet.launch()
    running = await new_cold(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    with pytest.raises(DriverError, match="criu dump failed with status 1") as caught:
        await driver.park(running, launch, generation=1)
    assert caught.value.running == running and ask(running) == "1"
    assert device.cuda is not None and device.states() == {CudaState.RUNNING}
