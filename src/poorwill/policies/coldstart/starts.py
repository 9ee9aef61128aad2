"""Finished starts and wakes, compared: kinds side by side, medians and spread, reading alone. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from poorwill.core.entries import PhaseSpan
from poorwill.core.words import READ_PHASES, SECOND_US, ModelName, Phase, ReplicaId, Tier, WakeId
from poorwill.policies.coldstart.leaves import storage_bytes, totals

_LEAST_READ = 1_000_000
"""Fewer bytes than this are no model's weights."""
_FROM_CACHE = 0.1
"""A start that took less than this share of its bytes from storage found them in the page cache."""


class StartKind(StrEnum):
    """What sets starts apart that must not be averaged together."""

    COLD = "cold"
    CACHE_WARM = "cache-warm"  # a cold start with the weights in the page cache
    FROZEN = "frozen"
    SUSPENDED = "suspended"
    ASLEEP = "asleep"
    HIBERNATED = "hibernated"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedWake:
    """One wake as the ledger has it. `prices_nusd` goes with `spans`; None if no rate was in force."""

    wake: WakeId
    model: ModelName
    replica: ReplicaId
    from_tier: Tier
    began_us: int
    ended_us: int
    ok: bool
    failure: str
    why: str
    asked_by: str
    held: int
    served: int
    budget_us: int | None
    image_bytes: int
    """Of the snapshot it woke from, 0 if there was none."""
    spans: tuple[PhaseSpan, ...]
    prices_nusd: tuple[int | None, ...]

    @property
    def took_us(self) -> int:
        """Return its length."""
        return self.ended_us - self.began_us

    @property
    def kind(self) -> StartKind:
        """Return what to compare it with."""
        if self.from_tier is not Tier.COLD:
            return StartKind(self.from_tier)
        weights = [span for span in self.spans if span.phase is Phase.WEIGHTS]
        stored, read = storage_bytes(weights), read_bytes(weights)
        if stored is not None and read >= _LEAST_READ and stored < _FROM_CACHE * read:
            return StartKind.CACHE_WARM
        return StartKind.COLD

    @property
    def price_nusd(self) -> int | None:
        """Return what its time cost, None if a part has no rate."""
        known = [price for price in self.prices_nusd if price is not None]
        return sum(known) if known and len(known) == len(self.prices_nusd) else None

    @property
    def must_read_bytes(self) -> int:
        """Return the bytes that had to be read, as far as known."""
        read = read_bytes(span for span in self.spans if span.phase in READ_PHASES)
        return max(read, self.image_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Several measurements of one thing, in microseconds."""

    low_us: int
    median_us: int
    high_us: int

    @classmethod
    def of(cls, values: Sequence[int]) -> "Spread":
        """Summarise at least one value."""
        return cls(low_us=min(values), median_us=round(median(values)), high_us=max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSummary:
    """All successful starts of one kind. A phase that a start lacks counts as 0 for it."""

    kind: StartKind
    count: int
    took: Spread
    phases: Mapping[Phase, Spread]
    price_nusd: int | None
    """Median."""
    phase_prices_nusd: Mapping[Phase, int]
    must_read_bytes: int
    """Median."""
    latest: frozenset[Phase]
    """The phases of the last of them."""

    def reading_us(self, bandwidth: float) -> int | None:
        """Return the least time the bytes take at a storage bandwidth in bytes a second."""
        if not self.must_read_bytes or bandwidth <= 0:
            return None
        return round(self.must_read_bytes / bandwidth * SECOND_US)


def read_bytes(spans: Iterable[PhaseSpan]) -> int:
    """Return the bytes the leaves say were read."""
    return sum(span.bytes_read or 0 for span in spans)


def compare(wakes: Iterable[FinishedWake]) -> list[StartSummary]:
    """Return the successful wakes, given oldest first, by kind, in the kinds' order."""
    kinds: dict[StartKind, list[FinishedWake]] = {}
    for wake in wakes:
        if wake.ok and wake.spans:
            kinds.setdefault(wake.kind, []).append(wake)
    return [_comparison(kind, kinds[kind]) for kind in StartKind if kind in kinds]


def _comparison(kind: StartKind, wakes: Sequence[FinishedWake]) -> StartSummary:
    sums = [totals(wake.spans) for wake in wakes]
    prices = [wake.price_nusd for wake in wakes]
    priced = [price for price in prices if price is not None]
    present = [phase for phase in Phase if any(phase in each for each in sums)]
    return StartSummary(
        kind=kind,
        count=len(wakes),
        took=Spread.of([wake.took_us for wake in wakes]),
        phases={phase: Spread.of([each.get(phase, 0) for each in sums]) for phase in present},
        price_nusd=round(median(priced)) if priced and len(priced) == len(prices) else None,
        phase_prices_nusd={phase: _phase_price(phase, wakes) for phase in present if priced},
        must_read_bytes=round(median(wake.must_read_bytes for wake in wakes)),
        latest=frozenset(sums[-1]),
    )


def _phase_price(phase: Phase, wakes: Sequence[FinishedWake]) -> int:
    return round(
        median(
            sum(
                price or 0
                for span, price in zip(wake.spans, wake.prices_nusd, strict=True)
                if span.phase is phase
            )
            for wake in wakes
        )
    )
