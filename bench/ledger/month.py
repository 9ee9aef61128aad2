"""Writes a month of a busy fleet into a ledger: 10 replicas, 100,000 spans, 10,000,000 requests.

    python bench/ledger/month.py LEDGER [--requests 10000000]

Goes through the same code as serving does, without waiting for anybody.
"""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import closing

from poorwill.core.entries import (
    Alive,
    Entry,
    ParkEnded,
    PhaseSpan,
    ReplicaCreated,
    RequestEnded,
    SpanOpened,
    WakeBegan,
    WakeEnded,
)
from poorwill.core.settings import RateSettings
from poorwill.core.words import Phase, Tier
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import connect_writer, migrate
from poorwill.ledger.writing.entries import Applier

S = 1_000_000
BEGIN = 1_793_491_200 * S
"""2026-11-01 00:00 UTC."""

CYCLES, SERVINGS, REPLICAS, KEYS = 600, 5, 10, 20
SPANS = REPLICAS * CYCLES * (5 + 2 * SERVINGS + 2)
PHASES = (Phase.READ_IMAGE, Phase.RESTORE_PROCESS, Phase.RESTORE_DEVICE, Phase.VERIFY, Phase.READY)


def month(replica: int, requests: int, rng: random.Random) -> Iterator[list[Entry]]:
    """Yield the life of one replica, one wake-to-wake cycle at a time."""
    name, model, at = f"model-{replica}-0", f"model-{replica}", BEGIN
    yield [ReplicaCreated(replica=name, model=model, driver="frozen", at_us=at)]
    for cycle in range(CYCLES):
        at = BEGIN + cycle * 4_320 * S + 1
        wake = f"{name}.{cycle}"
        entries: list[Entry] = [
            WakeBegan(
                wake=wake, replica=name, model=model, generation=cycle, at_us=at, from_tier=Tier.FROZEN,
                asked_by="key-0", why="demand", budget_us=None,
            ),
            SpanOpened(replica=name, at_us=at, cause="wake.provision", wake=wake),
        ]  # fmt: skip
        edges = [at + n * 2 * S for n in range(6)]
        leaves = tuple(
            PhaseSpan(phase=p, began_us=a, ended_us=b)
            for p, a, b in zip(PHASES, edges[:-1], edges[1:], strict=True)
        )
        at = edges[-1]
        entries.append(WakeEnded(wake=wake, replica=name, at_us=at, ok=True, anatomy=leaves, served=("x",)))
        for serving in range(SERVINGS):
            entries.append(SpanOpened(replica=name, at_us=at, cause="serving"))
            entries += _requests(
                name, model, at, requests // (CYCLES * SERVINGS), rng, wake if not serving else None
            )
            entries.append(SpanOpened(replica=name, at_us=at + 300 * S, cause="linger", why="fixed 60 s"))
            at += 360 * S
        entries.append(SpanOpened(replica=name, at_us=at, cause="park", tier=Tier.FROZEN))
        at += 5 * S
        entries.append(
            ParkEnded(
                replica=name,
                at_us=at,
                began_us=at - 5 * S,
                to_tier=Tier.FROZEN,
                ok=True,
                image_bytes=10**10,
            )
        )
        entries.append(SpanOpened(replica=name, at_us=at, cause="parked.frozen", tier=Tier.FROZEN))
        yield entries


def _requests(
    replica: str, model: str, at: int, count: int, rng: random.Random, wake: str | None
) -> list[RequestEnded]:
    rows = []
    for n in range(count):
        leased = at if n == 0 else at + rng.randrange(295 * S)
        ended = at + 300 * S if n == 1 else min(leased + rng.randrange(8 * S), at + 300 * S)
        rows.append(
            RequestEnded(
                request=f"req-{leased:x}-{n:x}", model=model, replica=replica,
                key=f"key-{rng.randrange(KEYS)}",
                path="/v1/chat/completions", arrived_us=leased, leased_us=leased, first_byte_us=leased + 1000,
                ended_us=max(ended, leased + 1), status=200, outcome="ok", tokens_in=900, tokens_out=200,
                wake=wake if n < 3 else None,
            )
        )  # fmt: skip
    rows.sort(key=lambda row: row.ended_us)
    return rows


def main() -> None:
    """Write the month."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledger")
    parser.add_argument("--requests", type=int, default=10_000_000)
    options = parser.parse_args()
    began = time.perf_counter()
    with closing(connect_writer(options.ledger)) as db:
        migrate(db, options.ledger)
        rate = RateSettings(
            effective_us=0, active_nusd_h=3_800_000_000, parked_nusd_h={Tier.FROZEN: 2_000_000},
            storage_nusd_gb_month=80_000_000, increment_us=S, source="made up",
        )  # fmt: skip
        applier = Applier(db)
        db.execute("BEGIN")
        sync_rates(db, [rate], now_us=BEGIN)
        lives = [month(n, options.requests // REPLICAS, random.Random(n)) for n in range(REPLICAS)]
        db.execute("COMMIT")
        for cycle in zip(*lives, strict=True):
            db.execute("BEGIN")
            for entries in cycle:
                applier.apply(entries)
            db.execute("COMMIT")
        db.execute("BEGIN")
        applier.apply([Alive(at_us=BEGIN + 30 * 86_400 * S)])
        db.execute("COMMIT")
        db.execute("PRAGMA optimize")
    took = time.perf_counter() - began
    print(f"{SPANS:,} spans, {options.requests:,} requests written in {took:.1f} s")


if __name__ == "__main__":
    main()
