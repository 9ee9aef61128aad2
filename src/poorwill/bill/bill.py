"""The bill: items grouped along any axes, with the figures that make them comparable.

The lines sum to the total to the nano-dollar, whatever the axes: they are groups of the same items.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from enum import StrEnum

from poorwill.core.settings import HostedSettings
from poorwill.core.words import (
    DRAIN,
    FAILED_WAKE,
    FLOOR,
    HOUR_US,
    LINGER,
    PARK,
    PARKED_CAUSES,
    SERVING,
    USEFUL_CAUSES,
    Phase,
    Tier,
    parked,
    waking,
)
from poorwill.ledger.checksums import Tell
from poorwill.ledger.costs.items import Item, items, last_instant
from poorwill.ledger.costs.pricing import NAMED_CHARGES
from poorwill.ledger.costs.usage import Count, Use, usage
from poorwill.ledger.dates import Period, day_name, local_days, month_name
from poorwill.ledger.rates import Life, RateBook, lives, orphans, rate_book
from poorwill.ledger.verifying import verify


class Axis(StrEnum):
    """What the bill's lines can be told apart by."""

    MONTH = "month"
    DAY = "day"
    MODEL = "model"
    REPLICA = "replica"
    HOST = "host"
    CAUSE = "cause"
    TIER = "tier"
    KEY = "key"


HostedPrice = Callable[[HostedSettings, Use], int | None]
"""What a hosted API would have charged for a day's use, in nano-dollars, None if its price is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the bill."""

    names: tuple[str, ...]
    """One for each axis."""
    currency: str
    us: int
    nusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the bill of one model, or of all, means."""

    model: str
    """'' for the whole fleet."""
    nusd: int
    paid_us: int
    useful_us: int
    parked_us: int
    unpriced_us: int
    wakes: int
    failed_wakes: int
    wake_nusd: int
    """What wakes cost, failed ones included."""
    count: Count
    always_on_nusd: int
    """What running without a break would have cost at the same rates, increments and minimums."""
    hosted_nusd: int | None
    """What the configured hosted API would have cost for the tokens that are known, None without one."""
    hosted_name: str
    hosted_unknown: tuple[str, ...]
    """Models whose hosted API has no price that is known, or none for all of this time."""
    compared_nusd: int
    """What the models cost whose hosted price is known."""

    @property
    def duty_cycle(self) -> float | None:
        """Useful seconds over paid seconds."""
        return self.useful_us / self.paid_us if self.paid_us else None

    @property
    def nusd_per_wake(self) -> int | None:
        """Cost of wakes over successful wakes."""
        return self.wake_nusd // self.wakes if self.wakes else None

    @property
    def nusd_per_request(self) -> int | None:
        """The whole cost over the requests that ended well."""
        served = self.count.requests - self.count.failed
        return self.nusd // served if served else None

    def nusd_per_m(self, tokens: int) -> int | None:
        """Return the whole cost over these tokens, per million of them."""
        return self.nusd * 1_000_000 // tokens if tokens else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Notes of one kind within the period: steps of the wall clock, orphans, limits, jumps, losses."""

    kind: str
    count: int
    last_us: int
    last_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A bill over a period."""

    period: Period
    as_of_us: int
    """The last instant the ledger knows of; a period that reaches beyond it is billed up to here."""
    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]
    totals: Mapping[str, int]
    """Nano-units by currency."""
    figures: tuple[Figures, ...]
    """The fleet's first, then each model's; none where several currencies cannot be added up."""
    events: tuple[Event, ...]


def make_bill(
    db: sqlite3.Connection,
    period: Period,
    axes: Sequence[Axis],
    *,
    hosted: Mapping[str, HostedSettings] | None = None,
    price: HostedPrice | None = None,
    tell: Tell = lambda _: None,
) -> Bill:
    """Make the bill of a period, grouped along the axes in their order. Days and months are its zone's."""
    by_key = Axis.KEY in axes
    verify(db, period, by_key=by_key, tell=tell)
    daily = {Axis.DAY, Axis.MONTH} & set(axes)
    found = (local_items if daily else items)(db, period, by_key=by_key, tell=tell)
    totals: dict[str, int] = defaultdict(int)
    for item in found:
        totals[item.currency] += item.nusd
    return Bill(
        period=period,
        as_of_us=last_instant(db),
        axes=tuple(axes),
        lines=group(found, axes),
        totals=dict(totals),
        figures=(figures(db, period, found, hosted=hosted or {}, price=price) if len(totals) < 2 else ()),
        events=tuple(
            Event(kind=kind, count=count, last_us=last_us, last_text=text)
            for kind, count, last_us, text in db.execute(_EVENTS, _window(period))
        ),
    )


def local_items(
    db: sqlite3.Connection, period: Period, *, by_key: bool, tell: Tell = lambda _: None
) -> list[Item]:
    """Return the items of a period with the days of its zone."""
    if period.zone is UTC:
        return items(db, period, by_key=by_key, tell=tell)
    return [
        replace(item, day=day)
        for day, part in local_days(_lived(db, period))
        for item in items(db, part, by_key=by_key, tell=tell)
    ]


def local_usage(db: sqlite3.Connection, period: Period) -> list[Use]:
    """Return what was asked for in a period, by the days of its zone."""
    if period.zone is UTC:
        return list(usage(db, period))
    days = local_days(_lived(db, period))
    return [replace(use, day=day) for day, part in days for use in usage(db, part)]


def _lived(db: sqlite3.Connection, period: Period) -> Period:
    """Return the part of a period that has anything; a request may end after the last instant known."""
    first_us = min((life.created_us for life in lives(db)), default=period.to_us)
    (hour,) = db.execute("SELECT coalesce(max(hour), 0) FROM usage").fetchone()
    to_us = min(period.to_us, max(last_instant(db), (hour + 1) * HOUR_US))
    return replace(period, from_us=max(period.from_us, first_us), to_us=to_us)


def group(found: Sequence[Item], axes: Sequence[Axis]) -> tuple[Line, ...]:
    """Group items along axes, in the order of time, then of names."""
    sums: dict[tuple[tuple[str, ...], str], list[int]] = defaultdict(lambda: [0, 0])
    for item in found:
        entry = sums[tuple(name_on(item, axis) for axis in axes), item.currency]
        entry[0] += item.us
        entry[1] += item.nusd
    order = {axis: number for number, axis in enumerate(axes)}
    cause_at = order.get(Axis.CAUSE)

    def rank(address: tuple[tuple[str, ...], str]) -> tuple[object, ...]:
        names, currency = address
        ranked = [
            (_cause_rank(name), name) if place == cause_at else (0, name) for place, name in enumerate(names)
        ]
        return (*ranked, currency)

    return tuple(
        Line(names=names, currency=currency, us=us, nusd=nusd)
        for (names, currency), (us, nusd) in sorted(sums.items(), key=lambda one: rank(one[0]))
    )


def name_on(item: Item, axis: Axis) -> str:
    """Return what an item is called along an axis."""
    if axis is Axis.DAY:
        return day_name(item.day)
    if axis is Axis.MONTH:
        return month_name(item.day)
    return str(getattr(item, axis))


def figures(
    db: sqlite3.Connection,
    period: Period,
    found: Sequence[Item],
    *,
    hosted: Mapping[str, HostedSettings],
    price: HostedPrice | None,
) -> tuple[Figures, ...]:
    """Return the figures of the fleet and, if there is more than one, of each model."""
    uses = list(usage(db, period))
    models = sorted({item.model for item in found} | {use.model for use in uses})
    wakes = {model: (good, bad) for model, good, bad in db.execute(_WAKES, _window(period))}
    always_on = _always_on(db, period)
    each = [
        _figures_of(
            model,
            [item for item in found if item.model == model],
            [use for use in uses if use.model == model],
            wakes.get(model, (0, 0)),
            always_on.get(model, 0),
            hosted.get(model),
            price,
        )
        for model in models
    ]
    return (_sum(each), *each)


def _figures_of(
    model: str,
    found: Sequence[Item],
    uses: Sequence[Use],
    wakes: tuple[int, int],
    always_on_nusd: int,
    hosted: HostedSettings | None,
    price: HostedPrice | None,
) -> Figures:
    count = sum(uses, Count())
    spans = [item for item in found if item.cause not in NAMED_CHARGES]
    hosted_nusd = None
    if hosted is not None and price is not None:
        prices = [price(hosted, use) for use in uses]
        known = [nusd for nusd in prices if nusd is not None]
        hosted_nusd = sum(known) if len(known) == len(prices) else None
    return Figures(
        model=model,
        nusd=sum(item.nusd for item in found),
        paid_us=sum(item.us for item in spans if item.cause not in PARKED_CAUSES),
        useful_us=sum(item.us for item in spans if item.cause in USEFUL_CAUSES),
        parked_us=sum(item.us for item in spans if item.cause in PARKED_CAUSES),
        unpriced_us=sum(item.us for item in spans if item.rate is None),
        wakes=wakes[0],
        failed_wakes=wakes[1],
        wake_nusd=sum(item.nusd for item in spans if is_wake(item.cause)),
        count=count,
        always_on_nusd=always_on_nusd,
        hosted_nusd=hosted_nusd,
        hosted_name=f"{hosted.provider}/{hosted.model}" if hosted else "",
        hosted_unknown=(model,) if hosted is not None and hosted_nusd is None else (),
        compared_nusd=sum(item.nusd for item in found),
    )


def _sum(each: Sequence[Figures]) -> Figures:
    priced = [one.hosted_nusd for one in each]
    known = [nusd for nusd in priced if nusd is not None]
    return Figures(
        model="",
        nusd=sum(one.nusd for one in each),
        paid_us=sum(one.paid_us for one in each),
        useful_us=sum(one.useful_us for one in each),
        parked_us=sum(one.parked_us for one in each),
        unpriced_us=sum(one.unpriced_us for one in each),
        wakes=sum(one.wakes for one in each),
        failed_wakes=sum(one.failed_wakes for one in each),
        wake_nusd=sum(one.wake_nusd for one in each),
        count=sum((one.count for one in each), Count()),
        always_on_nusd=sum(one.always_on_nusd for one in each),
        hosted_nusd=sum(known) if known else None,
        hosted_unknown=tuple(one.model for one in each if one.hosted_name and one.hosted_nusd is None),
        compared_nusd=sum(one.nusd for one in each if one.hosted_nusd is not None),
        hosted_name=", ".join(sorted({one.hosted_name for one in each if one.hosted_name})),
    )


def is_wake(cause: str) -> bool:
    """Return whether time with this cause was spent waking, in vain or not."""
    return cause == FAILED_WAKE or cause.startswith("wake.")


def _always_on(db: sqlite3.Connection, period: Period) -> dict[str, int]:
    """Return, by model, what every life would have cost as one stretch at the active rate, without orphans.

    The provider's minimum and increment count as if the stretch ended with the period. A part of it costs
    what it costs up to the part's end minus what it costs up to its beginning.
    """
    nobodys = orphans(db)
    book, end_us = rate_book(db), min(period.to_us, last_instant(db))
    numerators: dict[str, int] = defaultdict(int)
    for life in (life for life in lives(db) if life.id not in nobodys):
        begin = max(period.from_us, life.created_us)
        end = min(end_us, life.ended_us or end_us)
        for segment in book.segments(life, begin, end) if begin < end else ():
            if segment.rate is not None:
                us = segment.to_us - segment.from_us
                numerators[life.model] += us * segment.rate.active_nusd_h
        if begin < end:
            numerators[life.model] += _added(book, life, end) - _added(book, life, begin)
    return {model: numerator // HOUR_US for model, numerator in numerators.items()}


def _added(book: RateBook, life: Life, at_us: int) -> int:
    """Return, times HOUR_US, what the provider would add to a whole life that ended then."""
    rate = book.at(life, at_us - 1) if at_us > life.created_us else None
    return 0 if rate is None else sum(rate.added_us(at_us - life.created_us)) * rate.active_nusd_h


def _cause_rank(cause: str) -> int:
    """Return where a cause stands on the bill: wakes, use, waiting, parked, the rest, named charges.

    The phases of a wake stand as they follow one another, parked tiers from shallow to deep.
    """
    wakes, rests = map(waking, Phase), map(parked, Tier)
    order: list[str] = [*wakes, SERVING, LINGER, FLOOR, DRAIN, PARK, *rests]
    return order.index(cause) if cause in order else len(order) + (cause in NAMED_CHARGES)


def _window(period: Period) -> dict[str, int]:
    return {"from": period.from_us, "to": period.to_us}


_WAKES = """
SELECT l.model, sum(w.ok), sum(NOT w.ok) FROM wakes w JOIN lives l ON l.id = w.life
WHERE w.ended_us >= :from AND w.ended_us < :to GROUP BY 1
"""

# SQLite takes the bare column `text` from the row that max() found (https://sqlite.org/lang_select.html#bareagg).
_EVENTS = """
SELECT kind, count(*), max(at_us), text FROM notes
WHERE at_us >= :from AND at_us < :to GROUP BY kind ORDER BY kind
"""
