"""What NVML says of devices becomes what placement goes by; nothing that it says raises."""

import asyncio
import inspect
import os
import threading
from collections.abc import Sequence
from dataclasses import replace

import pynvml
import pytest
from tests.fake_nvml import GIB, FakeGpu, FakeNvml

from poorwill.compose.drivers.devices import NO_NVML, device_problems, host_devices
from poorwill.core.settings import (
    DeviceNeed,
    DeviceSettings,
    EngineSettings,
    FleetSettings,
    ModelSettings,
    ReplicaSettings,
)
from poorwill.core.words import ModelName, ReplicaId
from poorwill.hosts.devices.nvml import NvmlDevices, StatedDevices, program_of
from poorwill.policies.placement.devices import DeviceState

OURS = ReplicaId("m-0")


def devices(nvml: FakeNvml, *stated: DeviceSettings, ours: int = 0, **others: object) -> NvmlDevices:
    return NvmlDevices(
        nvml=nvml,  # type: ignore[arg-type]
        stated=stated,
        replica_of=lambda pid: OURS if pid == ours else None,
        **others,  # type: ignore[arg-type]
    )


def seen(*gpus: FakeGpu, **others: object) -> Sequence[DeviceState]:
    return devices(FakeNvml(*gpus), **others).read()  # type: ignore[arg-type]


def test_the_fake_says_what_pynvml_can_say():
    for name, ours in vars(FakeNvml).items():
        if name.startswith("nvml") and callable(ours):
            theirs = inspect.signature(getattr(pynvml, name))
            assert list(inspect.signature(ours).parameters)[1:] == list(theirs.parameters), name
        elif name.startswith(("NVML_", "nvmlMemory")):
            assert getattr(pynvml, name) == ours, name
    for code in (1, 3, 6, 9, 13, 15, 16):
        assert str(pynvml.NVMLError(code)) == str(FakeNvml.NVMLError(code))


def test_the_real_module_answers_without_a_driver():
    found = NvmlDevices(nvml=pynvml, replica_of=lambda pid: None)
    states = found.read()
    assert bool(states) != bool(found.trouble)


def test_a_device_has_uuid_memory_and_holders():
    me = os.getpid()
    (state,) = seen(FakeGpu("GPU-a", reserved=GIB, holders={me: 5 * GIB, 2**22 + 1: 3 * GIB}), ours=me)
    assert (state.id, state.index, state.bytes, state.used_bytes) == ("GPU-a", 0, 79 * GIB, 8 * GIB)
    mine, unseen = state.holders
    assert (mine.replica, mine.bytes, mine.program) == (OURS, 5 * GIB, program_of(me))
    assert (unseen.replica, unseen.program) == (None, ""), "its pid is of another namespace"


def test_a_program_is_named_without_its_options():
    assert "--" not in program_of(os.getpid())
    assert program_of(2**22 + 1) == ""


def test_an_old_driver_counts_what_is_reserved_as_used():
    (state,) = devices(FakeNvml(FakeGpu("GPU-a", reserved=GIB), old=True)).read()
    assert (state.bytes, state.used_bytes) == (80 * GIB, GIB)


def test_one_that_draws_and_computes_counts_once():
    (state,) = seen(FakeGpu("GPU-a", holders={7: GIB}, drawing={7: GIB, 8: None}))
    assert {holder.pid: holder.bytes for holder in state.holders} == {7: GIB, 8: None}


def test_mig_instances_are_devices_and_their_parent_is_none():
    parts = {0: FakeGpu("MIG-x", 40 * GIB), 5: FakeGpu("MIG-y", 10 * GIB, holders={7: GIB})}
    plain = FakeGpu("GPU-b", mig=False)
    states = seen(FakeGpu("GPU-a", instances=parts), plain)
    assert [(each.id, each.index, each.bytes, each.instance) for each in states] == [
        ("MIG-x", 0, 40 * GIB, True),
        ("MIG-y", 0, 10 * GIB, True),
        ("GPU-b", 1, 80 * GIB, False),
    ]
    assert states[1].used_bytes == GIB


def test_mig_mode_without_an_instance_is_of_no_use():
    (state,) = seen(FakeGpu("GPU-a", instances={}))
    assert (state.id, state.unfit) == ("GPU-a", "it is in MIG mode and has no instance")


def test_memory_errors_are_told_and_a_failed_remap_is_unfit():
    states = seen(
        FakeGpu("GPU-a", uncorrected=2, remap_pending=True),
        FakeGpu("GPU-b", remap_failed=True),
        FakeGpu("GPU-c", ecc=False),
    )
    assert [each.unfit for each in states] == ["", "a faulty memory row could not be remapped", ""]
    assert states[0].caution == (
        "faulty memory rows wait for a reset to be remapped; "
        "2 uncorrected memory errors since the driver was loaded"
    )
    assert states[2].caution == ""


@pytest.mark.parametrize(("lost", "why"), [(15, "GPU is lost"), (16, "GPU requires restart")])
def test_a_lost_device_keeps_its_name_and_takes_nobody(lost: int, why: str):
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    found = devices(nvml)
    assert [each.unfit for each in found.read()] == ["", ""]
    nvml.gpus[0].lost = lost
    first, second = found.read()
    assert (first.id, first.unfit, second.unfit) == ("GPU-a", f"NVML: {why}", "")


def test_a_driver_that_goes_and_comes_back():
    nvml = FakeNvml(FakeGpu("GPU-a"), driver=False)
    found = devices(nvml)
    assert (found.read(), found.trouble) == ([], "NVML: Driver Not Loaded")
    nvml.driver = True
    assert (len(found.read()), found.trouble) == (1, "")
    nvml.open = False  # reloaded beneath us
    assert (found.read(), found.trouble) == ([], "NVML: Uninitialized")
    assert len(found.read()) == 1


def test_stated_devices_are_the_only_ones():
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"), FakeGpu("GPU-c", no_memory=True))
    states = devices(
        nvml,
        DeviceSettings(index=7, uuid="GPU-b", memory_bytes=60 * GIB),
        DeviceSettings(index=2, memory_bytes=96 * GIB),
        DeviceSettings(index=4, memory_bytes=GIB),
    ).read()
    assert [(each.id, each.bytes, each.unfit) for each in states] == [
        ("GPU-b", 60 * GIB, ""),
        ("GPU-c", 96 * GIB, ""),
        ("4", GIB, "NVML does not know it"),
    ]


def test_without_nvml_there_is_what_is_stated():
    stated = [DeviceSettings(index=0, memory_bytes=GIB)]
    for nvml in (None, FakeNvml(driver=False)):
        found = host_devices(stated, fleet="/", nvml=nvml)  # type: ignore[arg-type]
        assert isinstance(found, StatedDevices)
        assert [(each.id, each.bytes, each.used_bytes) for each in found.read()] == [("0", GIB, None)]
    none = host_devices([], fleet="/", nvml=None)
    assert (none.read(), none.trouble) == ([], NO_NVML)


def test_check_names_models_that_never_fit_here():
    name = ModelName("big")
    model = ModelSettings(
        name=name,
        engine=EngineSettings(kind="toy"),
        replica=ReplicaSettings(model=name),
        devices=DeviceNeed(gpus=2),
    )
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b", lost=15))
    problems, warnings = device_problems(FleetSettings(models=(model,)), nvml)  # type: ignore[arg-type]
    assert [(each.where, each.what) for each in problems] == [
        (
            "models.big.gpus",
            "can never fit: it needs 2 whole devices; 1 of 2 devices will do: "
            "GPU-a has 80 GiB, 1 has 0 MiB but NVML: GPU is lost",
        )
    ]
    assert [each.what for each in warnings] == ["1: not used: NVML: GPU is lost"]
    problems, warnings = device_problems(FleetSettings(models=(model,)), None)
    assert [each.what for each in problems] == [
        "can never fit: it needs 2 whole devices; none of 0 devices will do: none is there"
    ]
    assert [each.what for each in warnings] == [NO_NVML]
    without = replace(model, devices=DeviceNeed())
    assert device_problems(FleetSettings(models=(without,)), None) == ((), ()), "nobody asks for devices"


class StuckNvml(FakeNvml):
    """Its driver hangs until it is let go."""

    def __init__(self, *gpus: FakeGpu) -> None:
        super().__init__(*gpus)
        self.go_on = threading.Event()
        self.go_on.set()

    def nvmlDeviceGetCount(self) -> int:
        self.go_on.wait(60)
        return super().nvmlDeviceGetCount()


async def test_a_driver_that_hangs_takes_its_devices_out():
    nvml = StuckNvml(FakeGpu("GPU-a"))
    found = devices(nvml, limit_s=0.05)
    found.limit_s = 30.0
    assert [each.unfit for each in await found.look()] == [""]
    nvml.go_on.clear()
    found.limit_s = 0.05
    assert [each.unfit for each in await found.look()] == ["NVML has not answered for 0.05 s"]
    nvml.go_on.set()
    found.limit_s = 30.0
    assert [each.unfit for each in await found.look()] == [""]


async def test_a_look_that_nobody_waits_for_ends_alone():
    nvml = StuckNvml(FakeGpu("GPU-a"))
    found = devices(nvml, limit_s=30.0)
    nvml.go_on.clear()
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(found.look())
        await asyncio.sleep(0)
        looking.cancel()
    nvml.go_on.set()
    assert [each.id for each in await found.look()] == ["GPU-a"]
