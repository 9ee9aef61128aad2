"""The tier `asleep`: each engine's own sleep, beyond what the contract suite asks of every driver.

The fakes are programs with the traps of the real engines, and tests prove that each trap is there.
"""

import asyncio
import http.client
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import DriverError, SnapshotRefused
from poorwill.core.words import Phase, Tier
from poorwill.engines.sleeping import call
from poorwill.engines.weights.gguf_model import make_model
from poorwill.hosts.processes import procfs
from poorwill.tiers.asleep.driver import AsleepDriver
from poorwill.tiers.cold.driver import ColdDriver
from poorwill.tiers.frozen.criu import Criu

from .cases import new_cold, new_frozen
from .conftest import Fleet
from .sleepers import FAKES, PROGRAMS, complete, gguf, launch_of, new_asleep

__all__ = ["gguf"]  # fixtures


@dataclass
class Bed:
    """A fleet with a driver that puts one kind of engine to sleep."""

    fleet: Fleet
    cold: ColdDriver
    driver: AsleepDriver
    kind: str
    model: Path

    def launch(self, *switches: str) -> Launch:
        return launch_of(self.fleet, self.kind, self.model, *switches)

    async def start(self, launch: Launch) -> Running:
        return await self.cold.wake(self.fleet.cold(launch), launch, generation=1, report=self.fleet.report)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int = 2) -> Running:
        return await self.driver.wake(parked, launch, generation=generation, report=self.fleet.report)

    def nothing_runs(self) -> bool:
        return self.fleet.processes.found() == []


def new_bed(fleet: Fleet, kind: str, model: Path) -> Bed:
    return Bed(fleet=fleet, cold=new_cold(fleet), driver=new_asleep(fleet), kind=kind, model=model)


@pytest.fixture
def bed_of(fleet: Fleet, gguf: Path) -> Callable[[str], Bed]:
    return lambda kind: new_bed(fleet, kind, gguf)


@pytest.fixture(params=PROGRAMS)
def bed(request: pytest.FixtureRequest, bed_of: Callable[[str], Bed]) -> Bed:
    return bed_of(request.param)


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, bed_of: Callable[[str], Bed]) -> Bed:
    return bed_of(request.param)


def status(running: Running, path: str = "/health") -> int:
    connection = http.client.HTTPConnection(running.host, running.port, timeout=20)
    try:
        connection.request("GET", path, headers={"connection": "close"})
        return connection.getresponse().status
    finally:
        connection.close()


# what holds for every engine


async def test_three_sleeps_keep_the_text(bed: Bed):
    launch = bed.launch()
    running = await bed.start(launch)
    text = await asyncio.to_thread(complete, running)
    assert text and "!" not in text
    for generation in (1, 2, 3):
        parked = await bed.driver.park(running, launch, generation=generation)
        assert (parked.tier, parked.running) == (Tier.ASLEEP, running)
        assert bed.fleet.processes.alive(running)
        assert status(running) == 200  # the trap: healthy while it sleeps
        bed.fleet.marks.clear()
        running = await bed.wake(parked, launch, generation=generation + 1)
        assert (running.generation, running.driver) == (generation + 1, "asleep")
        assert [mark.phase for mark in bed.fleet.marks] == [Phase.ENGINE_WAKE]
        assert await asyncio.to_thread(complete, running) == text
    await bed.fleet.processes.kill(running)


async def test_a_record_without_process_is_refused(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm")
    launch = bed.launch()
    parked = await bed.driver.park(await bed.start(launch), launch, generation=1)
    with pytest.raises(SnapshotRefused, match="gone"):
        await bed.wake(replace(parked, running=None), launch)


async def test_a_wake_past_its_limit_ends_the_engine(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm")
    launch = bed.launch("--wake-seconds", "600")
    parked = await bed.driver.park(await bed.start(launch), launch, generation=1)
    bed.driver.wake_limit_s = 0.2
    with pytest.raises(DriverError, match=r"did not wake within 0\.2 s"):
        await bed.wake(parked, launch)
    assert bed.nothing_runs()


async def test_a_sleeping_engine_can_go_deeper(fake: Bed, criu: Criu):
    launch = fake.launch()
    running = await fake.start(launch)
    text = await asyncio.to_thread(complete, running)
    frozen = new_frozen(fake.fleet, criu)
    asleep = await fake.driver.park(running, launch, generation=1)
    deeper = await frozen.descend(asleep, launch, generation=2)
    assert deeper.tier is Tier.FROZEN and fake.nothing_runs()
    fake.fleet.marks.clear()
    running = await frozen.wake(deeper, launch, generation=3, report=fake.fleet.report)
    assert Phase.ENGINE_WAKE in [mark.phase for mark in fake.fleet.marks]
    assert await asyncio.to_thread(complete, running) == text
    asleep = await fake.driver.park(running, launch, generation=3)
    cold = await fake.cold.descend(asleep, launch, generation=4)
    assert cold.tier is Tier.COLD and fake.nothing_runs()
    with pytest.raises(DriverError, match="no way from cold to asleep"):
        await fake.driver.descend(cold, launch, generation=5)


async def test_an_engine_without_sleep_serves_on(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm")
    launch = bed.launch()
    running = await bed.start(launch)
    for changed in (replace(launch, sleep=None), replace(launch, sleep="tensorrt")):
        with pytest.raises(DriverError, match="no sleep of its own") as caught:
            await bed.driver.park(running, changed, generation=1)
        assert caught.value.running == running
    assert await asyncio.to_thread(complete, running)


# vLLM


async def test_vllm_asleep_holds_requests_silently(
    bed_of: Callable[[str], Bed],
):
    bed = bed_of("vllm")
    launch = bed.launch()
    running = await bed.start(launch)
    text = await asyncio.to_thread(complete, running)
    parked = await bed.driver.park(running, launch, generation=1)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(complete, running, timeout_s=0.3)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(asyncio.to_thread(complete, running))
        await bed.wake(parked, launch)
    assert waiting.result() == text


async def test_vllm_level_2_without_reload_is_garbage(
    bed_of: Callable[[str], Bed],
):
    bed = bed_of("vllm-2")
    launch = bed.launch()
    running = await bed.start(launch)
    text = await asyncio.to_thread(complete, running)
    parked = await bed.driver.park(running, launch, generation=1)
    await call(running, "/wake_up")  # what a client that does not know level 2 would do
    assert await asyncio.to_thread(complete, running) != text
    await call(running, "/sleep", level=2)
    running = await bed.wake(parked, launch)
    assert await asyncio.to_thread(complete, running) == text


async def test_vllm_with_unreadable_weights_is_ended(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm-2")
    launch = bed.launch("--fail-reload")
    parked = await bed.driver.park(await bed.start(launch), launch, generation=1)
    with pytest.raises(DriverError, match=r"/collective_rpc answered 500: .*file not found"):
        await bed.wake(parked, launch)
    assert bed.nothing_runs()


async def test_vllm_open_to_others_is_left_awake(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm")
    launch = bed.launch()
    running = await bed.start(launch)
    with pytest.raises(DriverError, match=r"open to whoever reaches 0\.0\.0\.0") as caught:
        await bed.driver.park(running, replace(launch, host="0.0.0.0"), generation=1)
    assert caught.value.running == running


async def test_vllm_without_dev_mode_serves_on(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm")
    launch = replace(bed.launch(), env={})
    running = await bed.start(launch)
    assert status(running, "/is_sleeping") == 404
    error = await _failed_park(bed, running, launch)
    assert error.running == running and "VLLM_SERVER_DEV_MODE=1" in str(error)
    assert await asyncio.to_thread(complete, running)


async def test_vllm_whose_sleep_fails_serves_on(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm")
    launch = bed.launch("--fail-sleep")
    running = await bed.start(launch)
    error = await _failed_park(bed, running, launch)
    assert error.running == running and "out of memory" in str(error)
    assert await asyncio.to_thread(complete, running)


async def test_vllm_lets_a_request_end_first(bed_of: Callable[[str], Bed]):
    bed = bed_of("vllm")
    launch = bed.launch("--tokens-per-second", "50")
    running = await bed.start(launch)
    async with asyncio.TaskGroup() as group:
        stray = group.create_task(asyncio.to_thread(complete, running, tokens=20))
        await _busy(running)
        parked = await bed.driver.park(running, launch, generation=1)
    assert len(stray.result().split()) == 20
    assert parked.tier is Tier.ASLEEP


# SGLang


async def test_sglang_dies_of_a_release_while_busy(bed_of: Callable[[str], Bed]):
    bed = bed_of("sglang")
    launch = bed.launch("--tokens-per-second", "20")
    running = await bed.start(launch)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(_swallowed, running))
        await _busy(running)
        with pytest.raises(DriverError, match="no answer to /release_memory_occupation"):
            await call(running, "/release_memory_occupation", {})
    why = await bed.fleet.processes.exited(running)
    assert "should be called only when idle" in why


async def test_sglang_is_paused_first_and_lives(bed_of: Callable[[str], Bed]):
    bed = bed_of("sglang with-backup")
    launch = bed.launch("--tokens-per-second", "50")
    running = await bed.start(launch)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(_swallowed, running))
        await _busy(running)
        parked = await bed.driver.park(running, launch, generation=1)
    running = await bed.wake(parked, launch)
    assert await asyncio.to_thread(complete, running)


async def test_sglang_with_unreadable_weights_is_ended(bed_of: Callable[[str], Bed]):
    bed = bed_of("sglang")
    launch = bed.launch("--fail-reload")
    parked = await bed.driver.park(await bed.start(launch), launch, generation=1)
    with pytest.raises(DriverError, match="Failed to get weights iterator"):
        await bed.wake(parked, launch)
    assert bed.nothing_runs()


async def test_sglang_without_memory_saver_serves_on(bed_of: Callable[[str], Bed]):
    bed = bed_of("sglang")
    launch = bed.launch()
    running = await bed.start(launch)
    bare = replace(launch, argv=tuple(w for w in launch.argv if w != "--enable-memory-saver"))
    with pytest.raises(DriverError, match="--enable-memory-saver") as caught:
        await bed.driver.park(running, bare, generation=1)
    assert caught.value.running == running


# Ollama


async def test_ollama_that_cannot_unload_serves_on(bed_of: Callable[[str], Bed]):
    bed = bed_of("ollama")
    launch = bed.launch("--ignore-unload")
    running = await bed.start(launch)
    assert await asyncio.to_thread(complete, running)
    bed.driver.park_limit_s = 0.3
    error = await _failed_park(bed, running, launch)
    assert error.running == running and "did not fall asleep within 0.3 s" in str(error)
    assert await asyncio.to_thread(complete, running)


async def test_ollama_that_cannot_load_is_ended(bed_of: Callable[[str], Bed]):
    bed = bed_of("ollama")
    launch = bed.launch("--fail-load", "1")
    running = await bed.start(launch)
    assert await asyncio.to_thread(complete, running)
    parked = await bed.driver.park(running, launch, generation=1)
    with pytest.raises(DriverError, match="llama runner process has terminated"):
        await bed.wake(parked, launch)
    assert bed.nothing_runs()


# llama.cpp, the real one


async def test_llamacpp_asleep_frees_its_memory(bed_of: Callable[[str], Bed]):
    bed = bed_of("llama.cpp")
    launch = bed.launch()
    running = await bed.start(launch)
    awake_bytes = procfs.private_bytes(running.pid)
    parked = await bed.driver.park(running, launch, generation=1)
    # 9 MB of weights and the KV cache; what the allocator keeps is its own affair.
    assert procfs.private_bytes(running.pid) < awake_bytes - 5 * 2**20
    await bed.driver.discard(parked)


async def test_llamacpp_without_its_file_is_ended(bed_of: Callable[[str], Bed], tmp_path: Path):
    bed = bed_of("llama.cpp")
    bed.model = make_model(tmp_path / "passing.gguf", size="5m")
    launch = bed.launch()
    parked = await bed.driver.park(await bed.start(launch), launch, generation=1)
    os.unlink(bed.model)
    with pytest.raises(DriverError, match="no answer to /completion"):
        await bed.wake(parked, launch)
    assert bed.nothing_runs()


async def test_llamacpp_without_idle_sleep_serves_on(bed_of: Callable[[str], Bed]):
    bed = bed_of("llama.cpp")
    launch = bed.launch()
    running = await bed.start(launch)
    restless = replace(launch, argv=launch.argv[:-2])
    with pytest.raises(DriverError, match="--sleep-idle-seconds") as caught:
        await bed.driver.park(running, restless, generation=1)
    assert caught.value.running == running


async def _failed_park(bed: Bed, running: Running, launch: Launch) -> DriverError:
    try:
        parked = await bed.driver.park(running, launch, generation=1)
    except DriverError as error:
        return error
    raise AssertionError(f"it did not fail: {parked}")


async def _busy(running: Running) -> None:
    """Wait until the toy behind a fake decodes a request."""
    async with asyncio.timeout(10):
        while (await call(running, "/toy", method="GET"))["active"] == 0:
            pass  # each look is a request


def _swallowed(running: Running) -> None:
    """A request that may end in any way."""
    try:
        complete(running, tokens=40)
    except (OSError, http.client.HTTPException):
        return
