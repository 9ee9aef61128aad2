"""Fuzz what reads the words of others; exit status 1 if something was found."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from .run import fuzz
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description=__doc__)
    parser.add_argument("--target", choices=["all", *TARGETS], default="all")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most, of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="default: another each time")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    bad = False
    for name in TARGETS if options.target == "all" else [options.target]:
        began = time.monotonic()
        until = began + 60 * options.minutes
        with tempfile.TemporaryDirectory() as scratch:
            found = fuzz(
                name,
                Path(scratch),
                seed=seed,
                more=lambda count, until=until: count < options.inputs and time.monotonic() < until,
            )
        seconds = time.monotonic() - began
        print(
            f"{name}: {found.inputs} inputs in {seconds:.0f} s, seed {seed}, {len(found.findings)} findings",
            flush=True,
        )
        for kind, data in found.findings.items():
            print(f"  {kind}\n    {data[:2000]!r}", flush=True)
        bad = bad or bool(found.findings)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
