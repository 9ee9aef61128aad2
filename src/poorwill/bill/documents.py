"""What `poorwill bill --json` prints. Money is exact: nano-dollars, and decimal text beside sums."""

from collections.abc import Mapping

from msgspec import Struct, convert, field, structs

from poorwill.bill.bill import Axis, Bill, Figures, Line
from poorwill.bill.compare import Comparison
from poorwill.bill.explain import Explanation
from poorwill.core.format import decimal
from poorwill.core.spend import LimitDocument
from poorwill.ledger.dates import Period, iso, timestamp


class PeriodDocument(Struct, frozen=True, kw_only=True):
    """A period; UTC."""

    begin: str = field(name="from")
    end: str = field(name="to")


class BillLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Time and cost with the same names; of the axes only those that were asked for."""

    month: str | None = None
    day: str | None = None
    model: str | None = None
    replica: str | None = None
    cause: str | None = None
    tier: str | None = None
    key: str | None = None
    host: str | None = None
    time_us: int
    currency: str
    cost_nusd: int
    cost: str


class TotalDocument(Struct, frozen=True, kw_only=True):
    """The sum of the lines in one currency."""

    currency: str
    cost_nusd: int
    cost: str


class RequestCounts(Struct, frozen=True, kw_only=True):
    """Requests and tokens. Those `without_usage` are in no token count; those `counted` reported none either,
    and their tokens were counted as they passed."""

    requests: int
    failed: int
    untold: int = field(name="without_usage")
    tokens_in: int
    tokens_out: int
    held_us: int
    bridged: int
    bridge_untold: int = field(name="bridged_without_usage")
    bridge_nusd: int
    counted: int


class MillionTokens(Struct, frozen=True, kw_only=True):
    """Cost of a million tokens, if only these counted."""

    in_nusd: int | None
    out_nusd: int | None
    blended_nusd: int | None


class FiguresDocument(Struct, frozen=True, kw_only=True):
    """What the bill of one model means; `model` is empty for the whole fleet."""

    model: str
    nusd: int = field(name="cost_nusd")
    duty_cycle: float | None
    paid_us: int
    useful_us: int
    parked_us: int
    unpriced_us: int
    wakes: int
    failed_wakes: int
    wake_nusd: int
    nusd_per_wake: int | None = field(name="per_wake_nusd")
    nusd_per_request: int | None = field(name="per_request_nusd")
    count: RequestCounts
    per_million_tokens: MillionTokens | None = None
    always_on_nusd: int
    hosted_name: str
    hosted_nusd: int | None


class EventDocument(Struct, frozen=True, kw_only=True):
    """Notes of one kind within the period."""

    kind: str
    count: int
    last_us: int
    last_text: str


class BillDocument(Struct, frozen=True, kw_only=True):
    """A bill. The lines sum to the totals, to the last nano-dollar."""

    period: PeriodDocument
    as_of: str
    by: tuple[Axis, ...]
    lines: tuple[BillLine, ...]
    totals: tuple[TotalDocument, ...]
    figures: tuple[FiguresDocument, ...]
    events: tuple[EventDocument, ...]
    limits: tuple[LimitDocument, ...] = ()


class ForWhom(Struct, frozen=True, kw_only=True):
    """A key, and the time that was for it."""

    key: str
    time_us: int


class RateDocument(Struct, frozen=True, kw_only=True):
    """A rate in force."""

    id: int
    source: str
    effective_us: int
    currency: str


class ExplanationDocument(Struct, frozen=True, kw_only=True):
    """Why one replica was paid at one instant; the span it lies in, `ended_us` null while it lasts."""

    replica: str
    cause: str
    phase: str | None
    tier: str | None
    why: str
    story: str
    began_us: int
    ended_us: int | None
    rate: RateDocument | None
    nusd_h: int = field(name="rate_nusd_h")
    span_nusd: int
    wake: str
    keys: tuple[ForWhom, ...] = field(name="for", default=())


class ExplanationsDocument(Struct, frozen=True, kw_only=True):
    """One explanation for each replica that lived then."""

    replicas: tuple[ExplanationDocument, ...]


class SideDocument(Struct, frozen=True, kw_only=True):
    """One of two periods."""

    period: PeriodDocument
    cost_nusd: int


class EffectDocument(Struct, frozen=True, kw_only=True):
    """How much one driver changed the cost of one model."""

    driver: str
    model: str
    nusd: int = field(name="change_nusd")


class ComparisonDocument(Struct, frozen=True, kw_only=True):
    """Two periods; the effects sum to the change. `known` is what the ledger covers."""

    this: SideDocument
    last: SideDocument
    known: PeriodDocument
    currency: str
    change_nusd: int
    by_driver_nusd: Mapping[str, int]
    effects: tuple[EffectDocument, ...]


def bill_document(bill: Bill) -> BillDocument:
    """Return a bill for JSON, without the spend limits."""
    return BillDocument(
        period=period_document(bill.period),
        as_of=timestamp(bill.as_of_us),
        by=bill.axes,
        lines=tuple(_line(bill, line) for line in bill.lines),
        totals=tuple(
            TotalDocument(currency=currency, cost_nusd=nusd, cost=decimal(nusd))
            for currency, nusd in sorted(bill.totals.items())
        ),
        figures=tuple(map(_figures, bill.figures)),
        events=convert(bill.events, tuple[EventDocument, ...], from_attributes=True),
    )


def explanations_document(found: list[Explanation]) -> ExplanationsDocument:
    """Return explanations for JSON."""
    return ExplanationsDocument(
        replicas=tuple(
            structs.replace(
                convert(one, ExplanationDocument, from_attributes=True),
                keys=tuple(ForWhom(key=key, time_us=us) for key, us in one.for_whom),
            )
            for one in found
        )
    )


def comparison_document(found: Comparison) -> ComparisonDocument:
    """Return a comparison for JSON."""
    return ComparisonDocument(
        this=SideDocument(period=period_document(found.this), cost_nusd=found.this_nusd),
        last=SideDocument(period=period_document(found.last), cost_nusd=found.last_nusd),
        known=period_document(found.known),
        currency=found.currency,
        change_nusd=found.this_nusd - found.last_nusd,
        by_driver_nusd=found.by_driver(),
        effects=convert(found.effects, tuple[EffectDocument, ...], from_attributes=True),
    )


def period_document(period: Period) -> PeriodDocument:
    """Return a period for JSON."""
    return PeriodDocument(begin=iso(period.from_us), end=iso(period.to_us))


def _line(bill: Bill, line: Line) -> BillLine:
    names = {str(axis): name for axis, name in zip(bill.axes, line.names, strict=True)}
    cost = decimal(line.nusd)
    found = BillLine(time_us=line.us, currency=line.currency, cost_nusd=line.nusd, cost=cost)
    return structs.replace(found, **names)


def _figures(figures: Figures) -> FiguresDocument:
    count = figures.count
    return structs.replace(
        convert(figures, FiguresDocument, from_attributes=True),
        per_million_tokens=MillionTokens(
            in_nusd=figures.nusd_per_m(count.tokens_in),
            out_nusd=figures.nusd_per_m(count.tokens_out),
            blended_nusd=figures.nusd_per_m(count.tokens_in + count.tokens_out),
        ),
    )
