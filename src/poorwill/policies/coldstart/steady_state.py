"""A warm engine's behaviour under rising concurrency: percentiles, where batching saturates, overhead.
Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from poorwill.core.words import SECOND_US

ENOUGH_GAIN = 0.10
"""Doubling the concurrency must raise throughput by this share, or the engine counts as saturated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One request as its client saw it; microseconds."""

    began_us: int
    first_us: int
    """When the first token arrived."""
    ended_us: int
    gaps_us: tuple[int, ...]
    """Between tokens, as they arrived; those that came together are 0 apart."""
    tokens: int
    """As the engine's usage says, else the number of events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """p50, p95 and p99 by nearest rank, in microseconds; 0 if there is nothing."""

    p50_us: int
    p95_us: int
    p99_us: int

    @classmethod
    def of(cls, values: Sequence[int]) -> "Percentiles":
        """Summarise values in any order."""
        ordered = sorted(values)

        def at(share: float) -> int:
            return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0

        return cls(p50_us=at(0.50), p95_us=at(0.95), p99_us=at(0.99))


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One concurrency, by one way."""

    route: str
    """`direct` or `gateway`."""
    concurrency: int
    requests: int
    failed: int
    took_us: int
    tokens: int
    first_token: Percentiles
    between_tokens: Percentiles
    whole: Percentiles

    @property
    def tokens_s(self) -> float:
        """Return tokens a second of all requests together."""
        return self.tokens / self.took_us * SECOND_US if self.took_us else 0.0


def level(route: str, concurrency: int, shots: Sequence[Shot], *, failed: int, took_us: int) -> Level:
    """Summarise the requests of one concurrency."""
    return Level(
        route=route,
        concurrency=concurrency,
        requests=len(shots),
        failed=failed,
        took_us=took_us,
        tokens=sum(shot.tokens for shot in shots),
        first_token=Percentiles.of([shot.first_us - shot.began_us for shot in shots]),
        between_tokens=Percentiles.of([gap for shot in shots for gap in shot.gaps_us]),
        whole=Percentiles.of([shot.ended_us - shot.began_us for shot in shots]),
    )


def saturation(levels: Sequence[Level]) -> Level | None:
    """Return the least concurrency from which on no further doubling pays, None if the last one still did.

    Levels of one route, each of twice the concurrency of the one before. A level two doublings on must be
    better by two gains: so one unlucky level does not pass for the end, nor a slow creep for growth.
    """
    for position, here in enumerate(levels[:-1]):
        needed = here.tokens_s
        for beyond in levels[position + 1 :]:
            needed *= 1 + ENOUGH_GAIN
            if beyond.tokens_s >= needed:
                break
        else:
            return here
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """What the gateway adds to a request, from pairs measured back to back: median and quartiles."""

    pairs: int
    median_us: int
    low_us: int
    high_us: int


def overhead(direct_us: Sequence[int], gateway_us: Sequence[int]) -> Overhead | None:
    """Return the gateway's share from paired measurements, None if there are none.

    Differences within a pair take out what drifts between pairs, such as other load on the machine.
    """
    found = sorted(g - d for d, g in zip(direct_us, gateway_us, strict=True))
    if not found:
        return None
    quarter = len(found) // 4
    return Overhead(
        pairs=len(found),
        median_us=round(median(found)),
        low_us=found[quarter],
        high_us=found[-1 - quarter],
    )
