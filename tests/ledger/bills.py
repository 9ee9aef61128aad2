"""Three days of two models, told to the nano-dollar; `bills.txt` has what the ledger says of them.

After a wanted change write `bills.txt` anew, and read the difference:

    python -m tests.ledger.bills
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, replace
from pathlib import Path

from poorwill.core.entries import Alive, ParkEnded, ReplicaEnded, ReplicaPlaced
from poorwill.core.format import DAY_US
from poorwill.core.settings import RateSettings
from poorwill.core.tokens import TokenParts
from poorwill.core.words import Tier
from poorwill.ledger.costs.items import bridged_items, items
from poorwill.ledger.costs.lingering import linger_items
from poorwill.ledger.costs.one_request import request_cost
from poorwill.ledger.costs.pricing import released_us, stretch_began_us
from poorwill.ledger.costs.usage import usage
from poorwill.ledger.dates import Period
from poorwill.ledger.rates import lives, sync_rates
from poorwill.ledger.schema import migrate
from poorwill.ledger.writing.entries import Applier
from poorwill.ledger.writing.rollup import roll_up

from .story import START, began, created, ended, request, span

S = 1_000_000
H = 3_600 * S
FROZEN = {"tier": "frozen"}

RATES = (
    RateSettings(
        active_nusd_h=2_990_000_007,
        parked_nusd_h={Tier.FROZEN: 10_000_003},
        storage_nusd_gb_month=80_000_000,
        increment_us=60 * S,
        minimum_us=120 * S,
    ),
    RateSettings(
        effective_us=START + 20 * H,
        active_nusd_h=3_333_333_331,
        parked_nusd_h={Tier.FROZEN: 11_000_001, Tier.ASLEEP: 500_000_003},
        storage_nusd_gb_month=90_000_000,
        increment_us=S,
    ),
    RateSettings(active_nusd_h=7_777_777_777, currency="EUR", model="b"),
    RateSettings(active_nusd_h=999_999_937, host="east"),
)


def asked(number, leased, end, key, *, arrived=None, wake=None, **fields):
    """A request row; times in seconds."""
    row = request(
        round((leased if arrived is None else arrived) * S), round(leased * S), round(end * S),
        key=key, wake=wake, tokens=(5, 7),
    )  # fmt: skip
    return replace(row, request=f"r{number}", **fields)


def parks(at, took, to="frozen", *, replica="a.0", image_bytes=6 * 10**9):
    """The end of a park that took so long, and the span that follows; times in seconds."""
    return (
        ParkEnded(
            replica=replica, at_us=START + at * S, began_us=START + (at - took) * S,
            to_tier=Tier(to), ok=True, image_bytes=image_bytes,
        ),
        span(at * S, f"parked.{to}", replica, tier=to),
    )  # fmt: skip


NIGHT = 16 * 3_600
"""From START to midnight, in seconds."""

DAY_OF_A = (
    created(),
    span(0, "parked.cold", tier="cold"),
    began(100 * S, "a.0.1"),
    span(100 * S, "wake.provision", wake="a.0.1", tier="cold"),
    span(107 * S, "wake.weights", wake="a.0.1", tier="cold"),
    ended(163 * S, "a.0.1", served=("r1", "r2", "lost")),
    span(163 * S, "serving"),
    asked(1, 163, 199.000001, "ann", arrived=100, wake="a.0.1"),
    asked(2, 163, 190, "bob", arrived=101.5, wake="a.0.1"),
    asked(3, 170, 220, "", counted=True),
    span(220 * S, "linger", why="fixed"),
    asked(4, 219.5, 220.4, "ann", arrived=219),
    span(400 * S, "drain"),
    span(403 * S, "park", tier="frozen"),
    *parks(410, 7),
    began(1_000 * S, "a.0.9"),
    span(1_000 * S, "wake.provision", wake="a.0.9", **FROZEN),
    ended(1_030 * S, "a.0.9", ok=False, why="criu"),
    span(1_030 * S, "parked.frozen", **FROZEN),
)

NIGHT_OF_A = (
    began((NIGHT - 50) * S, "a.0.2"),
    span((NIGHT - 50) * S, "wake.provision", wake="a.0.2", **FROZEN),
    span((NIGHT - 20) * S, "wake.restore_process", wake="a.0.2", **FROZEN),
    ended((NIGHT + 31) * S, "a.0.2", served=("r5", "r6")),
    span((NIGHT + 31) * S, "serving"),
    asked(5, NIGHT + 31, NIGHT + 3_700, "ann", arrived=NIGHT - 50, wake="a.0.2", outcome="client_gone"),
    asked(
        6, NIGHT + 31, NIGHT + 600, "bob", arrived=NIGHT - 40, wake="a.0.2", tokens_in=None, tokens_out=None
    ),
    asked(7, NIGHT + 1_000, NIGHT + 5_000.7, "bob", parts=TokenParts(cache_read=2, reasoning=3)),
    span((NIGHT + 7_300) * S, "linger"),
    span((NIGHT + 7_360) * S, "park", tier="asleep"),
    *parks(NIGHT + 7_361, 1, "asleep", image_bytes=0),
    span(19 * H + 3_000 * S, "serving"),
    asked(8, 19 * 3_600 + 3_000, 20 * 3_600 + 900, "bob"),
    asked(9, 19 * 3_600 + 3_300, 20 * 3_600 + 300, "cleo"),
    span(20 * H + 900 * S, "floor", why="day"),
    span(21 * H, "park", tier="frozen"),
    *parks(21 * 3_600 + 11, 11, image_bytes=5 * 10**9),
)

TROUBLE_OF_A = (
    began(22 * H, "a.0.3"),
    span(22 * H, "wake.provision", wake="a.0.3", **FROZEN),
    ended(22 * H + 9 * S, "a.0.3", ok=False, served=("r10",), why="no"),
    span(22 * H + 9 * S, "parked.cold", tier="cold"),
    replace(asked(10, 22 * 3_600, 22 * 3_600 + 9, "ann"), replica=None, leased_us=None, status=503,
            outcome="wake_failed", wake="a.0.3"),
    began(40 * H - 10 * S, "a.0.4"),
    span(40 * H - 10 * S, "wake.provision", wake="a.0.4", tier="cold"),
    ended(40 * H + 20 * S, "a.0.4"),
    span(40 * H + 20 * S, "linger"),
    span(40 * H + 95 * S, "unobserved"),
    span(41 * H, "serving"),
)  # fmt: skip

DAYS_OF_B = (
    created(H, "b.0", "b"),
    span(H, "parked.cold", "b.0", tier="cold"),
    replace(began(3 * H, "b.0.1", "b.0"), model="b"),
    span(3 * H, "wake.imports", "b.0", wake="b.0.1", tier="cold"),
    ended(3 * H + 61 * S, "b.0.1", "b.0", served=("r11",)),
    span(3 * H + 61 * S, "linger", "b.0"),
    asked(11, 3 * 3_600, 3 * 3_600 + 30, "ann", wake="b.0.1", model="b", replica=None,
          bridge="x/one", bridge_nusd=12_345, bridge_unknown_nusd=77),
    asked(12, 3 * 3_600 + 5, 3 * 3_600 + 31, "", model="b", replica=None, bridge="x/two", bridge_nusd=1_001),
    ReplicaPlaced(
        replica="b.0", at_us=START + 4 * H, generation=1, running_json='{"machine": "east"}'
    ),
    span(5 * H, "serving", "b.0"),
    asked(13, 5 * 3_600, 5 * 3_600 + 10, "bob", model="b", replica="b.0"),
    ReplicaEnded(replica="b.0", at_us=START + 5 * H + 10 * S),
    created(30 * H, "b.0", "b"),
    span(30 * H, "orphan", "b.0"),
    *(
        entry
        for number, key in ((2, "eve"), (3, "eve"), (4, "fay"))
        for at in (42 * H + (number - 2) * 400 * S,)
        for entry in (
            replace(began(at, f"b.0.{number}", "b.0"), model="b"),
            span(at, "wake.weights", "b.0", wake=f"b.0.{number}", tier="cold"),
            ReplicaPlaced(
                replica="b.0", at_us=START + at, generation=number, running_json='{"machine": "east"}'
            ),
            ended(at + 30 * S, f"b.0.{number}", "b.0", served=(f"r{number + 13}",)),
            span(at + 30 * S, "serving", "b.0"),
            asked(
                number + 13, at // S + 30, at // S + 50, key, model="b", replica="b.0", wake=f"b.0.{number}"
            ),
            span(at + 50 * S, "linger", "b.0"),
            span(at + 300 * S, "parked.cold", "b.0", tier="cold"),
        )
    ),
)  # fmt: skip

LATE = (asked(14, NIGHT + 3_000, NIGHT + 7_200, "dan"),)
"""The row of a long stream; the shares of its hours have been rolled up without it."""

STORY = (DAY_OF_A, DAYS_OF_B, NIGHT_OF_A, TROUBLE_OF_A, (Alive(at_us=START + 43 * H + 7 * S),))

MIDNIGHT = START + NIGHT * S
PERIODS = {
    "all": Period(from_us=START - DAY_US, to_us=START + 3 * DAY_US),
    "the second day": Period(from_us=MIDNIGHT, to_us=MIDNIGHT + DAY_US),
    "from within a wake to within an answer": Period(from_us=START + 130 * S + 1, to_us=MIDNIGHT + 5_000 * S),
    "within an hour": Period(from_us=MIDNIGHT + 1_800 * S, to_us=MIDNIGHT + 3_001 * S + 7),
    "after an answer, within its hour": Period(from_us=START + 300 * S, to_us=START + 402 * S),
    "nothing": Period(from_us=START - 2 * DAY_US, to_us=START - DAY_US),
}


@contextmanager
def filled(*, rolled_up: bool = False, rates: Sequence[RateSettings] = RATES) -> Iterator[sqlite3.Connection]:
    """The ledger of these days, in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, ":memory:")
        applier = Applier(db)
        db.execute("BEGIN")
        sync_rates(db, rates, now_us=START)
        for batch in STORY:
            applier.apply(batch)
            if rolled_up:
                roll_up(db)
        applier.apply(LATE)
        db.execute("COMMIT")
        yield db


def line(value: object) -> str:
    """A row in short, empty text as `-`."""
    return "  " + " ".join("-" if part == "" else str(part).replace(" ", "_") for part in astuple(value))


def told(db: sqlite3.Connection) -> Iterator[str]:
    """Every item of every period, by key and not, whose linger it was, what was asked, and each request."""
    for name, period in PERIODS.items():
        seen: list[str] = []
        yield f"{name}: items"
        yield from sorted(map(line, items(db, period)))
        yield f"{name}: by key"
        found = items(db, period, by_key=True, tell=seen.append)
        yield from sorted(map(line, found))
        yield f"{name}: told meanwhile"
        yield f"  {'; '.join(seen)}"
        yield f"{name}: linger by key"
        owned = linger_items(db, period, found)
        yield from (line(item) for item in owned if item.cause == "linger")
        yield f"  {len(set(owned) & set(found))} others as they are"
        yield f"{name}: not known of hosted APIs"
        yield from (
            line(item)
            for by_key in (False, True)
            for item in bridged_items(db, period, by_key=by_key, unknown=True)
        )
        yield f"{name}: usage"
        yield from sorted(map(line, usage(db, period)))
    yield "requests"
    for number in range(18):
        cost = request_cost(db, f"r{number}")
        yield f"  r{number}: {line(cost) if cost else 'no row'}"
    yield "when the meter was turned on, and off before that"
    for life in lives(db):
        for hour in (0.05, 3.5, 16.5, 20.5, 40.5):
            at_us = START + round(hour * H)
            if at_us > life.created_us:
                on_us, off_us = stretch_began_us(db, life, at_us), released_us(db, life, at_us)
                yield f"  {life.replica} at {hour} h: {(on_us - START) / S:g} s, {(off_us - START) / S:g} s"


def book(*, rolled_up: bool = False) -> str:
    """All of it."""
    with filled(rolled_up=rolled_up) as db:
        return "\n".join((*told(db), ""))


if __name__ == "__main__":
    Path(__file__).with_name("bills.txt").write_text(book(), "utf-8")
