"""Short words for entries, and parts that ledger tests share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

from tests.kept_log import KeptLog

from poorwill.core.entries import (
    PhaseSpan,
    ReplicaCreated,
    RequestEnded,
    SpanOpened,
    WakeBegan,
    WakeEnded,
)
from poorwill.core.words import Tier
from poorwill.ledger.ledger import Ledger, open_ledger
from poorwill.ledger.schema import connect_writer, migrate, reading
from poorwill.ledger.writing.entries import Applier

START = 1_800_000_000 * 1_000_000
"""2027-01-15 08:00 UTC, in microseconds."""


@dataclass
class HandClock:
    """A clock that a test sets."""

    at_us: int = START

    def now_us(self) -> int:
        return self.at_us


@asynccontextmanager
async def opened(path: str, *, clock=None, log=None, **limits) -> AsyncIterator[Ledger]:
    limits = {"retry_delay_s": 0.01, **limits}
    async with open_ledger(path, clock=clock or HandClock(), log=log or KeptLog(), **limits) as ledger:
        yield ledger


def write(path: str, *batches) -> None:
    """Write entries and close, for tests that only look at the result."""
    with closing(connect_writer(path)) as db:
        migrate(db, path)
        applier = Applier(db)
        for batch in batches:
            db.execute("BEGIN")
            applier.apply(batch)
            db.execute("COMMIT")


def created(at=0, replica="a.0", model="a"):
    return ReplicaCreated(replica=replica, model=model, driver="cold", at_us=START + at)


def span(at, cause, replica="a.0", **fields):
    return SpanOpened(replica=replica, at_us=START + at, cause=cause, **fields)


def began(at, wake="a.0.1", replica="a.0"):
    return WakeBegan(
        wake=wake,
        replica=replica,
        model="a",
        generation=1,
        at_us=START + at,
        from_tier=Tier.FROZEN,
        asked_by="key",
        why="demand",
        budget_us=None,
    )


def ended(at, wake="a.0.1", replica="a.0", ok=True, anatomy=(), why="", served=()):
    leaves = tuple(
        PhaseSpan(phase=phase, began_us=START + begin, ended_us=START + end) for phase, begin, end in anatomy
    )
    return WakeEnded(
        wake=wake, replica=replica, at_us=START + at, ok=ok, anatomy=leaves, why=why, served=served
    )


def rows(path):
    with reading(path) as db:
        return [
            (begin - START, None if end is None else end - START, cause)
            for begin, end, cause in db.execute(
                "SELECT began_us, ended_us, cause FROM spans ORDER BY life, began_us"
            )
        ]


def request(arrived, leased, end, *, key="", wake=None, tokens=(None, None), replica="a.0", model="a"):
    served = leased is not None
    return RequestEnded(
        request=f"r{arrived}-{end}-{key}",
        model=model,
        replica=replica if served else None,
        key=key,
        path="/v1/chat/completions",
        arrived_us=START + arrived,
        leased_us=START + leased if served else None,
        first_byte_us=None,
        ended_us=START + end,
        status=200 if served else 504,
        outcome="ok" if served else "wake_timeout",
        tokens_in=tokens[0],
        tokens_out=tokens[1],
        wake=wake,
    )


def damage(path: str, *, size_bytes: int = 8192) -> None:
    """Overwrite the beginning of a file."""
    with open(path, "r+b") as file:
        file.write(b"x" * size_bytes)
