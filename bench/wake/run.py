"""Park and wake of every tier against a plain copy, a plain read and the engine's own start, in one run.

    python bench/wake/run.py [--tiers asleep frozen suspended] [--sizes 5m 100m] [--rounds 5]
        [--disk-mb-s 500] [--read-ahead both] [--out FILE]

Random models are made on the spot. A round starts the engine, parks it, copies and reads the very bytes of
that snapshot, and wakes it, by turns with the page cache warm and dropped. So each ratio compares things done
within seconds of each other on the same machine. "To token" is from the start of the call to the first
streamed token. At the end the ratios are held against the targets, with the phases that the time went to.
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

from slow_disk import slow_disk
from stopwatch import copy_s, drop_page_cache, files_under, first_token_s, read_s, tokens_s
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
    """One start, park and wake, in seconds, with what they are compared with."""

    cache: str
    bytes: int
    start_s: float
    """The engine's own start to its first token."""
    park_s: float
    copy_s: float
    read_s: float
    """Of the snapshot."""
    model_read_s: float
    wake_s: float
    token_s: float
    tokens_s: float
    """Tokens a second after the wake."""
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
    rounds: list[Round] = field(default_factory=list)

    def needed_s(self, one: Round) -> float:
        """A plain read of what the wake needed: weights that are not in the image are in their file."""
        return one.read_s + (one.model_read_s if self.load_mode == "mmap" or not one.bytes else 0.0)


async def measure(bench: Bench, measured: Measured, model: Path, *, rounds: int) -> None:
    for number in range(rounds * len(CACHES)):
        measured.rounds.append(await one_round(bench, CACHES[number % 2], model))


async def one_round(bench: Bench, cache: str, model: Path) -> Round:
    prepare(cache, [model])
    running, start_s = await clocked(bench.start)
    start_s += await asyncio.to_thread(token, bench)

    async def park() -> Parked:
        return await bench.park(running)

    parked, park_s = await clocked(park)
    files = files_under(Path(parked.path)) if parked.path else []
    size = sum(path.stat().st_size for path in files)
    copied_s = await asyncio.to_thread(copy_s, files, Path(bench.launch.log_path).parent / "copy")
    prepare(cache, [*files, model])
    whole_s = await asyncio.to_thread(read_s, files)
    model_s = await asyncio.to_thread(read_s, [model])
    prepare(cache, [*files, model])

    async def wake() -> Running:
        return await bench.wake(parked)

    began_us = bench.clock.now_us()
    woken, wake_s = await clocked(wake)
    token_s = await asyncio.to_thread(token, bench)
    rate = await asyncio.to_thread(
        tokens_s, bench.launch.host, bench.launch.port, bench.launch.engine_model, count=24
    )
    await bench.stop(woken)
    return Round(
        cache=cache,
        bytes=size,
        start_s=start_s,
        park_s=park_s,
        copy_s=copied_s,
        read_s=whole_s,
        model_read_s=model_s,
        wake_s=wake_s,
        token_s=wake_s + token_s,
        tokens_s=rate,
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
        "| tier | model | cache | snapshot MB | park s | park / cp | wake s | to token s | needed read s | "
        "to token / read | own start s | to token / own start | tokens/s |\n" + "| --- " * 13 + "|\n"
    )
    return head + "\n".join(
        row(result, cache, chosen) for result in results for cache in CACHES if (chosen := of(result, cache))
    )


def of(result: Measured, cache: str) -> list[Round]:
    return [each for each in result.rounds if each.cache == cache]


def ratio(pairs: list[tuple[float, float]]) -> float | None:
    """The median of the rounds' own ratios."""
    usable = [above / below for above, below in pairs if below > 0]
    return statistics.median(usable) if usable else None


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def row(result: Measured, cache: str, rounds: list[Round]) -> str:
    def spread(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"

    cells = (
        f"{result.tier}, {mode(result)}",
        f"{result.size} ({result.model_bytes / 1e6:.0f} MB)",
        cache,
        f"{statistics.median([each.bytes for each in rounds]) / 1e6:.0f}",
        spread([each.park_s for each in rounds]),
        shown(ratio([(each.park_s, each.copy_s) for each in rounds if each.bytes > 2**20])),
        spread([each.wake_s for each in rounds]),
        spread([each.token_s for each in rounds]),
        spread([result.needed_s(each) for each in rounds]),
        shown(ratio([(each.token_s, result.needed_s(each)) for each in rounds])),
        spread([each.start_s for each in rounds]),
        shown(ratio([(each.token_s, each.start_s) for each in rounds])),
        f"{statistics.median([each.tokens_s for each in rounds]):.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def targets(results: list[Measured]) -> str:
    """What was aimed at, as ratios, and what came of it."""
    lines = ["| target | tier | model | at most | measured | met |", "| --- " * 6 + "|"]

    def line(what: str, result: Measured, most: float, value: float | None) -> None:
        met = "-" if value is None else "yes" if value <= most else "no"
        cells = (what, f"{result.tier}, {mode(result)}", result.size, f"{most:.2f}", shown(value), met)
        lines.append("| " + " | ".join(cells) + " |")

    for result in results:
        dropped, warm = of(result, "dropped"), of(result, "warm")
        if result.tier == Tier.FROZEN:
            pairs = [(each.token_s, result.needed_s(each)) for each in dropped]
            line("wake to token / plain read, dropped", result, 1.5, ratio(pairs))
            line(
                "wake to token / own start, warm", result, 0.5, ratio([(w.token_s, w.start_s) for w in warm])
            )
            line("park / copy with sync", result, 1.2, ratio([(e.park_s, e.copy_s) for e in result.rounds]))
        # The other start of its pair, a moment before, had everything cached.
        longer = [
            (cold.start_s, max(cold.model_read_s, other.start_s))
            for cold, other in zip(dropped, warm, strict=True)
        ]
        line("cold start / the longer of read and warm start", result, 1.15, ratio(longer))
    return "\n".join(lines)


def profile(results: list[Measured]) -> str:
    lines = []
    for result in results:
        for cache in CACHES:
            chosen = of(result, cache)
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
            model = (options.models or Path(scratch)) / f"{size}.gguf"
            if not model.exists():
                make_model(model, size=size)
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
    """Where the engine runs here, with its weights copied into its memory and left in their file."""
    return [
        (tier, load_mode, ahead)
        for tier in map(Tier, tiers)
        for load_mode in (("none",) if tier is Tier.SUSPENDED else ("none", "mmap"))
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
        "--disk-mb-s",
        type=int,
        default=0,
        metavar="N",
        help="limit reads from the disk, with root and control groups (default: as fast as it is)",
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        help="on the disk to be measured (default: the temporary directory)",
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="where models are kept from one run to the next"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything measured as JSON")
    options = parser.parse_args()
    place = Path(options.directory or tempfile.gettempdir())
    about = {**machine(), "disk_mb_s": options.disk_mb_s}
    with subreaper(), slow_disk(place, options.disk_mb_s):
        results = asyncio.run(run(options))
    print(about)
    print(table(results))
    print(targets(results))
    print(profile(results))
    if options.out:
        document = {"machine": about, "results": [asdict(result) for result in results]}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
