"""The plain answer: scale to zero, run continuously, use a hosted API, or not this pattern at all.

Every answer comes with the arithmetic that leads to it and with what would change it. WorkNeeds that a
trace cannot show (compliance, hard real time, horizontal work, what one box serves) are asked as flags and
never guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from poorwill.core.format import DAY_US, counted, duration, money, percent
from poorwill.core.money import NUSD
from poorwill.core.words import SECOND_US
from poorwill.planner.alternatives.hosted import HostedBill
from poorwill.planner.simulation.outcome import Outcome
from poorwill.planner.traces.trace import Micros

WORTH_SAVING = 0.10
"""Scaling to zero must save at least this share of running continuously to be worth its waits."""
HELD_HOUR_NUSD = NUSD
"""What an hour of one held request counts for in the answer where the user has put no price on waiting. With
none at all a dense trace would save a tenth by making everybody wait."""
NOTABLE = 0.99

HANDFUL_PER_DAY = 10
"""No more requests a day than this do not carry a machine of one's own, if a hosted API is cheaper."""
PEAK_WINDOW_S = 60


class Recommendation(StrEnum):
    """The four answers."""

    SCALE_TO_ZERO = "scale to zero"
    CONTINUOUS = "run continuously"
    HOSTED = "use a hosted API"
    ANOTHER_PATTERN = "not this pattern"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkNeeds:
    """What the user says about the work; False or None where nothing was said."""

    compliance: bool = False
    hard_real_time: bool = False
    horizontal: bool = False
    rps_one_box: float | None = None
    """Requests a second that one box serves."""
    hosted_named: bool = False
    """Whether the user named the hosted model, so that it counts as a way to serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the answer is judged on."""

    requests: int
    span_us: int
    peak_rps: float
    """Of the busiest minute."""
    choices: Sequence[Outcome]
    """What `serve` could run, `continuous` among them; `bridge` only where the user named where it leads."""
    hosted: HostedBill | None
    wait_nusd_s: int
    """The user's price of waiting, 0 where none was given."""
    offer: Outcome | None = None
    """The bridge, where nobody named a hosted API: it gives text away, so it is told of, not chosen."""
    on_paper: Sequence[Outcome] = ()
    """Policies that `serve` refuses as a mistake, since they park before the break-even."""

    @property
    def price_nusd_s(self) -> int:
        """Return the price of waiting that the answer reckons with."""
        return self.wait_nusd_s or HELD_HOUR_NUSD // 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanVerdict:
    """The answer, the policy to run, and why."""

    answer: Recommendation
    policy: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return everything in one text."""
        return " ".join(self.lines)


def peak_rps(arrival_us: Micros) -> float:
    """Return the rate of the busiest minute."""
    if not len(arrival_us):
        return 0.0
    upto = np.searchsorted(arrival_us, arrival_us + PEAK_WINDOW_S * SECOND_US, "left")
    return float((upto - np.arange(len(arrival_us))).max()) / PEAK_WINDOW_S


def judge(case: Case, said: WorkNeeds) -> PlanVerdict:
    """Return the answer for a case."""
    price = case.price_nusd_s
    continuous = next(choice for choice in case.choices if choice.policy == "continuous")
    sleeping = sorted(
        (choice for choice in case.choices if choice.policy != "continuous"),
        key=lambda choice: choice.objective_nusd(price),
    )
    best = sleeping[0]
    elsewhere = _another_pattern(case, said)
    if elsewhere:
        lines = (f"Not this pattern: {'; '.join(elsewhere)}.", _costs(case, best, continuous))
        return PlanVerdict(answer=Recommendation.ANOTHER_PATTERN, policy=best.policy, lines=lines)
    own = best if _saved(best, continuous, price) >= WORTH_SAVING else continuous
    hosted = _hosted(case, said, own, price)
    if hosted is not None:
        told = (*hosted, _costs(case, best, continuous))
        return PlanVerdict(answer=Recommendation.HOSTED, policy="hosted", lines=told)
    if own is continuous:
        return _run_continuously(case, best, continuous)
    return _scale_to_zero(case, own, continuous)


def _saved(choice: Outcome, continuous: Outcome, price: int) -> float:
    """Return what share of running continuously a choice saves, waiting included."""
    whole = continuous.objective_nusd(price)
    return (whole - choice.objective_nusd(price)) / max(whole, 1)


def _another_pattern(case: Case, said: WorkNeeds) -> list[str]:
    reasons = []
    if said.rps_one_box is not None and case.peak_rps > said.rps_one_box:
        boxes = case.peak_rps / said.rps_one_box
        reasons.append(
            f"the busiest minute has {case.peak_rps:.2f} requests a second, one box serves "
            f"{said.rps_one_box:g}: {case.peak_rps:.2f} / {said.rps_one_box:g} = {boxes:.1f} boxes, so "
            "replicas behind a distributed engine"
        )
    if said.compliance:
        reasons.append("a compliance regime wants a certified platform, and poorwill holds no certificate")
    if said.hard_real_time:
        longest = max((choice.waits.max_us for choice in case.choices), default=0)
        reasons.append(
            f"hard real time leaves no room for a wake, and here one makes a request wait up to "
            f"{longest / SECOND_US:,.0f} s"
        )
    if said.horizontal:
        reasons.append(
            "work that is horizontal by nature wants a batch system that starts many machines at once"
        )
    return reasons


def _hosted(case: Case, said: WorkNeeds, own: Outcome, price: int) -> tuple[str, ...] | None:
    bill = case.hosted
    if bill is None or not case.requests or bill.nusd >= own.objective_nusd(price):
        return None
    per_day = case.requests * DAY_US / case.span_us
    if not said.hosted_named and per_day > HANDFUL_PER_DAY:
        return None
    own_nusd = own.objective_nusd(price)
    times = own_nusd / max(bill.nusd, 1)
    return (
        f"Use a hosted API: {counted(case.requests, 'request')}, {per_day:.1f} a day, cost "
        f"{money(bill.nusd)} at {bill.offer.name} ({bill.offer.source}, {bill.as_of}), against "
        f"{money(own_nusd)} for {own.policy}.",
        f"What would change that: {times:,.0f} times the tokens at the same machine time "
        f"({money(own_nusd)} / {money(bill.nusd)}), weights that nobody hosts, or data "
        "that must not leave.",
    )


def _run_continuously(case: Case, best: Outcome, continuous: Outcome) -> PlanVerdict:
    price = case.price_nusd_s
    share = _saved(best, continuous, price)
    busy = continuous.useful_us / max(continuous.active_us, 1)
    gain = f"save {share:.1%}, less than {WORTH_SAVING:.0%}"
    if share < 0:
        gain = f"cost {-share:.1%} more, waiting counted"
    return PlanVerdict(
        answer=Recommendation.CONTINUOUS,
        policy=continuous.policy,
        lines=(
            f"Run continuously: requests are in service {busy:.1%} of the time, and the best policy that "
            f"sleeps ({best.policy}) would {gain}.",
            _costs(case, best, continuous),
            "What would change that: fewer or shorter busy hours, or a cheaper wake.",
            *_aside(case),
        ),
    )


def _scale_to_zero(case: Case, best: Outcome, continuous: Outcome) -> PlanVerdict:
    price = case.price_nusd_s
    saves = _saved(best, continuous, price)
    waits = best.waits
    held = len(waits.held_us)
    paper = min(case.on_paper, key=lambda one: one.objective_nusd(price), default=best)
    lines = [
        f"Scale to zero with {best.policy}: it saves {percent(saves)} of running continuously.",
        _costs(case, best, continuous),
        f"{held:,} of {waits.requests:,} requests wait, 95 % of all at most "
        f"{duration(waits.percentile_us(95))}, the longest {duration(waits.max_us)}.",
    ]
    if paper.objective_nusd(price) < NOTABLE * best.objective_nusd(price):
        lines.append(
            f"On paper {paper.policy} is cheaper still, {money(paper.cost_nusd)}; `serve` refuses idle "
            "times below the break-even."
        )
    lines += _bridge(case, best)
    return PlanVerdict(answer=Recommendation.SCALE_TO_ZERO, policy=best.policy, lines=(*lines, *_aside(case)))


def _bridge(case: Case, best: Outcome) -> list[str]:
    """Say what the bridge gives away, where it is the answer; what it would gain, where it is on offer."""
    if case.hosted is None:
        return []
    name, offer = case.hosted.offer.name, case.offer
    if best.policy == "bridge":
        return [
            f"While a replica wakes, requests go to {name}, which reads them and charges "
            f"{money(best.extra_nusd)}: `hosted` with `bridge = true` in fleet.toml."
        ]
    price = case.price_nusd_s
    if offer is None or offer.objective_nusd(price) >= best.objective_nusd(price):
        return []
    return [
        f"With a bridge to {name} nobody waits, for {money(offer.cost_nusd)}, {money(offer.extra_nusd)} of "
        "it there: the requests that now wait would be sent to that provider, so it is for you to say."
    ]


def _costs(case: Case, best: Outcome, continuous: Outcome) -> str:
    price = case.price_nusd_s
    parts = [
        f"{one.policy} {money(one.cost_nusd)} + {duration(one.waits.total_us)} held x "
        f"{money(price * 3600)}/h = {money(one.objective_nusd(price))}"
        for one in (best, continuous)
    ]
    said = "" if case.wait_nusd_s else " (a held hour counts for a dollar; --wait-usd-s sets it)"
    return f"Over the span: {'; '.join(parts)}{said}."


def _aside(case: Case) -> tuple[str, ...]:
    bill = case.hosted
    if bill is None:
        return ()
    return (
        f"For comparison, {bill.offer.name} would charge {money(bill.nusd)} for these tokens "
        f"({bill.offer.source}, {bill.as_of}); --hosted names a model that counts as a choice.",
    )
