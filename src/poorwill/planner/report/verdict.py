"""The plain answer: scale to zero, run continuously, use a hosted API, or not this pattern at all.

Every answer comes with the arithmetic that leads to it and with what would change it. WorkNeeds that a
trace cannot show (compliance, hard real time, horizontal work, what one box serves) are asked as flags and
never guessed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from poorwill.core.format import DAY_US, counted, duration, money, percent
from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.hosted import HostedBill
from poorwill.planner.simulation.evaluate import HOSTED
from poorwill.planner.simulation.outcome import HELD_HOUR_NUSD, Outcome

WORTH_SAVING = 0.10
"""Scaling to zero must save at least this share of running continuously to be worth its waits."""
NOTABLE = 0.99
SHOWN_MODELS = 12
"""Models whose answers are listed; of more only the counts are given."""

PEAK_WINDOW_S = 60


class Recommendation(StrEnum):
    """The four answers."""

    SCALE_TO_ZERO = "scale to zero"
    CONTINUOUS = "run continuously"
    HOSTED = "use a hosted API"
    ANOTHER_PATTERN = "not this pattern"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkNeeds:
    """What the user says about the work; False or None if nothing was said."""

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
    """What `serve` could run, `continuous` among them; `bridge` only if the user named where it leads."""
    hosted: HostedBill | None
    wait_nusd_s: int
    """The price of waiting that the policies were run by; 0 if the user gave none."""
    offer: Outcome | None = None
    """The bridge, if nobody named a hosted API: it gives text away, so it is offered, not chosen."""
    on_paper: Sequence[Outcome] = ()
    """Policies that `serve` refuses as a mistake, since they park before the break-even."""

    @property
    def continuous(self) -> Outcome:
        """Return what being always ready costs."""
        return next(choice for choice in self.choices if choice.policy == "continuous")

    @property
    def sleeping(self) -> list[Outcome]:
        """Return the other choices, the best first, by the price of waiting that they were run by."""
        others = [choice for choice in self.choices if choice.policy != "continuous"]
        return sorted(others, key=lambda choice: choice.objective_nusd(self.wait_nusd_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanVerdict:
    """The answer, the policy to run, and why."""

    answer: Recommendation
    policy: str
    own: str
    """The best policy of the operator's own, whatever the answer."""
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


def judge(case: Case, said: WorkNeeds, models: Sequence[tuple[str, "PlanVerdict"]] = ()) -> PlanVerdict:
    """Return the answer for a case; with several models it is theirs if they all have the same one."""
    answers = {verdict.answer for _, verdict in models}
    answer = answers.pop() if len(answers) == 1 else _decide(case, said)
    own = _best_own(case)
    if answer is Recommendation.CONTINUOUS:
        own = case.continuous
    elif answer is Recommendation.SCALE_TO_ZERO and own is case.continuous:
        own = case.sleeping[0]
    policy = HOSTED if answer is Recommendation.HOSTED else own.policy
    lines = [*_by_model(models), *_explained(case, said, answer, own)]
    return PlanVerdict(answer=answer, policy=policy, own=own.policy, lines=tuple(lines))


def _decide(case: Case, said: WorkNeeds) -> Recommendation:
    """Compare whole costs, hosted and of the operator's own, then what waits would have to be worth."""
    if _another_pattern(case, said):
        return Recommendation.ANOTHER_PATTERN
    if _decide_hosted(case):
        return Recommendation.HOSTED
    slept = _best_own(case) is not case.continuous
    return Recommendation.SCALE_TO_ZERO if slept else Recommendation.CONTINUOUS


def _decide_hosted(case: Case) -> bool:
    """Return whether a hosted API is cheaper than the best of the operator's own."""
    bill = case.hosted
    own_nusd = _best_own(case).objective_nusd(case.wait_nusd_s)
    return bill is not None and case.requests > 0 and bill.nusd < own_nusd


def _best_own(case: Case) -> Outcome:
    """Return the best choice of the operator's own: the best that sleeps and is worth its waits."""
    for choice in case.sleeping:
        if _saved(case, choice) < WORTH_SAVING:
            break
        worth = _held_hour_nusd(case, choice)
        if case.wait_nusd_s or worth is None or worth >= HELD_HOUR_NUSD:
            return choice
    return case.continuous


def _saved(case: Case, choice: Outcome) -> float:
    """Return what share of running continuously a choice saves, waiting included if it has a price."""
    whole = case.continuous.objective_nusd(case.wait_nusd_s)
    return (whole - choice.objective_nusd(case.wait_nusd_s)) / max(whole, 1)


def _held_hour_nusd(case: Case, choice: Outcome) -> int | None:
    """Return what a choice saves for each hour that requests are held; None if none is held."""
    held_us = choice.waits.total_us - case.continuous.waits.total_us
    return None if held_us <= 0 else (case.continuous.cost_nusd - choice.cost_nusd) * HOUR_US // held_us


def _by_model(models: Sequence[tuple[str, PlanVerdict]]) -> list[str]:
    """Say what the answer is for each model, or for how many."""
    if not models:
        return []
    counts = Counter(verdict.answer for _, verdict in models)
    if len(models) > SHOWN_MODELS or len(counts) == 1:
        return [
            "By model: " + ", ".join(f"{answer} {count:,}" for answer, count in counts.most_common()) + "."
        ]
    return [f"{name or 'no name'}: {verdict.answer} ({verdict.policy})." for name, verdict in models]


def _explained(case: Case, said: WorkNeeds, answer: Recommendation, own: Outcome) -> list[str]:
    match answer:
        case Recommendation.ANOTHER_PATTERN:
            reasons = "; ".join(_another_pattern(case, said))
            return [f"Not this pattern: {reasons}.", _costs(case, case.sleeping[0])]
        case Recommendation.HOSTED:
            return _use_hosted(case, said, own)
        case Recommendation.CONTINUOUS:
            return _run_continuously(case)
    return _scale_to_zero(case, own)


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


def _use_hosted(case: Case, said: WorkNeeds, own: Outcome) -> list[str]:
    bill = case.hosted
    assert bill is not None
    own_nusd = own.objective_nusd(case.wait_nusd_s)
    per_day = case.requests * DAY_US / case.span_us
    times = own_nusd / max(bill.nusd, 1)
    lines = [
        f"Use a hosted API: {counted(case.requests, 'request')}, {per_day:.1f} a day, cost "
        f"{money(bill.nusd)} at {bill.offer.name} ({bill.offer.source}, {bill.dated}), against "
        f"{money(own_nusd)} for {own.policy}.",
        f"Your own pays if its quality, or that no text leaves, is worth {money(own_nusd - bill.nusd)} over "
        f"the span, or with {times:,.1f} times the tokens at the same machine time.",
    ]
    if not said.hosted_named:
        lines.append("That is the price of a reference; --hosted PROVIDER/MODEL names the one that would do.")
    first, *rest = _run_continuously(case) if own is case.continuous else _scale_to_zero(case, own)
    return [*lines, f"If it must be your own: {first[0].lower()}{first[1:]}", *rest]


def _run_continuously(case: Case) -> list[str]:
    best, continuous = case.sleeping[0], case.continuous
    share = _saved(case, best)
    busy = continuous.useful_us / max(continuous.active_us, 1)
    gain = f"save {share:.1%}, less than {WORTH_SAVING:.0%}"
    if share >= WORTH_SAVING:
        worth = _held_hour_nusd(case, best) or 0
        gain = f"save {share:.1%}, but only {money(worth)} for each hour that requests are held"
    if share < 0:
        gain = f"cost {-share:.1%} more" + (", waiting counted" if case.wait_nusd_s else "")
    return [
        f"Run continuously: requests are in service {busy:.1%} of the time, and the best policy that "
        f"sleeps ({best.policy}) would {gain}.",
        _costs(case, best),
        "What would change that: fewer or shorter busy hours, or a cheaper wake.",
        *_hosted_price(case),
    ]


def _scale_to_zero(case: Case, best: Outcome) -> list[str]:
    price, waits = case.wait_nusd_s, best.waits
    held = len(waits.held_us)
    paper = min(case.on_paper, key=lambda one: one.objective_nusd(price), default=best)
    lines = [
        f"Scale to zero with {best.policy}: it saves {percent(_saved(case, best))} of running continuously.",
        _costs(case, best),
        f"{held:,} of {waits.requests:,} requests wait, 95 % of all at most "
        f"{duration(waits.percentile_us(95))}, the longest {duration(waits.max_us)}.",
    ]
    if paper.objective_nusd(price) < NOTABLE * best.objective_nusd(price):
        lines.append(
            f"On paper {paper.policy} is cheaper still, {money(paper.cost_nusd)}; `serve` refuses idle "
            "times below the break-even."
        )
    return [*lines, *_bridge(case, best), *_hosted_price(case)]


def _bridge(case: Case, best: Outcome) -> list[str]:
    """Say what the bridge gives away if it is the answer, and what it would gain if it is on offer."""
    if case.hosted is None:
        return []
    name, offer = case.hosted.offer.name, case.offer
    if best.policy == "bridge":
        return [
            f"While a replica wakes, requests go to {name}, which reads them and charges "
            f"{money(best.extra_nusd)}: `hosted` with `bridge = true` in fleet.toml."
        ]
    price = case.wait_nusd_s or HELD_HOUR_NUSD // 3600  # it costs more, so that nobody waits
    if offer is None or offer.objective_nusd(price) >= best.objective_nusd(price):
        return []
    return [
        f"With a bridge to {name} nobody waits, for {money(offer.cost_nusd)}, {money(offer.extra_nusd)} of "
        "it there: the requests that now wait would be sent to that provider, so it is for you to say."
    ]


def _costs(case: Case, best: Outcome) -> str:
    continuous, price = case.continuous, case.wait_nusd_s
    if price:
        parts = [
            f"{one.policy} {money(one.cost_nusd)} + {duration(one.waits.total_us)} held x "
            f"{money(price * 3600)}/h = {money(one.objective_nusd(price))}"
            for one in (best, continuous)
        ]
        return f"Over the span: {'; '.join(parts)}."
    worth, pays = _held_hour_nusd(case, best), ""
    if worth is not None and worth >= 0:
        pays = f" It pays unless a held hour is worth more than {money(worth)}; --wait-usd-s sets a price."
    return (
        f"Over the span: {best.policy} {money(best.cost_nusd)}, with {duration(best.waits.total_us)} of held "
        f"requests; continuous {money(continuous.cost_nusd)}.{pays}"
    )


def _hosted_price(case: Case) -> list[str]:
    """Say what the hosted API would charge, unless that is the answer."""
    bill = case.hosted
    if bill is None or _decide_hosted(case):
        return []
    return [
        f"For comparison, {bill.offer.name} would charge {money(bill.nusd)} for these tokens "
        f"({bill.offer.source}, {bill.dated})."
    ]
