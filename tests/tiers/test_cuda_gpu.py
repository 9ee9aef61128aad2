"""GPU state with a real GPU: an engine of nothing but GPU memory is frozen and remembers all of it."""

# ruff: noqa: TID251

import os
import sys
from pathlib import Path

import pytest

from poorwill.core.words import Phase
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.cuda import CudaDevice, NvidiaCuda

from .cases import new_cold, new_frozen
from .conftest import Fleet, ask

pytestmark = pytest.mark.gpu

PROGRAM = Path(__file__).parents[2] / "bench" / "gpu" / "memory_engine.py"
SIZE = 2 * 10**9


async def test_a_cuda_process_keeps_its_memory(fleet: Fleet, criu: Criu):
    driver = new_frozen(fleet, criu, device=CudaDevice(env=dict(os.environ)))
    launch = fleet.launch()
    launch = fleet.launch(
        argv=(sys.executable, str(PROGRAM), str(launch.port), str(SIZE)),
        port=launch.port,
        env=dict(os.environ),
    )
    running = await new_cold(fleet).wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
    before = ask(running, "/sum")
    full = sum(NvidiaCuda().free_bytes().values())
    parked = await driver.park(running, launch, generation=1)
    assert sum(NvidiaCuda().free_bytes().values()) >= full + SIZE
    assert parked.image_bytes >= SIZE
    fleet.marks.clear()
    for generation in (2, 3, 4):
        woken = await driver.wake(parked, launch, generation=generation, report=fleet.report)
        assert ask(woken, "/sum") == before
        if generation < 4:
            parked = await driver.park(woken, launch, generation=generation)
    assert Phase.RESTORE_DEVICE in [mark.phase for mark in fleet.marks]
