"""A customer's statement: what is charged, by when, and that it adds up as it is printed."""

import io
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.bill.statement import Statement, StatementLine, statement
from poorwill.bill.statement_page import as_page
from poorwill.cli.run import run
from poorwill.core.entries import Alive
from poorwill.core.settings import RateSettings, StatementSettings
from poorwill.ledger.dates import period, zone_of
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import connect_writer, migrate, reading
from poorwill.ledger.writing.entries import Applier

from .story import START, began, created, ended, request, span

S = 1_000_000
MONTH = period("2027-01")
CENT = 10**7
RATE = RateSettings(effective_us=0, active_nusd_h=3600 * CENT)
STORY = [
    created(),
    began(10 * S),
    span(10 * S, "wake.weights", wake="a.0.1", tier="frozen"),
    ended(20 * S, ok=False, served=("r1",)),
    span(20 * S, "parked.cold", tier="cold"),
    request(10 * S, None, 20 * S, key="ann", wake="a.0.1"),
    began(30 * S, wake="a.0.2"),
    span(30 * S, "wake.weights", wake="a.0.2", tier="frozen"),
    ended(35 * S, wake="a.0.2", served=("r2",)),
    span(35 * S, "serving"),
    request(30 * S, 35 * S, 45 * S, key="ann", wake="a.0.2", tokens=(1000, 100)),
    span(45 * S, "parked.cold", tier="cold"),
    Alive(at_us=MONTH.to_us),
]
FLEET = """
[models.a]
engine = "toy"

[statement]
issuer = \"\"\"
Example <Ltd>
1 High Street\"\"\"
due_days = 14
terms = "Pay to GB33BUKB20201555555555."
"""


@pytest.fixture
def ledger(path):
    db = connect_writer(path)
    migrate(db, path)
    db.execute("BEGIN")
    sync_rates(db, [RATE], now_us=START)
    Applier(db).apply(STORY)
    db.execute("COMMIT")
    db.close()
    return path


@pytest.mark.parametrize(("charged", "cents"), [(False, 5 + 10), (True, 10 + 5 + 10)])
async def test_a_failed_wake_costs_a_customer_nothing(ledger, charged, cents):
    terms = StatementSettings(charge_failed_wakes=charged)
    with reading(ledger) as db:
        found = statement(db, MONTH, "ann", terms=terms)
    assert found.nusd == cents * CENT
    assert f"Starts that failed are {'charged too' if charged else 'not charged'}." in " ".join(found.notes)


async def test_it_says_who_sends_it_and_when_it_is_due(ledger, tmp_path):
    (tmp_path / "fleet.toml").write_text(FLEET)
    where = ["bill", str(tmp_path), "--invoice", "ann", "--period", "2027-01"]
    for words, number, said in (
        (["--html"], "2027-01/ann", ["Example &lt;Ltd&gt;<br>1 High Street", "<dd>2027-02-15</dd>", "$0.15"]),
        (["--number", "R-7"], "R-7", ["From: Example \\<Ltd\\> 1 High Street", "Due: 2027-02-15"]),
    ):
        out = io.StringIO()
        assert await run([*where, *words], {}, io.StringIO(), out, io.StringIO()) == 0
        for one in (number, *said, "2027-01-01 until 2027-02-01, UTC", "Pay to GB33BUKB20201555555555."):
            assert one in out.getvalue()


async def test_a_month_not_over_has_no_due_date(ledger):
    terms = StatementSettings(due_days=0)
    with reading(ledger) as db:
        over = statement(db, MONTH, "ann", terms=terms)
        later = statement(db, period("2027-02"), "ann", terms=terms)
        local = statement(db, period("2027-01", zone_of("Asia/Tokyo")), "ann", terms=terms)
    assert (over.due, later.due, local.due) == ("2027-02-01", "", "2027-02-01")
    assert "Not final" in as_page(later) and "Nothing was used." in as_page(later)
    assert (over.number, local.number) == ("2027-01/ann", "2027-01/ann")


AMOUNTS = st.integers(0, 10**9) | st.integers(0, 10**13)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS), min_size=1, max_size=6))
def test_rows_and_columns_add_up_as_printed(amounts):
    found = Statement(
        key="ann",
        number="1",
        period=MONTH,
        known_us=MONTH.to_us,
        terms=StatementSettings(),
        currency="USD",
        lines=tuple(
            StatementLine(
                day=f"2027-01-{1 + number % 3:02d}",
                model=f"m{number % 4}",
                requests=1,
                tokens_in=1,
                tokens_out=1,
                serving_us=1,
                serving_nusd=serving,
                wake_us=1,
                wake_nusd=wake,
                hosted_nusd=hosted,
            )
            for number, (serving, wake, hosted) in enumerate(amounts)
        ),
    )
    page = as_page(found)
    *rows, _ = re.findall(r'<tr><th scope="row".*?</tr>', page)
    (total,) = money(re.findall(r"<tfoot>.*</tfoot>", page)[0])
    printed = [money(row) for row in rows]
    assert all(sum(parts) == whole for *parts, whole in printed)
    assert sum(whole for *_, whole in printed) == total
    assert sum(sum(money(line)) for line in re.findall(r"<li><span>.*?</li>", page)) == total
    assert abs(total - Decimal(found.nusd) / 10**9) < Decimal("0.01")


def money(text):
    return [Decimal(amount.replace(",", "")) for amount in re.findall(r"\$([\d,]+\.\d+)", text)]
