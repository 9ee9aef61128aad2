"""The driver of engines that somebody else runs: it waits, watches, and ends nothing."""

import asyncio

import pytest
from tests.gateway.toy_upstream import Asked, Script, ToyUpstream, answer, toy_upstream
from tests.kept_log import KeptLog
from tests.tiers.cancelling import cancelled_at

from poorwill.compose.clock import SystemClock
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import EngineUrl
from poorwill.core.words import ModelName, Phase, ReplicaId, Tier
from poorwill.hosts.files.reach import Reach
from poorwill.remote.elsewhere import ElsewhereDriver, EnginesElsewhere

FAR = ReplicaId("far-0")
COLD = Parked(replica=FAR, generation=0, tier=Tier.COLD)


def reach(toy: ToyUpstream, key: str = "") -> Reach:
    return Reach(url=EngineUrl(toy.host, toy.port, "/a"), key=key)


def launch(toy: ToyUpstream) -> Launch:
    return Launch(
        replica=FAR,
        model=ModelName("far"),
        engine="vllm",
        argv=(),
        host=f"far@{toy.host}",
        port=toy.port,
        log_path="/dev/null",
    )


def says(*statuses: int) -> Script:
    left = list(statuses)

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(left.pop(0) if len(left) > 1 else left[0], b"{}"))

    return script


async def woken(toy: ToyUpstream, marks: list[PhaseMark], key: str = "", limit_s: float = 5.0) -> Running:
    driver = ElsewhereDriver(reach=reach(toy, key), clock=SystemClock.started(), silent_s=limit_s)
    return await driver.wake(COLD, launch(toy), generation=1, report=marks.append)


async def test_an_engine_that_loads_is_waited_for() -> None:
    marks: list[PhaseMark] = []
    async with toy_upstream(says(502, 503, 503, 200)) as toy:
        running = await woken(toy, marks, key="k")
        assert (running.host, running.driver, running.pid) == (f"far@{toy.host}", "elsewhere", 0)
        assert [mark.phase for mark in marks] == [Phase.SPAWN, Phase.WEIGHTS]
        assert {(one.target, one.headers["authorization"]) for one in toy.asked} == {
            ("/a/health", "Bearer k")
        }


@pytest.mark.parametrize(("key", "why"), [("k", "key of url_key_env is refused"), ("", "wants a key")])
async def test_a_refused_key_fails_at_once(key: str, why: str) -> None:
    async with toy_upstream(says(401)) as toy:
        with pytest.raises(DriverError, match=f"/a/health answers 401: .*{why}"):
            await woken(toy, [], key)
        assert len(toy.asked) == 1


async def test_an_engine_that_never_is_ready() -> None:
    async with toy_upstream(says(404)) as toy:
        with pytest.raises(DriverError, match="last answered status 404"):
            await woken(toy, [], limit_s=0.2)


async def test_one_that_loads_has_longer() -> None:
    async with toy_upstream(says(*[503] * 6, 200)) as toy:
        assert (await woken(toy, [], limit_s=0.2)).port == toy.port


async def test_a_wake_cancelled_anywhere() -> None:
    async with toy_upstream(says(503, 503, 200)) as toy:
        cancelled = 0
        while await cancelled_at(cancelled, woken(toy, [])):
            cancelled += 1
        async with asyncio.timeout(5):
            while toy.open_connections:
                toy.closed.clear()
                await toy.closed.wait()
        assert cancelled > 2


async def test_an_engine_that_falls_silent_is_lost() -> None:
    engines_log = KeptLog()
    async with toy_upstream(says(200)) as toy:
        engines = EnginesElsewhere(reach=reach(toy), log=engines_log, watch_s=0.01, silences=2)
        running = await woken(toy, [])
        assert engines.alive(running)
        await engines.kill(running)
        watching = asyncio.get_running_loop().create_task(engines.exited(running))
        await toy.until(lambda: len(toy.asked) > 3)
        assert not watching.done()
        toy.stop_listening()
        assert await watching == f"http://{toy.host}:{toy.port}/a does not answer"


async def test_parking_touches_nothing() -> None:
    async with toy_upstream(says(200)) as toy:
        running = await woken(toy, [])
        asked = len(toy.asked)
        driver = ElsewhereDriver(reach=reach(toy), clock=SystemClock.started())
        parked = await driver.park(running, launch(toy), generation=2)
        assert (parked.tier, parked.running, len(toy.asked)) == (Tier.COLD, None, asked)
        assert await driver.inventory() == ()
