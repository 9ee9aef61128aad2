"""Park and wake of an engine with GPU state, by tier, against the bytes moved and the limits of bus and disk.

    python bench/gpu/run.py [--engine memory|vllm|sglang] [--gigabytes 2 8] [--rounds 3]
                            [--ways cold asleep frozen asleep+frozen] [--directory DIR] [--out FILE]

For a machine with an NVIDIA GPU (driver 570 or later), root, CRIU (`poorwill doctor --install-criu`) and
`pip install 'poorwill[cuda]'`. `memory` is an engine that is nothing but GPU memory, so that the cost of
moving it stands alone; `vllm` and `sglang` must be installed and serve a random model made on the spot.
Every wake is timed with the page cache dropped, next to a plain read of the same snapshot.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from limits import bus_bytes_s, drop_page_cache, hardware, read_s
from random_llama import size_for, write_model

from poorwill.compose.clock import SystemClock
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.log import Log
from poorwill.core.settings import EngineSettings, ModelSettings, ReplicaSettings
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.engines.kinds import make_engine
from poorwill.engines.sleeping import engine_sleeps
from poorwill.hosts.processes.prctl import subreaper
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.asleep.driver import AsleepDriver
from poorwill.tiers.cold.driver import ColdDriver
from poorwill.tiers.frozen.criu import find_criu
from poorwill.tiers.frozen.cuda import CudaDevice, NvidiaCuda
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import SnapshotStore, store_root

WAYS = ("cold", "asleep", "frozen", "asleep+frozen")
PORT = 18_431


@dataclass
class Told:
    """A log on the terminal."""

    def info(self, message: str, /, **fields: object) -> None:
        print("  ", message, fields)

    warning = error = info


@dataclass
class Round:
    """One park and wake. Seconds and bytes."""

    park_s: float
    wake_s: float
    image_bytes: int
    gpu_bytes: int
    read_s: float
    phases: dict[str, float]


@dataclass
class Result:
    """One engine with one model, parked one way."""

    engine: str
    gigabytes: float
    way: str
    rounds: list[Round] = field(default_factory=list)
    failed: str = ""


@dataclass
class Bench:
    """The drivers, over one engine."""

    launch: Launch
    cold: ColdDriver
    asleep: AsleepDriver
    frozen: FrozenDriver
    clock: SystemClock
    generation: int = 0
    marks: list[PhaseMark] = field(default_factory=list)

    def next(self) -> int:
        self.generation += 1
        return self.generation

    async def start(self) -> Running:
        nothing = Parked(replica=self.launch.replica, generation=0, tier=Tier.COLD)
        return await self.wake(self.cold, nothing)

    async def wake(self, driver, parked: Parked) -> Running:
        self.marks.clear()
        return await driver.wake(parked, self.launch, generation=self.next(), report=self.marks.append)

    async def park(self, way: str, running: Running) -> tuple[object, Parked]:
        """Park one way; return the driver that wakes it, too."""
        if way == "cold":
            return self.cold, await self.cold.park(running, self.launch, generation=self.next())
        if way == "frozen":
            return self.frozen, await self.frozen.park(running, self.launch, generation=self.next())
        parked = await self.asleep.park(running, self.launch, generation=self.next())
        if way == "asleep":
            return self.asleep, parked
        return self.frozen, await self.frozen.descend(parked, self.launch, generation=self.next())


def launch_of(engine: str, gigabytes: float, directory: Path, env: dict[str, str]) -> Launch:
    if engine == "memory":
        program = Path(__file__).with_name("memory_engine.py")
        return Launch(
            replica=ReplicaId("bench-0"),
            model=ModelName("bench"),
            engine=engine,
            argv=(sys.executable, str(program), str(PORT), str(int(gigabytes * 1e9))),
            env=env,
            port=PORT,
            log_path=str(directory / "logs" / "memory.log"),
            digest=f"memory:{gigabytes}",
        )
    size = size_for(gigabytes)
    model = directory / f"llama-{gigabytes:g}"
    if not model.exists():
        print(f"writing a random model of {size.bytes / 1e9:.1f} GB ({size})")
        write_model(model, size)
    options = {"sleep": True}
    if engine == "vllm":
        # One process and no CUDA graphs: what is checkpointed is then the weights and the KV cache.
        options |= {"enforce_eager": True, "gpu_memory_utilization": 0.5, "max_model_len": 4096}
    settings = ModelSettings(
        name=ModelName("bench"),
        engine=EngineSettings(kind=engine, path=str(model), options=options, port=PORT),
        replica=ReplicaSettings(model=ModelName("bench")),
    )
    made = make_engine(settings, directory=str(directory), clock=SystemClock.started(), env=env)
    return made.launch(replica=ReplicaId("bench-0"), generation=1)


async def open_bench(launch: Launch, directory: Path, env: dict[str, str], log: Log) -> Bench:
    criu = await find_criu(env)
    assert criu is not None, "checked before anything was written"
    clock = SystemClock.started()
    processes = EngineProcesses(fleet=str(directory), clock=clock, log=log)
    frozen = FrozenDriver(
        criu=criu,
        store=SnapshotStore(root=store_root(directory, Tier.FROZEN), tier=Tier.FROZEN),
        space=Space(log=log),
        processes=processes,
        clock=clock,
        log=log,
        device=CudaDevice(env=env),
        sleeps=engine_sleeps(),
    )
    asleep = AsleepDriver(processes=processes, sleeps=engine_sleeps(), clock=clock, log=log)
    cold = ColdDriver(processes=processes, clock=clock, log=log)
    return Bench(launch=launch, cold=cold, asleep=asleep, frozen=frozen, clock=clock)


async def measure(bench: Bench, result: Result, rounds: int) -> None:
    running = await bench.start()
    try:
        for _ in range(rounds):
            used = _used_bytes()
            began = time.perf_counter()
            driver, parked = await bench.park(result.way, running)
            park_s = time.perf_counter() - began
            files = files_under(parked)
            drop_page_cache()
            plain_s = read_s(files)
            gpu_bytes = max(0, used - _used_bytes())
            drop_page_cache()
            began, began_us = time.perf_counter(), bench.clock.now_us()
            running = await bench.wake(driver, parked)
            wake_s = time.perf_counter() - began
            ended_us = bench.clock.now_us()
            result.rounds.append(
                Round(
                    park_s=park_s,
                    wake_s=wake_s,
                    image_bytes=parked.image_bytes,
                    gpu_bytes=gpu_bytes,
                    read_s=plain_s,
                    phases=_phases(bench.marks, began_us, ended_us),
                )
            )
            print(f"  {result.way}: park {park_s:.2f} s, wake {wake_s:.2f} s")
    finally:
        for found in bench.cold.processes.found():
            if found.running is not None:
                await bench.cold.processes.kill(found.running)


def files_under(parked: Parked) -> list[Path]:
    return [path for path in Path(parked.path or "/none").rglob("*") if path.is_file()]


def write_out(path: str, facts: dict[str, object], bus: dict[str, float], results: list[Result]):
    whole = {"hardware": facts, "bus_bytes_s": bus, "results": [asdict(each) for each in results]}
    Path(path).write_text(json.dumps(whole, indent=1))


def _used_bytes() -> int:
    return -sum(NvidiaCuda().free_bytes().values())


def _phases(marks: list[PhaseMark], began_us: int, ended_us: int) -> dict[str, float]:
    edges = [("checks", began_us), *((str(m.phase), m.at_us) for m in marks)]
    ends = [at for _, at in edges[1:]] + [ended_us]
    return {name: round((end - at) / 1e6, 4) for (name, at), end in zip(edges, ends, strict=True)}


def table(results: list[Result], bus: dict[str, float]) -> str:
    lines = [
        "| engine | GB | way | park s | wake s | image GB | GPU GB | read s | bus s | wake / (read + bus) |",
        "| --- " * 10 + "|",
    ]
    for result in results:
        if not result.rounds:
            why = result.failed.replace("|", "/")
            head = f"| {result.engine} | {result.gigabytes:g} | {result.way} | {why} |"
            lines.append(head + "  |" * 6)
            continue
        chosen = sorted(result.rounds, key=lambda each: each.wake_s)[len(result.rounds) // 2]
        bus_s = chosen.gpu_bytes / bus["to_gpu"]
        limit_s = chosen.read_s + bus_s
        ratio = f"{chosen.wake_s / limit_s:.2f}" if limit_s > 0.001 else "-"
        cells = (
            result.engine,
            f"{result.gigabytes:g}",
            result.way,
            f"{statistics.median(each.park_s for each in result.rounds):.2f}",
            f"{chosen.wake_s:.2f}",
            f"{chosen.image_bytes / 1e9:.2f}",
            f"{chosen.gpu_bytes / 1e9:.2f}",
            f"{chosen.read_s:.2f}",
            f"{bus_s:.2f}",
            ratio,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def main(options: argparse.Namespace) -> None:
    env = dict(os.environ)  # noqa: TID251 - a script is its own edge
    if await find_criu(env) is None:
        raise SystemExit("no CRIU here: poorwill doctor --install-criu")
    facts, bus = hardware(), bus_bytes_s()
    drop_page_cache()
    print(json.dumps(facts), json.dumps({way: f"{rate / 1e9:.1f} GB/s" for way, rate in bus.items()}))
    results: list[Result] = []
    directory = Path(tempfile.mkdtemp(prefix="bench-gpu-", dir=options.directory))
    try:
        for gigabytes in options.gigabytes:
            launch = launch_of(options.engine, gigabytes, directory, env)
            for way in options.ways:
                if options.engine == "memory" and "asleep" in way:
                    continue  # it has no sleep of its own
                result = Result(engine=options.engine, gigabytes=gigabytes, way=way)
                results.append(result)
                bench = await open_bench(launch, directory, env, Told())
                try:
                    await measure(bench, result, options.rounds)
                except Exception as error:  # one way that fails must not hide the others
                    result.failed = f"{type(error).__name__}: {error}"
                    print(f"  {way} failed: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(table(results, bus))
    if options.out:
        write_out(options.out, facts, bus, results)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--engine",
        choices=["memory", "vllm", "sglang"],
        default="memory",
        help="what holds the GPU memory (default: %(default)s)",
    )
    made.add_argument(
        "--gigabytes",
        type=float,
        nargs="+",
        default=[2.0, 8.0],
        metavar="GB",
        help="sizes to measure: of the memory, or of the model (default: 2 8)",
    )
    made.add_argument(
        "--ways",
        choices=WAYS,
        nargs="+",
        default=list(WAYS),
        metavar="WAY",
        help=f"how to park: {', '.join(WAYS)} (default: all that the engine can)",
    )
    made.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="parks and wakes of each (default: %(default)s)",
    )
    made.add_argument(
        "--directory",
        metavar="DIR",
        help="on the disk to be measured; snapshots and models go there (default: the temporary directory)",
    )
    made.add_argument("--out", metavar="FILE", help="write everything measured as JSON")
    return made


if __name__ == "__main__":
    with subreaper():
        asyncio.run(main(parser().parse_args()))
