"""A provider's invoice against the ledger."""

import io
import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.bill.invoices.causes import Reason
from poorwill.bill.invoices.reading import Charge, read_invoice
from poorwill.bill.invoices.reconcile import as_text, reconcile
from poorwill.cli.run import run
from poorwill.core.entries import Alive, ReplicaEnded
from poorwill.core.errors import RequestFault
from poorwill.core.money import rounded
from poorwill.core.problems import ConfigFault
from poorwill.core.settings import RateSettings
from poorwill.core.words import PARKED_CAUSES, Tier
from poorwill.ledger.costs.items import items
from poorwill.ledger.dates import Period

from .lives import HOUR, rates, stories
from .story import START, created, span, write
from .test_pricing import everything, filled

S = 1_000_000
DAY = 24 * HOUR
DOLLAR = 10**9
RATE = RateSettings(effective_us=0, active_nusd_h=3_600 * DOLLAR)
"""A dollar a second."""
MIDNIGHT = 16 * HOUR
"""From 08:00 on."""


def charge(nusd, *, resource="a.0", begin=0, end=MIDNIGHT, us=None, half_unit=5_000_000):
    return Charge(
        resource=resource,
        from_us=START + begin,
        to_us=START + end,
        nusd=nusd,
        half_unit_nusd=half_unit,
        us=us,
        currency="USD",
    )


STORY = [
    created(),
    span(10 * S, "serving"),
    span(105 * S, "parked.cold", tier="cold"),
    span(HOUR, "serving"),
    span(HOUR + 70 * S, "unobserved"),
    span(HOUR + 85 * S, "parked.cold", tier="cold"),
    span(DAY, "parked.cold", tier="cold"),
]
"""Two stretches, of 95 s and of 85 s, 15 s of it unobserved: 180 dollars."""


def explained(*charges, names=None, rate=RATE, period=None):
    with filled([STORY], [rate]) as db:
        found = reconcile(db, charges, names=names or {}, period=period)
    assert sum(found.reasons().values()) == found.invoice_nusd - found.ledger_nusd
    assert as_text(found)
    return {reason: nusd / DOLLAR for reason, nusd in found.reasons().items()}


def test_an_invoice_that_agrees_has_no_residual():
    assert explained(charge(180 * DOLLAR)) == {}


def test_rounding_is_named():
    assert explained(charge(180 * DOLLAR + 4_000_000)) == {Reason.ROUNDING: 0.004}


def test_an_increment_is_named():
    # 95 s and 85 s are two minutes each
    assert explained(charge(240 * DOLLAR, half_unit=50_000)) == {Reason.INCREMENT: 60.0}


def test_two_fitting_causes_are_unexplained():
    # 100 s and 90 s in the ledger; 90 s would be 100 s at 20 s each
    rate = RateSettings(effective_us=0, active_nusd_h=3_600 * DOLLAR, increment_us=10 * S)
    assert explained(charge(600 * DOLLAR, half_unit=1), rate=rate) == {Reason.UNEXPLAINED: 410.0}
    with filled([STORY], [rate]) as db:
        (match,) = reconcile(db, [charge(600 * DOLLAR)], names={}).matches
    assert "billing increment of 5m or minimum charge of 5m" in match.parts[0].detail


def test_unobserved_time_is_named():
    assert explained(charge(165 * DOLLAR, half_unit=50_000)) == {Reason.UNOBSERVED: -15.0}


def test_price_is_told_from_time():
    assert explained(charge(360 * DOLLAR, us=180 * S)) == {Reason.PRICE: 180.0}
    assert explained(charge(200 * DOLLAR, us=200 * S)) == {Reason.TIME: 20.0}


def test_what_fits_nothing_is_unexplained():
    assert explained(charge(777 * DOLLAR)) == {Reason.UNEXPLAINED: 597.0}


def test_orphans_and_gaps_are_told_apart():
    found = explained(
        charge(180 * DOLLAR, end=2 * HOUR),
        charge(5 * DOLLAR, resource="vm-9"),
        period=Period(from_us=START, to_us=START + DAY),
    )
    assert found == {Reason.ORPHAN: 5.0}
    assert explained(charge(5 * DOLLAR, resource="vm-9")) == {
        Reason.ORPHAN: 5.0,
        Reason.NOT_INVOICED: -180.0,
    }


def test_provider_names_are_mapped():
    assert explained(charge(180 * DOLLAR, resource="vm-9"), names={"vm-9": "a.0"}) == {}
    assert explained(charge(180 * DOLLAR, resource="a")) == {}


def test_an_unknown_own_name_is_refused():
    with pytest.raises(RequestFault, match="no replica or model c"):
        explained(charge(180 * DOLLAR, resource="vm-9"), names={"vm-9": "c"})


def test_a_model_with_an_orphan_still_goes_by_its_name():
    stray = [created(0, "a.0:orphan-7", "a"), span(0, "orphan", replica="a.0:orphan-7")]
    end = ReplicaEnded(replica="a.0:orphan-7", at_us=START + 1)
    with filled([[*STORY, *stray, end]], [RATE]) as db:
        found = reconcile(db, [charge(180 * DOLLAR, resource="a")], names={})
    assert found.matches[0].replica == "a.0" and not found.matches[0].parts


def test_many_lines_that_match_are_one_line():
    with filled([STORY], [RATE]) as db:
        charges = [charge(0, begin=2 * HOUR + n * 60 * S, end=2 * HOUR + (n + 1) * 60 * S) for n in range(40)]
        charges.append(charge(7 * DOLLAR, begin=3 * HOUR, end=4 * HOUR))
        lines = as_text(reconcile(db, charges, names={}))
    assert [line.split()[:2] for line in lines if line.startswith("4")] == [["40", "lines"]]
    assert sum("unexplained" in line for line in lines) == 2, "the line that differs, and the sum"


def test_an_invoice_in_another_currency_is_refused():
    with pytest.raises(RequestFault, match="the invoice is in USD, the ledger in EUR"):
        explained(charge(180 * DOLLAR), rate=replace(RATE, currency="EUR"))


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    stories(),
    rates(),
    st.lists(
        st.tuples(
            st.sampled_from(["a.0", "a", "b.0", "vm-9"]),
            st.integers(0, 100 * HOUR),
            st.integers(1, 100 * HOUR),
            st.integers(-(10**12), 10**12),
            st.one_of(st.none(), st.integers(0, 100 * HOUR)),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_causes_sum_to_the_residual(batches, configured, given_rows):
    charges = [
        charge(nusd, resource=name, begin=begin, end=begin + length, us=us)
        for name, begin, length, nusd, us in given_rows
    ]
    with filled(batches, configured) as db:
        found = reconcile(db, charges, names={}, period=everything(batches))
    for match in found.matches:
        assert sum(part.nusd for part in match.parts) == match.residual_nusd
    assert sum(found.reasons().values()) == found.invoice_nusd - found.ledger_nusd


def test_a_simple_invoice_and_a_focus_one_are_read_alike():
    simple = read_invoice('Resource,Date,Amount\na.0,2027-01-15,"1,234.50"\n', source="x")
    focus = read_invoice(
        "ResourceId,ChargePeriodStart,ChargePeriodEnd,BilledCost,BillingCurrency,ConsumedQuantity,"
        "ConsumedUnit\na.0,2027-01-15T00:00:00Z,2027-01-16T00:00:00Z,1234.5,USD,2,Hours\n",
        source="x",
    )
    for (row,), places in ((simple, 2), (focus, 2)):
        assert (row.resource, row.nusd, row.to_us - row.from_us) == ("a.0", 1_234_500_000_000, DAY)
        assert row.half_unit_nusd == 10**9 // 2 // 10**places
    assert (simple[0].us, focus[0].us) == (None, 2 * HOUR)


def test_bad_rows_are_told_with_their_line():
    text = (
        "resource,from,to,amount\na.0,soon,,1\na.0,2027-01-15,,many\n"
        "a.0,2027-01-15,2027-01-14,1\na.0,2027-01-15,,1e999\n"
    )
    with pytest.raises(ConfigFault) as told:
        read_invoice(text, source="invoice.csv")
    assert [problem.line for problem in told.value.problems] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resource,from,amount\n",
        "who,when\na,b\n",
        "resource,from,amount,currency\na,2027-01-15,1,USD\na,2027-01-15,1,EUR\n",
    ],
)
def test_an_invoice_that_says_nothing_usable_is_refused(text):
    with pytest.raises(ConfigFault):
        read_invoice(text, source="invoice.csv")


async def test_an_open_question_exits_with_1(tmp_path, path):
    write(path, STORY)
    invoice = tmp_path / "invoice.csv"
    invoice.write_text("resource,from,to,amount\nvm-9,2027-01-15,2027-01-16,1.00\n")
    out = io.StringIO()
    words = ["bill", "--ledger", path, "--reconcile", str(invoice), "--json"]
    assert await run(words, {}, io.StringIO(), out, io.StringIO()) == 1
    assert json.loads(out.getvalue())["reasons_nusd"] == {str(Reason.ORPHAN): 10**9}


# -- planted errors: a month of a replica, invoiced by day or by month, with hours or without, in any zone


@dataclass(frozen=True, kw_only=True)
class Form:
    """How an invoice is written."""

    daily: bool
    hours: bool
    zone_h: int


@st.composite
def histories(draw):
    """Some days with random stretches of work; a rate with parked time that costs something too."""
    rng = draw(st.randoms(use_true_random=False))
    entries, at = [created()], 0
    for _ in range(rng.randrange(4, 40)):
        at += rng.randrange(60 * S, 5 * HOUR)
        entries.append(span(at, rng.choice(["serving", "unobserved", "linger"])))
        at += rng.randrange(S, 3 * HOUR)
        entries.append(span(at, "parked.cold", tier="cold"))
    entries.append(Alive(at_us=START + at + DAY))
    rate = RateSettings(
        effective_us=0,
        active_nusd_h=rng.randrange(DOLLAR, 9 * DOLLAR),
        parked_nusd_h={Tier.COLD: rng.choice([0, DOLLAR // 100])},
    )
    return entries, rate, at + DAY


def invoice_of(db, length, form):
    """Return what the ledger has as the charges of an honest invoice in this form, not yet in cents."""
    step = DAY if form.daily else length
    first = -(form.zone_h % 24) * HOUR
    starts = range(first, length, step) if form.daily else [0]
    charges = []
    for begin in starts:
        period = Period(from_us=START + max(begin, 0), to_us=START + min(begin + step, length))
        found = items(db, period)
        us = sum(item.us for item in found if item.cause not in PARKED_CAUSES)
        quantity = rounded(us * 10**6, HOUR)  # hours with six decimals
        charges.append(
            Charge(
                resource="a.0",
                from_us=period.from_us,
                to_us=period.to_us,
                nusd=sum(item.nusd for item in found),
                half_unit_nusd=5_000_000,
                us=quantity * HOUR // 10**6 if form.hours else None,
                half_unit_us=HOUR // (2 * 10**6),
                currency="USD",
            )
        )
    return charges


def in_cents(charges):
    return [replace(one, nusd=rounded(one.nusd, 10_000_000) * 10_000_000) for one in charges]


def plant(db, charges, kind, price, rng):
    """Change an invoice in one known way; return it and the reasons that are right."""
    number = rng.randrange(len(charges))
    one = charges[number]
    if kind == "price":
        factor = rng.choice([90, 105, 120])
        return [replace(c, nusd=c.nusd * factor // 100) for c in charges], {Reason.PRICE}
    if kind == "time":
        us = rng.randrange(HOUR // 4, 2 * HOUR)
        more = replace(one, nusd=one.nusd + us * price // HOUR, us=None if one.us is None else one.us + us)
        return [*charges[:number], more, *charges[number + 1 :]], {Reason.TIME}
    if kind == "missing":
        return [*charges[:number], *charges[number + 1 :]], {Reason.NOT_INVOICED}
    if kind == "orphan":
        return [*charges, replace(one, resource="vm-9")], {Reason.ORPHAN}
    if kind == "tax":
        tax = replace(one, resource="", name="Tax", nusd=one.nusd // 5)
        return [*charges, tax], {Reason.OTHER}
    if kind == "extra":
        fee = replace(one, nusd=rng.randrange(DOLLAR, 30 * DOLLAR), us=rng.choice([None, 0]))
        return [*charges, fee], set()
    changed = []
    for charge in charges:
        found = items(db, Period(from_us=charge.from_us, to_us=charge.to_us))
        lost = [item for item in found if item.cause == "unobserved"]
        nusd, us = sum(item.nusd for item in lost), sum(item.us for item in lost)
        changed.append(
            replace(charge, nusd=charge.nusd - nusd, us=None if charge.us is None else charge.us - us)
        )
    return changed, {Reason.UNOBSERVED}


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    histories(),
    st.builds(Form, daily=st.booleans(), hours=st.booleans(), zone_h=st.integers(-12, 12)),
    st.sampled_from(["price", "time", "missing", "orphan", "tax", "extra", "unobserved"]),
    st.randoms(use_true_random=False),
)
def test_a_planted_error_is_named_or_unexplained(history, form, kind, rng):
    entries, rate, length = history
    with filled([entries], [rate]) as db:
        honest = invoice_of(db, length, form)
        period = Period(from_us=START, to_us=START + length)
        assert reconcile(db, in_cents(honest), names={}, period=period).reasons().keys() <= {Reason.ROUNDING}
        charges, right = plant(db, honest, kind, rate.active_nusd_h, rng)
        if not charges:
            return
        found = reconcile(db, in_cents(charges), names={}, period=period)
    wrong = found.reasons().keys() - right - {Reason.UNEXPLAINED, Reason.ROUNDING}
    assert not wrong, found.reasons()
    assert sum(found.reasons().values()) == found.invoice_nusd - found.ledger_nusd
    for match in found.matches:
        row = max(abs(match.invoice_nusd or 0), abs(match.ledger_nusd or 0))
        assert all(abs(part.nusd) <= row for part in match.parts)
    if kind in ("missing", "orphan", "tax"):
        assert Reason.UNEXPLAINED not in found.reasons()
    if kind == "time" and form.hours:
        assert Reason.UNEXPLAINED not in found.reasons(), found.matches


def test_overlapping_charges_count_the_ledger_once():
    both = explained(charge(180 * DOLLAR, end=DAY), charge(0, begin=HOUR, end=MIDNIGHT))
    assert both == {}
