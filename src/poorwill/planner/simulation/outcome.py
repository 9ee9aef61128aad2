"""What one policy costs on one trace and how long its requests waited: exact integers, added up exactly."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from poorwill.core.money import NUSD, rounded
from poorwill.core.words import SECOND_US, Tier
from poorwill.hosts.files.traces.trace import Micros

Progress = Callable[[float], None]
"""Receives which part of an evaluation is done, from 0 to 1."""
HELD_HOUR_NUSD = NUSD
"""Without a price of waiting, sleeping must save so much for each hour that requests are held, and another
replica may cost as much: with no bound at all a dense trace would save a tenth by making everybody wait."""
TELL_EVERY = 20_000
"""Requests or blocks between two reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long requests waited between their arrival and the start of their service."""

    requests: int
    held_us: Micros
    """The waits of those that waited at all, ascending."""

    def percentile_us(self, percent: int) -> int:
        """Return the nearest-rank percentile: the smallest wait that `percent` % do not exceed."""
        if self.requests == 0:
            return 0
        rank = -(-percent * self.requests // 100)
        index = rank - 1 - (self.requests - len(self.held_us))
        return int(self.held_us[index]) if index >= 0 else 0

    @property
    def total_us(self) -> int:
        """Return all waits together."""
        return int(self.held_us.sum())

    @property
    def max_us(self) -> int:
        """Return the longest wait."""
        return int(self.held_us[-1]) if len(self.held_us) else 0


def waits_of(requests: int, held: Iterable[Micros] | Micros) -> Waits:
    """Return the waits, dropping those of length zero."""
    if not isinstance(held, np.ndarray):
        parts = list(held)
        held = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return Waits(requests=requests, held_us=np.sort(held[held > 0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The account of one policy, closed at the end of the span."""

    policy: str
    idle_us: int | None = None
    wakes: int = 0
    active_us: int = 0
    """Paid at the active rate."""
    useful_us: int = 0
    """With at least one request in service."""
    parked_us: Mapping[Tier, int] = field(default_factory=dict)
    cost_numerator: int = 0
    """Nano-dollars times an hour in microseconds, of compute: with what the provider adds to stretches."""
    waits: Waits
    added_us: int = 0
    """What the provider adds to paid stretches by its minimum and its increments."""
    billed_nusd: int | None = None
    """What a ledger would bill for the same spans, charge by charge; None if they were not followed."""
    extra_nusd: int = 0
    """Nano-dollars paid to others: a hosted API."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def cost_nusd(self) -> int:
        """Return the cost: as a ledger bills it, else rounded once."""
        billed = rounded(self.cost_numerator) if self.billed_nusd is None else self.billed_nusd
        return billed + self.extra_nusd

    def objective_nusd(self, wait_nusd_s: int) -> int:
        """Return cost plus the price of held time."""
        return self.cost_nusd + rounded(self.waits.total_us * wait_nusd_s, SECOND_US)

    @property
    def duty_cycle(self) -> float | None:
        """Return useful over paid seconds, None if nothing was paid."""
        return self.useful_us / self.active_us if self.active_us else None


def added(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the sum of one policy's accounts over several replicas."""
    if len(outcomes) == 1:
        return outcomes[0]
    parked: dict[Tier, int] = {}
    for outcome in outcomes:
        for tier, us in outcome.parked_us.items():
            parked[tier] = parked.get(tier, 0) + us
    idles = {outcome.idle_us for outcome in outcomes}
    return Outcome(
        policy=outcomes[0].policy,
        idle_us=idles.pop() if len(idles) == 1 else None,
        wakes=sum(outcome.wakes for outcome in outcomes),
        active_us=sum(outcome.active_us for outcome in outcomes),
        useful_us=sum(outcome.useful_us for outcome in outcomes),
        parked_us=parked,
        cost_numerator=sum(outcome.cost_numerator for outcome in outcomes),
        waits=waits_of(
            sum(outcome.waits.requests for outcome in outcomes),
            [outcome.waits.held_us for outcome in outcomes],
        ),
        added_us=sum(outcome.added_us for outcome in outcomes),
        billed_nusd=_sum(outcome.billed_nusd for outcome in outcomes),
        extra_nusd=sum(outcome.extra_nusd for outcome in outcomes),
        notes=tuple(dict.fromkeys(note for outcome in outcomes for note in outcome.notes)),
    )


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = list(amounts)
    return None if None in known else sum(amount for amount in known if amount is not None)


def cost_numerator(
    active_us: int, active_nusd_h: int, parked_us: Mapping[Tier, int], rates: Mapping[Tier, int]
) -> int:
    """Return active time at the active rate plus parked time at each tier's, times an hour."""
    return active_us * active_nusd_h + sum(us * rates[tier] for tier, us in parked_us.items())
