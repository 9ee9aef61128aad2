"""Times bills over a month written by `month.py`.

    python bench/ledger/bills.py LEDGER

Rolls the finished hours up first, as a serving poorwill does by itself, and says how long that took.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from poorwill.bill.bill import Axis, make_bill
from poorwill.ledger.dates import month
from poorwill.ledger.schema import connect_writer, reading
from poorwill.ledger.writing.rollup import roll_up

RUNS = 5


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the median (wall, CPU) seconds of some runs."""
    runs = []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        runs.append((time.perf_counter() - wall, time.process_time() - cpu))
    return sorted(runs)[RUNS // 2]


def main() -> None:
    """Time the bills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledger")
    options = parser.parse_args()
    wall, cpu = time.perf_counter(), time.process_time()
    with closing(connect_writer(options.ledger)) as db:
        db.execute("BEGIN")
        roll_up(db)
        db.execute("COMMIT")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"roll up: {wall:.2f} s wall, {cpu:.2f} s CPU (nothing to do in a second run)")
    cuts: Sequence[Sequence[Axis]] = (
        [Axis.CAUSE],
        [Axis.DAY, Axis.MODEL, Axis.CAUSE],
        [Axis.KEY],
        [Axis.KEY, Axis.DAY, Axis.MODEL],
    )
    with reading(options.ledger) as db:
        spans, requests = (
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("spans", "requests")
        )
        print(f"{spans:,} spans, {requests:,} requests; median of {RUNS} runs")
        for axes in cuts:
            wall, cpu = timed(lambda axes=axes: make_bill(db, month("2026-11"), axes))
            print(f"by {','.join(axes):<16} {wall:6.3f} s wall, {cpu:6.3f} s CPU")


if __name__ == "__main__":
    main()
