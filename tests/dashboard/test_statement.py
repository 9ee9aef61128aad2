"""A customer's statement as the browser shows and prints it."""

import re
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from tests.dashboard.conftest import HOSTILE, LONG, PICTURES

from poorwill.bill.statement import Statement, StatementLine
from poorwill.bill.statement_page import as_page
from poorwill.core.settings import StatementSettings
from poorwill.ledger.dates import period

MONTH = period("2026-10")


def line(day: int, model: str) -> StatementLine:
    return StatementLine(
        day=f"2026-10-{day:02d}",
        model=model,
        requests=1234 * day,
        tokens_in=1_234_567 * day,
        tokens_out=234_567 * day,
        serving_us=3_456_789_000 * day,
        serving_nusd=1_234_567_891 * day,
        wake_us=45_678_900 * day,
        wake_nusd=98_765_432 * day,
        hosted_nusd=7_654_321,
    )


def test_it_prints_on_one_page_and_fits_a_phone(browser: Browser, tmp_path: Path) -> None:
    """A month of eight models, used every day."""
    models = [LONG, HOSTILE, *(f"model-{number}" for number in range(6))]
    found = Statement(
        key=HOSTILE,
        number=f"2026-10/{HOSTILE}",
        period=MONTH,
        known_us=MONTH.to_us,
        terms=StatementSettings(
            issuer="Example Ltd\n1 High Street\nLondon\nVAT GB123456789",
            due_days=14,
            terms="Please pay to GB33BUKB20201555555555, naming the number of this statement.",
        ),
        currency="USD",
        lines=tuple(line(day, model) for day in range(1, 32) for model in models),
    )
    (tmp_path / "statement.html").write_text(as_page(found))
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.goto(f"file://{tmp_path}/statement.html")
    assert page.locator("img").count() == 0
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / "statement.png", full_page=True)
    sheets = re.findall(rb"/Type\s*/Page\b", page.pdf(path=PICTURES / "statement.pdf"))
    assert len(sheets) == 1
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 without its margins
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.emulate_media(media="screen")
    violations = Axe().run(page).response["violations"]
    assert [one["id"] for one in violations if one["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(path=PICTURES / "statement-360.png", full_page=True)
    page.close()
