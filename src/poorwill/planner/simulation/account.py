"""The account of a replica's spans, as the ledger keeps one: time by day and cause, and metered stretches."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from poorwill.core.format import DAY_US
from poorwill.core.money import rounded
from poorwill.core.words import PARKED_CAUSES, RELEASED_CAUSES, SERVING, Cause, Tier, parked
from poorwill.planner.simulation.outcome import Outcome, Waits, cost_numerator
from poorwill.planner.simulation.scenario import Scenario
from poorwill.policies.pricing import MeteredStretch, Price, stretch_charges, time_charges

Timeline = list[tuple[int, Cause]]
"""When each cause began."""


@dataclass(slots=True)
class SpanAccount:
    """What a replica's time was spent on. Spans are added as they begin."""

    timeline: Timeline | None = None
    """Receives every span, if given."""
    days: dict[int, dict[Cause, int]] = field(default_factory=dict)
    """Microseconds by UTC day and cause."""
    stretches: list[MeteredStretch] = field(default_factory=list)
    """Those that are over."""
    cause: Cause = SERVING
    """Of the open span."""
    since_us: int = 0
    today: dict[Cause, int] = field(default_factory=dict)
    """The day in which the open span began."""
    midnight_us: int = 0
    """When that day ends."""
    metered_us: int | None = None
    """When the open stretch began; None while the host is released."""
    released: MeteredStretch | None = None
    """The stretch that the open span ended, unless the next one begins at the same instant."""

    def began(self, at_us: int, cause: Cause) -> None:
        """Begin the account with a span."""
        self.cause, self.since_us = cause, at_us
        if self.timeline is not None:
            self.timeline.append((at_us, cause))
        self.metered_us = None if cause in RELEASED_CAUSES else at_us
        self._turn_day(at_us)

    def turn_over(self, now_us: int, cause: Cause) -> None:
        """The open span ends and the next begins."""
        if now_us <= self.midnight_us:
            self.today[self.cause] += now_us - self.since_us
        else:
            self._across_days(now_us)
        if cause in RELEASED_CAUSES or self.cause in RELEASED_CAUSES:
            self._meter(now_us, cause)
        self.cause, self.since_us = cause, now_us
        if self.timeline is not None:
            self.timeline.append((now_us, cause))

    def closed(self, at_us: int) -> "SpanAccount":
        """Return the account up to an instant; the open stretch is not rounded, as it is not over."""
        copy = SpanAccount(
            days={day: defaultdict(int, causes) for day, causes in self.days.items()},
            stretches=[*self.stretches, *([self.released] if self.released else [])],
            cause=self.cause,
            since_us=self.since_us,
        )
        copy._across_days(at_us)
        return copy

    def by_cause(self) -> dict[Cause, int]:
        """Return the time by cause alone."""
        sums: dict[Cause, int] = defaultdict(int)
        for causes in self.days.values():
            for cause, us in causes.items():
                sums[cause] += us
        return sums

    def billed_nusd(self, price: Price, images: Mapping[Tier, int]) -> int:
        """Return what a ledger bills for these spans: charges of one day and cause, each rounded once."""
        durations = {}
        for day, causes in self.days.items():
            for cause, us in causes.items():
                tier = Tier(cause.removeprefix("parked.")) if cause in PARKED_CAUSES else None
                durations[day, str(cause), tier or "", images.get(tier, 0) if tier else 0] = us
        sums: dict[tuple[int, str, str, int], int] = defaultdict(int)
        for charge in time_charges(price, durations):
            sums[charge.day, charge.cause, charge.tier, charge.denominator] += charge.numerator
        for stretch in self.stretches:
            for charge in stretch_charges(price, stretch):
                sums[charge.day, charge.cause, charge.tier, charge.denominator] += charge.numerator
        return sum(rounded(numerator, denominator) for (*_, denominator), numerator in sums.items())

    def _meter(self, now_us: int, cause: Cause) -> None:
        """A span begins or ends under which the host is released."""
        over = self.released
        if cause in RELEASED_CAUSES:
            if self.metered_us is not None and self.metered_us < now_us:
                tier = self.cause.removeprefix("parked.") if self.cause in PARKED_CAUSES else None
                self.released = MeteredStretch(self.metered_us, now_us, self.cause, tier)
            self.metered_us = None
        elif over is not None and over.ended_us == now_us:
            self.metered_us, self.released = over.began_us, None
        else:
            self.stretches += [over] if over else []
            self.metered_us, self.released = now_us, None

    def _turn_day(self, at_us: int) -> None:
        day = at_us // DAY_US
        self.midnight_us = (day + 1) * DAY_US
        self.today = self.days.setdefault(day, defaultdict(int))

    def _across_days(self, now_us: int) -> None:
        self._turn_day(self.since_us)
        while self.since_us < now_us:
            end = min(self.midnight_us, now_us)
            self.today[self.cause] += end - self.since_us
            self.since_us = end
            self._turn_day(end)


def account_outcome(
    account: SpanAccount, scenario: Scenario, *, policy: str, wakes: int, waits: Waits
) -> Outcome:
    """Return the outcome of an account that is closed."""
    spent_us = account.by_cause()
    tiers = {*scenario.ladder, scenario.start_tier or scenario.ladder[-1]}
    parked_us = {tier: spent_us[parked(tier)] for tier in tiers if parked(tier) in spent_us}
    active_us = sum(spent_us.values()) - sum(parked_us.values())
    added_us = sum(scenario.added_us(one.began_us, one.ended_us) for one in account.stretches)
    images = {times.tier: times.image_bytes for times in scenario.tiers}
    return Outcome(
        policy=policy,
        wakes=wakes,
        active_us=active_us,
        useful_us=spent_us.get(SERVING, 0),
        parked_us=parked_us,
        added_us=added_us,
        billed_nusd=account.billed_nusd(scenario.price, images),
        cost_numerator=cost_numerator(
            active_us + added_us, scenario.active_nusd_h, parked_us, scenario.rates()
        ),
        waits=waits,
    )
