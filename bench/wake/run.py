"""Park and wake of every tier against a plain copy, a plain read and the engine's own start, in one run.

    python bench/wake/run.py [--tiers asleep frozen suspended] [--sizes 5m 100m] [--rounds 5]
        [--read-ahead both] [--out FILE]

Random models are made on the spot. For each tier and size: the engine is started with the page cache warm and
dropped; then it is parked and woken in rounds, alternately with the cache warm and dropped, and each round
also copies and reads the very bytes of that snapshot. So every ratio compares things done within seconds of
each other on the same machine. "To token" is from the start of the call to the first streamed token.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from stopwatch import copy_s, drop_page_cache, files_under, first_token_s, read_s
from tiers import Bench, open_bench

from poorwill.core.errors import PoorwillError
from poorwill.core.launch import Parked, PhaseMark, Running
from poorwill.core.words import Tier
from poorwill.engines.weights.gguf_model import SHAPES, make_model
from poorwill.hosts.processes.prctl import subreaper

CACHES = ("warm", "dropped")
T = TypeVar("T")


@dataclass
class Round:
    """One park and wake, in seconds, with what it is compared with."""

    cache: str
    bytes: int
    park_s: float
    copy_s: float
    read_s: float
    wake_s: float
    token_s: float
    phases: dict[str, float]


@dataclass
class Measured:
    """One tier with one model."""

    tier: str
    size: str
    load_mode: str
    ahead: bool
    model_bytes: int
    note: str
    starts: dict[str, list[float]] = field(default_factory=dict)
    """The engine's own start to the first token, by page cache."""
    rounds: list[Round] = field(default_factory=list)


async def measure(bench: Bench, measured: Measured, model: Path, *, rounds: int) -> None:
    for cache in CACHES:
        measured.starts[cache] = []
        for _ in range(min(3, rounds)):
            prepare(cache, [model])
            running, start_s = await clocked(bench.start)
            token_s = await asyncio.to_thread(token, bench)
            measured.starts[cache].append(start_s + token_s)
            await bench.stop(running)
    running = await bench.start()
    await asyncio.to_thread(token, bench)
    for number in range(rounds * len(CACHES)):
        done = await one_round(bench, running, CACHES[number % 2], model)
        running = done[0]
        measured.rounds.append(done[1])
    await bench.stop(running)


async def one_round(bench: Bench, running: Running, cache: str, model: Path) -> tuple[Running, Round]:
    async def park() -> Parked:
        return await bench.park(running)

    parked, park_s = await clocked(park)
    files = files_under(Path(parked.path)) if parked.path else []
    size = sum(path.stat().st_size for path in files)
    copied_s = await asyncio.to_thread(copy_s, files, Path(bench.launch.log_path).parent / "copy")
    prepare(cache, files)
    whole_s = await asyncio.to_thread(read_s, files)
    prepare(cache, [*files, model])

    async def wake() -> Running:
        return await bench.wake(parked)

    began_us = bench.clock.now_us()
    woken, wake_s = await clocked(wake)
    token_s = await asyncio.to_thread(token, bench)
    return woken, Round(
        cache=cache,
        bytes=size,
        park_s=park_s,
        copy_s=copied_s,
        read_s=whole_s,
        wake_s=wake_s,
        token_s=wake_s + token_s,
        phases=phases(bench.marks, began_us, began_us + int(wake_s * 1e6)) | {"token": token_s},
    )


def prepare(cache: str, files: list[Path]) -> None:
    """Bring the files into the page cache, or drop it."""
    if cache == "dropped":
        if not drop_page_cache():
            raise SystemExit("dropping the page cache needs root")
    else:
        read_s(files)


async def clocked(work: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    began = time.perf_counter()
    result = await work()
    return result, time.perf_counter() - began


def token(bench: Bench) -> float:
    return first_token_s(bench.launch.host, bench.launch.port, bench.launch.engine_model)


def phases(marks: list[PhaseMark], began_us: int, ended_us: int) -> dict[str, float]:
    """The seconds of each phase a driver reported; what came before the first mark is `checks`."""
    edges = [("checks", began_us), *((str(m.phase), m.at_us) for m in marks)]
    ends = [at for _, at in edges[1:]] + [ended_us]
    return {name: round((end - at) / 1e6, 4) for (name, at), end in zip(edges, ends, strict=True)}


def table(results: list[Measured]) -> str:
    head = (
        "| tier | model | cache | snapshot MB | park s | park / cp | wake s | to token s | read s | "
        "to token / read | own start s | to token / own start |\n" + "| --- " * 12 + "|\n"
    )
    rows = []
    for result in results:
        for cache in CACHES:
            chosen = [each for each in result.rounds if each.cache == cache]
            if chosen:
                rows.append(row(result, cache, chosen))
    return head + "\n".join(rows)


def row(result: Measured, cache: str, rounds: list[Round]) -> str:
    def spread(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"

    def ratio(pairs: list[tuple[float, float]]) -> str:
        usable = [above / below for above, below in pairs if below > 0]
        return f"{statistics.median(usable):.2f}" if usable else "-"

    start = statistics.median(result.starts[cache])
    # The first park after a start writes everything; it is in the spread, and the median tells the usual one.
    cells = (
        f"{result.tier}, {mode(result)}",
        f"{result.size} ({result.model_bytes / 1e6:.0f} MB)",
        cache,
        f"{statistics.median([each.bytes for each in rounds]) / 1e6:.0f}",
        spread([each.park_s for each in rounds]),
        ratio([(each.park_s, each.copy_s) for each in rounds if each.bytes > 2**20]),
        spread([each.wake_s for each in rounds]),
        spread([each.token_s for each in rounds]),
        f"{statistics.median([each.read_s for each in rounds]):.2f}",
        ratio([(each.token_s, each.read_s) for each in rounds if each.bytes > 2**20]),
        f"{start:.2f}",
        ratio([(each.token_s, start) for each in rounds]),
    )
    return "| " + " | ".join(cells) + " |"


def profile(results: list[Measured]) -> str:
    lines = []
    for result in results:
        for cache in CACHES:
            chosen = [each for each in result.rounds if each.cache == cache]
            if not chosen:
                continue
            names = list(chosen[0].phases)
            parts = [
                f"{name} {statistics.median([each.phases.get(name, 0) for each in chosen]):.3f}"
                for name in names
            ]
            lines.append(f"- {result.tier}, {result.size}, {mode(result)}, {cache}: {', '.join(parts)}")
    return "\n".join(lines)


def machine() -> dict[str, object]:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0] if models else platform.machine(),
        "cpus": len(models),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }


async def run(options: argparse.Namespace) -> list[Measured]:
    results = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="bench-wake-") as scratch:
            model = make_model(Path(scratch) / f"{size}.gguf", size=size)
            for tier, load_mode, ahead in combinations(options.tiers, options.read_ahead):
                place = Path(scratch) / f"{tier}-{load_mode}-{ahead}"
                place.mkdir()
                try:
                    bench = await open_bench(
                        tier, place, model, load_mode=load_mode, threads=options.threads, read_ahead=ahead
                    )
                except PoorwillError as error:
                    print(f"{tier}: left out: {error}")
                    continue
                measured = Measured(
                    tier=str(tier),
                    size=size,
                    load_mode=load_mode,
                    ahead=ahead,
                    model_bytes=model.stat().st_size,
                    note=bench.note,
                )
                print(f"{tier} {size} {mode(measured)} {bench.note}", flush=True)
                try:
                    await measure(bench, measured, model, rounds=options.rounds)
                finally:
                    await bench.end()
                results.append(measured)
    return results


def combinations(tiers: list[str], read_ahead: str) -> list[tuple[Tier, str, bool]]:
    """A frozen engine is measured with its weights in the image and with its weights left in their file."""
    return [
        (tier, load_mode, ahead)
        for tier in map(Tier, tiers)
        for load_mode in (("none", "mmap") if tier is Tier.FROZEN else ("none",))
        for ahead in {"on": (True,), "off": (False,), "both": (True, False)}[read_ahead]
    ]


def mode(result: Measured) -> str:
    return result.load_mode + ("" if result.ahead else ", not read ahead")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [str(tier) for tier in (Tier.ASLEEP, Tier.FROZEN, Tier.SUSPENDED)]
    parser.add_argument(
        "--tiers",
        nargs="+",
        choices=names,
        default=names,
        metavar="TIER",
        help=f"{', '.join(names)} (default: all)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        choices=list(SHAPES),
        default=["5m", "100m"],
        metavar="SIZE",
        help=f"parameters of the models: {', '.join(SHAPES)} (default: 5m 100m)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="parks and wakes of each (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="of the engine; 0: one a processor (default)",
    )
    parser.add_argument(
        "--read-ahead",
        choices=("on", "off", "both"),
        default="on",
        help="whether the model's files are read ahead (default: on)",
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        help="on the disk to be measured (default: the temporary directory)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything measured as JSON")
    options = parser.parse_args()
    about = machine()
    with subreaper():
        results = asyncio.run(run(options))
    print(about)
    print(table(results))
    print(profile(results))
    if options.out:
        document = {"machine": about, "results": [asdict(result) for result in results]}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
