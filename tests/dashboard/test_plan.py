"""The plan, made from the ledger of the fleet that is shown."""

from playwright.sync_api import Page, expect
from tests.dashboard.conftest import picture, sound
from tests.dashboard.test_views import opened
from tests.e2e.program import Program


def test_a_plan_is_drawn_from_the_ledger(page: Page, served: Program) -> None:
    opened(page, "plan")
    page.locator("#plan-model").select_option("toy")
    page.get_by_role("button", name="Plan from the ledger").click()
    planned = page.locator("#planned")
    expect(planned).to_contain_text("your idle_s is 600", timeout=90_000)
    expect(planned).to_contain_text("Idle gaps by length: a gap longer than")
    assert planned.get_by_role("img", name="Cost and waiting").locator("circle").count() > 2
    assert planned.get_by_role("row").count() > 3
    picture(page, "plan")
    sound(page)
    assert served.status()["state"] == "ready"


def test_no_requests_no_plan(page: Page) -> None:
    opened(page, "plan")
    page.locator("#plan-model").select_option("slow")
    page.get_by_role("button", name="Plan from the ledger").click()
    expect(page.locator("#planned .bad")).to_contain_text("slow", timeout=90_000)
