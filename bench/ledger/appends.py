"""Rows a second through the writer, each caller answered after COMMIT.

    python bench/ledger/appends.py [--seconds 10] [--callers 512]

So many callers each record one row, wait until it is committed, and record the next one; every tenth row is a
span, the others are requests, so both kinds of work are in it. Says how long a caller waited.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time

import uvloop

from poorwill.core.entries import ReplicaCreated, RequestEnded, SpanOpened
from poorwill.ledger.checking import problems
from poorwill.ledger.ledger import Ledger, open_ledger
from poorwill.ledger.schema import reading

START = 1_793_491_200_000_000


class Clock:
    """A clock that stands still: only rows count here."""

    def now_us(self) -> int:
        return START


class Quiet:
    """A log that keeps nothing."""

    def info(self, message: str, /, **fields: object) -> None:
        pass

    warning = error = info


async def caller(number: int, ledger: Ledger, until: float, waits: list[float]) -> None:
    """Record one row after another, each time waiting for its COMMIT."""
    replica = f"m-{number}"
    await ledger.record([ReplicaCreated(replica=replica, model="m", driver="cold", at_us=START)])
    at = START
    while (began := time.perf_counter()) < until:
        at += 1_000
        if len(waits) % 10 == number % 10:
            entry = SpanOpened(replica=replica, at_us=at, cause="serving")
        else:
            entry = RequestEnded(
                request=f"req-{number}-{at}", model="m", replica=replica, key="k", path="/v1/completions",
                arrived_us=at - 900, leased_us=at - 900, first_byte_us=at - 500, ended_us=at, status=200,
                outcome="ok", tokens_in=100, tokens_out=50,
            )  # fmt: skip
        await ledger.record([entry])
        waits.append(time.perf_counter() - began)


async def measure(path: str, seconds: float, callers: int) -> tuple[list[float], float, float]:
    """Return how long each row waited, and the wall and CPU seconds it all took."""
    waits: list[float] = []
    async with open_ledger(path, clock=Clock(), log=Quiet()) as ledger:
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(caller(number, ledger, began + seconds, waits))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return waits, took, cpu


def main() -> None:
    """Measure and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--callers", type=int, default=512)
    parser.add_argument("--folder", default=None, help="where the ledger is written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = os.path.join(folder, "ledger.sqlite")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            waits, took, cpu = runner.run(measure(path, options.seconds, options.callers))
        with reading(path) as db:
            wrong = problems(db, path)
            rows = sum(
                db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("spans", "requests")
            )
    waits.sort()
    p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
    print(f"{len(waits) / took:,.0f} rows a second, {options.callers} callers, {rows:,} rows in the file")
    print(f"{cpu / len(waits) * 1e6:.1f} us of CPU a row; {cpu / took:.2f} cores used")
    print(f"answered after COMMIT in {p50 * 1e3:.1f} ms (p50), {p99 * 1e3:.1f} ms (p99)")
    print("the ledger is whole" if not wrong else "\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
