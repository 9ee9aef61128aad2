"""The engines that run here, as real processes: started, followed, warmed up, probed."""

import asyncio
import os
import re
import threading
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI
from tests.files.test_read_ahead import in_cache, uncached
from tests.waiting import until

from poorwill.core.launch import PhaseMark
from poorwill.core.ports.driver import DriverError
from poorwill.core.words import Phase, ReplicaId, Tier
from poorwill.engines.asking import Endpoint, greedy_text
from poorwill.engines.dialects.answers import answer_reader
from poorwill.hosts.files import read_ahead
from poorwill.policies.coldstart.anatomy import anatomy

REPLICA = ReplicaId("tiny-0")


async def started(bench, engine, report, *, anew=True):
    launch = engine.launch(replica=REPLICA, generation=1, anew=anew)
    began_us = engine.clock.now_us()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(engine.follow(launch, report))
        await asyncio.sleep(0)
        running = bench.start(launch)
        await engine.ready(running, launch)
        follower.cancel()
    return launch, running, began_us, engine.clock.now_us()


async def test_llama_cpp_serves_and_tells_its_phases(bench, tiny_model, marks, report):
    engine = bench.engine("llama.cpp", path=str(tiny_model))
    launch, running, began_us, ended_us = await started(bench, engine, report)
    refined = engine.refine(launch, marks, began_us, ended_us)
    phases = [mark.phase for mark in refined]
    order = [Phase.IMPORTS, Phase.WEIGHTS, Phase.KV_CACHE, Phase.GRAPHS, Phase.WARMUP, Phase.READY]
    assert [phase for phase in dict.fromkeys(phases) if phase in order] == order
    assert all(began_us <= mark.at_us <= ended_us for mark in refined)
    assert await engine.probe(running, launch) == await engine.probe(running, launch) != ""


async def test_llama_cpp_tells_tokens_without_usage(bench, tiny_model, report):
    """Its timings say the same as the usage that it reports if it is asked to."""
    engine = bench.engine("llama.cpp", path=str(tiny_model))
    _, running, _, _ = await started(bench, engine, report)
    url = f"http://{running.host}:{running.port}/v1/chat/completions"
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": True}
    found = []
    # llama.cpp closes its connection after every stream, whatever it says.
    async with httpx2.AsyncClient(headers={"connection": "close"}) as client:
        for more in ({"stream_options": {"include_usage": True}}, {}):
            answer = await client.post(url, json=ask | more, timeout=30)
            reader = answer_reader(answer.headers["content-type"].encode(), hides=False)
            reader.feed(answer.content)
            found.append(reader.counts(complete=True))
    reported, counted = found
    assert (reported.tokens_out, reported.counted, counted.counted) == (5, False, True)
    assert (counted.tokens_in, counted.tokens_out) == (reported.tokens_in, 5)


@pytest.mark.parametrize(
    ("helps", "anew", "options"),
    [
        (True, True, {}),
        (True, True, {"load_mode": "mmap"}),
        (False, True, {"load_mode": "direct_io"}),
        (True, False, {"load_mode": "mmap"}),
        (False, False, {"load_mode": "none"}),
    ],
)
async def test_reading_ahead_where_it_helps(bench, tiny_model, marks, report, helps, anew, options):
    """A restored engine needs its weights' files only if it maps them."""
    engine = bench.engine("llama.cpp", path=str(tiny_model), options=options)
    launch, _, began_us, ended_us = await started(bench, engine, report, anew=anew)
    spans = anatomy(engine.refine(launch, marks, began_us, ended_us), began_us, ended_us)
    told = [span.phase for span in spans if "read ahead" in span.detail or "cached before" in span.detail]
    assert told == ([Phase.WEIGHTS] if helps else [])


@pytest.mark.parametrize(
    ("mode", "why", "ladder", "options"),
    [
        ("mmap", "frozen", (Tier.FROZEN, Tier.COLD), {}),
        ("mmap", "sooner", (Tier.ASLEEP, Tier.COLD), {}),
        ("none", "as configured", (Tier.FROZEN, Tier.COLD), {"load_mode": "none"}),
    ],
)
async def test_the_load_mode_is_told(bench, tiny_model, marks, report, mode, why, ladder, options):
    engine = bench.engine("llama.cpp", path=str(tiny_model), ladder=ladder, options=options)
    launch, _, began_us, ended_us = await started(bench, engine, report)
    assert launch.argv[launch.argv.index("--load-mode") + 1] == mode
    leaves = anatomy(engine.refine(launch, marks, began_us, ended_us), began_us, ended_us)
    (told,) = [leaf for leaf in leaves if "load_mode" in leaf.detail]
    assert told.phase is Phase.WEIGHTS and f"load_mode {mode}" in told.detail and why in told.detail


async def test_reading_ahead_can_be_turned_off(bench, tiny_model, marks, report):
    engine = bench.engine("llama.cpp", path=str(tiny_model), read_ahead=False)
    launch, _, began_us, ended_us = await started(bench, engine, report)
    assert "cached before" not in str(engine.refine(launch, marks, began_us, ended_us))


def readers() -> int:
    return sum(thread.name == "read-ahead" for thread in threading.enumerate())


async def test_bytes_come_before_the_engine_asks(bench, tiny_model, tmp_path):
    """While it is still importing: here it is not even started."""
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(tiny_model.read_bytes())
    engine = bench.engine("llama.cpp", path=str(weights))
    launch = engine.launch(replica=ReplicaId("tiny"), generation=1, anew=True)
    uncached(weights)  # its header has been read
    began_us = engine.clock.now_us()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(engine.follow(launch, lambda mark: None))
        await until(readers, within_s=5)
        await until(lambda: not readers())
        following.cancel()
    spawned = PhaseMark(phase=Phase.SPAWN, at_us=began_us)
    (leaf,) = engine.refine(launch, [spawned], began_us, engine.clock.now_us())
    assert re.search(r"\b[1-9]\d+ B read ahead", leaf.detail)


async def test_slow_imports_do_not_keep_the_disk_idle(bench, tiny_model, tmp_path, report):
    """A Python engine whose imports take until its weights have been read by somebody else."""
    weights, read = tmp_path / "weights.gguf", tmp_path / "read"
    weights.write_bytes(tiny_model.read_bytes())
    slow = f"import os, time\nwhile not os.path.exists({str(read)!r}): time.sleep(0.01)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    engine = bench.engine("llama.cpp", path=str(weights), env={"PYTHONPATH": str(tmp_path)})
    launch = engine.launch(replica=REPLICA, generation=1, anew=True)
    uncached(weights)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(engine.follow(launch, report))
        running = bench.start(launch)
        await until(lambda: in_cache(weights))
        read.touch()
        await engine.ready(running, launch)
        following.cancel()


async def test_reading_ahead_ends_with_the_wake(bench, tiny_model, monkeypatch):
    monkeypatch.setattr(read_ahead, "CHUNK_BYTES", 64)  # so that it would take half a minute
    engine = bench.engine("llama.cpp", path=str(tiny_model))
    launch = engine.launch(replica=ReplicaId("tiny"), generation=1, anew=True)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(engine.follow(launch, lambda mark: None))
        await until(lambda: readers() > 1)
        following.cancel()  # as a wake's end and its failure do
    await until(lambda: not readers(), within_s=3)


async def test_idle_connections_starve_nobody(bench, tiny_model, report):
    engine = bench.engine("llama.cpp", path=str(tiny_model), context=256, max_concurrency=16)
    launch, running, _, _ = await started(bench, engine, report)
    idle = []
    for _ in range(16):
        reader, writer = await asyncio.open_connection(launch.host, launch.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await reader.readline()
        idle.append(writer)
    async with asyncio.timeout(4):  # llama.cpp keeps an idle connection, and its thread, for five seconds
        assert await engine.probe(running, launch)
    for writer in idle:
        writer.close()


async def test_llama_cpp_serves_embeddings(bench, tiny_model, report):
    engine = bench.engine("llama.cpp", path=str(tiny_model), options={"embeddings": True})
    launch, _, _, _ = await started(bench, engine, report)
    async with AsyncOpenAI(
        base_url=f"http://{launch.host}:{launch.port}/v1", api_key="none", max_retries=0
    ) as client:
        chat = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=5
        )
        assert chat.choices[0].message.content
        vectors = await client.embeddings.create(model="tiny", input=["a", "b"])
        assert len(vectors.data) == 2


async def test_the_toy_is_followed_through_its_phases(bench, marks, report):
    engine = bench.engine("toy", options={"load_seconds": 0.4})
    launch, _, began_us, ended_us = await started(bench, engine, report)
    refined = engine.refine(launch, marks, began_us, ended_us)
    weights = next(mark for mark in refined if mark.phase is Phase.WEIGHTS)
    cache = next(mark for mark in refined if mark.phase is Phase.KV_CACHE)
    assert 280_000 <= cache.at_us - weights.at_us < 400_000


async def test_a_log_flood_does_not_hold_up_readiness(bench, marks, report):
    engine = bench.engine("toy", options={"flood_log": 40_000})
    launch, _, began_us, ended_us = await started(bench, engine, report)
    assert engine.refine(launch, marks, began_us, ended_us)[-1].phase is Phase.READY


async def test_a_failed_first_request_is_not_ready(bench, report):
    engine = bench.engine("toy", options={"fail_requests": 500})
    with pytest.raises(ExceptionGroup) as caught:
        await started(bench, engine, report)
    assert caught.group_contains(DriverError, match="answers no question.*500")


async def test_waiting_can_be_cancelled(bench, report):
    engine = bench.engine("toy", options={"never_ready": True})
    launch = engine.launch(replica=REPLICA, generation=1)
    running = bench.start(launch)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await engine.ready(running, launch)
    await until(lambda: sockets(running.pid) == 3)


async def test_bytes_read_belong_to_the_weights(bench, tiny_model, marks, report):
    engine = bench.engine("llama.cpp", path=str(tiny_model), options={"load_mode": "none"})
    launch, _, began_us, ended_us = await started(bench, engine, report)
    spans = anatomy(engine.refine(launch, marks, began_us, ended_us), began_us, ended_us)
    assert sum(span.bytes_read or 0 for span in spans) >= tiny_model.stat().st_size
    assert spans[0].began_us == began_us and spans[-1].ended_us == ended_us


def sockets(pid: int) -> int:
    """Open sockets of a process: a connection left to an engine would keep it from being frozen."""
    return sum(os.readlink(fd).startswith("socket:") for fd in Path(f"/proc/{pid}/fd").iterdir())


async def test_no_connection_to_the_engine_stays_open(bench, report):
    engine = bench.engine("toy")
    launch, running, _, _ = await started(bench, engine, report)
    idle = 3  # the listener and the event loop's own pair
    await engine.probe(running, launch)
    await until(lambda: sockets(running.pid) == idle)


@pytest.mark.parametrize("what", ["ready", "probe"])
async def test_a_cancelled_question_is_closed(bench, what):
    """A server that accepts and never answers."""
    accepted, ended = asyncio.Event(), asyncio.Event()

    async def silent(reader, writer):
        accepted.set()
        await reader.read()
        writer.close()
        ended.set()

    engine = bench.engine("toy")
    launch = engine.launch(replica=REPLICA, generation=1)
    async with asyncio.timeout(10), await asyncio.start_server(silent, "127.0.0.1", launch.port):
        asking = asyncio.get_running_loop().create_task(
            getattr(engine, what)(bench.running(launch, pid=os.getpid()), launch)
        )
        await accepted.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await ended.wait()


async def test_a_cancelled_follow_reports_nothing(bench, marks, report):
    engine = bench.engine("toy", options={"load_seconds": 0.3})
    launch = engine.launch(replica=REPLICA, generation=1)
    follower = asyncio.get_running_loop().create_task(engine.follow(launch, report))
    await asyncio.sleep(0)
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    running = bench.start(launch)
    await engine.ready(running, launch)
    assert marks == []


async def test_an_embedding_engine_is_probed(bench, tiny_model, report):
    """A path no server knows, then one that it does: the fallback from completions to chat."""
    engine = bench.engine("toy")
    _, running, _, _ = await started(bench, engine, report)
    text = await greedy_text(
        Endpoint(host=running.host, port=running.port, model="tiny", extra={"max_tokens": "none"})
    )
    assert len(text.split()) == 16  # completions and chat refused the bad field; embeddings took none


async def test_lines_before_the_follow_are_kept(bench, marks, report):
    engine = bench.engine("toy")
    launch = engine.launch(replica=REPLICA, generation=1)
    began_us = engine.clock.now_us()
    running = bench.start(launch)
    await until(lambda: Path(launch.log_path).read_text().count("poorwill-engine ready") == 1)
    following = asyncio.get_running_loop().create_task(engine.follow(launch, report))
    await engine.ready(running, launch)
    following.cancel()
    await asyncio.wait([following])  # as a wake does: it reads what is left on its way out
    phases = [mark.phase for mark in engine.refine(launch, marks, began_us, engine.clock.now_us())]
    assert phases.index(Phase.IMPORTS) < phases.index(Phase.WEIGHTS) < phases.index(Phase.READY)
