"""`./dev simulate`: histories from a seed on, on every core, until so many wakes have been lived through.

./dev simulate --seed 1 --wakes 100000
./dev simulate --mutant "lost withdraw"     # must be found
"""

import argparse
import functools
import gc
import itertools
import multiprocessing
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from .mutants import MUTANTS, plant


def main(arguments: list[str]) -> int:
    """Run histories and say what they met; 1 if a law was broken."""
    parser = argparse.ArgumentParser(
        prog="dev simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="the first history; each next one adds 1")
    parser.add_argument("--fresh", action="store_true", help="take the first seed from today's date")
    parser.add_argument("--wakes", type=int, default=1_000, help="how many wakes to live through, in all")
    parser.add_argument("--requests", type=int, default=1_200, help="and troubles, in each history")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--coverage", action="store_true", help="say which steps and faults were reached")
    parser.add_argument("--mutant", choices=[each.name for each in MUTANTS], help="plant this defect first")
    options = parser.parse_args(arguments)
    if options.mutant:
        plant(options.mutant)
    if options.coverage:
        options.jobs = 1  # steps are counted in this process
    steps = _watched() if options.coverage else None
    if options.fresh:
        options.seed = int(datetime.now(tz=UTC).strftime("%Y%m%d")) * 1000
    print(f"seeds from {options.seed}")
    wakes, histories, lives = 0, 0, 0
    ended: Counter[str] = Counter()
    met: Counter[object] = Counter()
    for seed, result, why in _results(options):
        if why:
            print(f"seed {seed}, after {wakes:,} wakes: {why}", file=sys.stderr)
            if not options.mutant:
                print(_shrunk(seed, options.requests, why))
            return 1
        histories, lives, wakes = histories + 1, lives + result.lives, wakes + result.wakes
        ended, met = ended + result.ended, met + result.met
        if sys.stderr.isatty():
            print(f"\r{wakes:,} of {options.wakes:,} wakes", end="", file=sys.stderr)
        if wakes >= options.wakes:
            break
    print(f"{wakes:,} wakes, {ended.total():,} requests, {lives:,} lives, {histories:,} histories")
    for name, count in sorted(ended.items()):
        print(f"  {count:>9,}  requests: {name}")
    for (place, fault), count in sorted(met.items()):
        print(f"  {count:>9,}  {place}: {fault}")
    if steps is not None:
        _print_coverage(steps, met)
    return 0


def _watched() -> Counter[Any]:
    from .coverage import watch_steps

    return watch_steps()


def _print_coverage(steps: Counter[Any], met: Counter[object]) -> None:
    from .coverage import report

    for line in report(steps, met):
        print(line)


def _results(options: argparse.Namespace) -> Iterator[tuple[int, object, str]]:
    one = functools.partial(_one, requests=options.requests)
    if options.jobs == 1:
        yield from map(one, itertools.count(options.seed))
        return
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        yield from pool.imap_unordered(one, range(options.seed, options.seed + 1_000_000))


def _one(seed: int, requests: int) -> tuple[int, object, str]:
    from .history import draw_history  # after a mutant was planted
    from .laws import Broken
    from .shrink import run

    gc.set_threshold(20_000, 50, 50)  # nearly all that a life leaves goes by itself
    warnings.simplefilter("ignore")  # a killed life leaves coroutines that never ran
    sys.unraisablehook = lambda unraisable: None
    try:
        return seed, run(draw_history(seed, requests=requests)), ""
    except Broken as broken:
        return seed, None, str(broken)


def _shrunk(seed: int, requests: int, why: str) -> str:
    from .history import draw_history
    from .shrink import as_test, shrink

    return as_test(shrink(draw_history(seed, requests=requests)), why)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
