"""The closed-form arithmetic of duty cycles: no trace, no simulation, every formula with its numbers."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

from poorwill.core.format import duration, money, percent
from poorwill.core.money import NUSD, nusd, rounded
from poorwill.core.words import HOUR_US
from poorwill.planner.hosted import TokenGuess
from poorwill.planner.report.documents import TierDocument
from poorwill.policies import TierCosts, break_even_us
from poorwill.remote.hosted_prices import EPOCH, Offer

MONTH_H = 720
"""A month of 30 days; the month that all monthly figures here mean."""
DAY_H = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyUse:
    """So many hours of use a day, and what an hour costs."""

    hours_per_day: Fraction
    costs: TierCosts
    wakes_per_day: Fraction = Fraction(0)
    """Cycles of park and wake a day, paid on top of the hours of use."""
    wait_nusd_s: int = 0

    @property
    def duty_cycle(self) -> Fraction:
        """Return the share of the month in use."""
        return self.hours_per_day / DAY_H

    @property
    def continuous_nusd(self) -> int:
        """Return what a month costs that is paid throughout."""
        return self.costs.active_nusd_h * MONTH_H

    @property
    def transit_us(self) -> int:
        """Return the paid time of a month's parks and wakes."""
        cycle = self.costs.park_us + self.costs.wake_us
        return int(cycle * self.wakes_per_day * MONTH_H / DAY_H)

    @property
    def active_us(self) -> int:
        """Return the time of a month paid at the active rate."""
        used = int(self.hours_per_day * MONTH_H / DAY_H * HOUR_US)
        return min(used + self.transit_us, MONTH_H * HOUR_US)

    @property
    def hibernated_nusd(self) -> int:
        """Return what a month costs that is paid in use only, and parked for the rest."""
        parked_us = MONTH_H * HOUR_US - self.active_us
        return rounded(self.active_us * self.costs.active_nusd_h + parked_us * self.costs.parked_nusd_h)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """A hosted price for a mix of tokens, in dollars per million."""

    name: str
    source: str
    usd_per_mtok: Decimal
    mix: str

    def tokens_for(self, nusd: int) -> int:
        """Return how many tokens so much money buys."""
        return int(Decimal(nusd) / NUSD / self.usd_per_mtok * 1_000_000)


def blend_of(offer: Offer, tokens: TokenGuess, *, today_us: int) -> Blend:
    """Return the price of the assumed mix of prompt and output tokens, as of today."""
    today = EPOCH + timedelta(microseconds=today_us)
    quote = offer.quote(today, tokens.prompt)
    usd = quote.input_usd * tokens.prompt + quote.output_usd * tokens.output
    each = usd / (tokens.prompt + tokens.output)
    return Blend(
        name=offer.name,
        source=f"{offer.source}, {today:%Y-%m-%d}",
        usd_per_mtok=each.quantize(Decimal("0.0001")),
        mix=f"{tokens.prompt} prompt to {tokens.output} output tokens",
    )


def lines(use: DailyUse, blend: Blend | None) -> list[str]:
    """Return the comparison for people, each figure with its formula."""
    costs = use.costs
    rate = money(costs.active_nusd_h)
    hours = use.hours_per_day
    cheaper = use.continuous_nusd - use.hibernated_nusd
    told = [
        f"continuous   {MONTH_H} h x {rate}/h = {money(use.continuous_nusd)} a month",
        f"hibernated   {_hibernated(use)} = {money(use.hibernated_nusd)} a month",
        f"duty cycle   {_number(hours)} h / {DAY_H} h = {use.duty_cycle} ({percent(float(use.duty_cycle))})",
        f"saved        {money(use.continuous_nusd)} - "
        f"{money(use.hibernated_nusd)} = {money(cheaper)} a month",
        "",
        *_idle_lines(use),
    ]
    if blend is not None:
        told += ["", *_hosted_lines(use, blend)]
    return told


def _hibernated(use: DailyUse) -> str:
    costs = use.costs
    hours = use.hours_per_day * MONTH_H / DAY_H
    text = f"{_number(hours)} h x {money(costs.active_nusd_h)}/h"
    if use.transit_us:
        text += f" + {duration(use.transit_us)} of parks and wakes x {money(costs.active_nusd_h)}/h"
    if costs.parked_nusd_h:
        parked_h = MONTH_H - use.active_us / HOUR_US
        text += f" + {parked_h:.1f} h parked x {money(costs.parked_nusd_h)}/h"
    return text


def _idle_lines(use: DailyUse) -> list[str]:
    costs = use.costs
    even = break_even_us(costs, wait_nusd_s=use.wait_nusd_s)
    if even is None:
        return ["break-even   none: being parked costs no less than being ready"]
    active, parked = money(costs.active_nusd_h), money(costs.parked_nusd_h)
    wake, park = duration(costs.wake_us), duration(costs.park_us)
    top = f"{active} x ({park} + {wake})"
    if use.wait_nusd_s:
        top += f" + {money(use.wait_nusd_s)}/s x 3600 x {wake}"
    if costs.parked_nusd_h:
        top += f" - {parked} x {park}"
    return [
        f"break-even   ({top}) / ({active} - {parked}) = {duration(even)} of idle time",
        "             (active x (park + wake) + wait price x wake - parked x park) / (active - parked):",
        "             a longer gap is cheaper parked; parking after this long costs at most twice the best",
    ]


def _hosted_lines(use: DailyUse, blend: Blend) -> list[str]:
    each = f"${blend.usd_per_mtok.normalize():f} per million tokens"
    told = [f"hosted API   {blend.name}: {each} ({blend.mix}; {blend.source})"]
    for name, cost_nusd in (("hibernated", use.hibernated_nusd), ("continuous", use.continuous_nusd)):
        told.append(
            f"             {name}: {money(cost_nusd)} / {each} = "
            f"{blend.tokens_for(cost_nusd):,} tokens a month; below that the hosted API is cheaper"
        )
    return told


class BlendDocument(Struct, frozen=True, kw_only=True):
    """A hosted API's price, and the tokens a month that would cost as much as a machine of one's own."""

    name: str
    source: str
    per_million_tokens_nusd: int
    mix: str
    hibernated_tokens: int
    continuous_tokens: int


class DutyDocument(Struct, frozen=True, kw_only=True):
    """The closed form: so many hours of use a day."""

    hours_per_day: float
    month_h: int
    continuous_month_nusd: int
    hibernated_month_nusd: int
    duty_cycle: float
    break_even_idle_us: int | None
    hosted: BlendDocument | None
    formulas: tuple[str, ...]
    tiers: tuple[TierDocument, ...]


def duty_document(use: DailyUse, blend: Blend | None, tiers: tuple[TierDocument, ...]) -> DutyDocument:
    """Return the same figures for JSON."""
    hosted = None
    if blend is not None:
        hosted = BlendDocument(
            name=blend.name,
            source=blend.source,
            per_million_tokens_nusd=nusd(str(blend.usd_per_mtok)),
            mix=blend.mix,
            hibernated_tokens=blend.tokens_for(use.hibernated_nusd),
            continuous_tokens=blend.tokens_for(use.continuous_nusd),
        )
    return DutyDocument(
        hours_per_day=float(use.hours_per_day),
        month_h=MONTH_H,
        continuous_month_nusd=use.continuous_nusd,
        hibernated_month_nusd=use.hibernated_nusd,
        duty_cycle=float(use.duty_cycle),
        break_even_idle_us=break_even_us(use.costs, wait_nusd_s=use.wait_nusd_s),
        hosted=hosted,
        formulas=tuple(lines(use, blend)),
        tiers=tiers,
    )


def _number(value: Fraction) -> str:
    return f"{float(value):g}"
