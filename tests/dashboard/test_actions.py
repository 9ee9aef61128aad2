"""What the page does: wakes and parks, seen as they happen and found in the ledger; and who may not."""

import json
import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, Page, Route, expect
from tests.dashboard.conftest import HOSTILE, LONG, picture
from tests.dashboard.test_views import row
from tests.e2e.program import Program, notes


def operator_wakes(directory: Path) -> list[tuple[str, int]]:
    db = sqlite3.connect(directory / "ledger.sqlite")
    try:
        return db.execute(
            "SELECT l.model, w.ok FROM wakes w JOIN lives l ON l.id = w.life WHERE w.asked_by = 'operator'"
        ).fetchall()
    finally:
        db.close()


def test_wake_and_park_by_button(page: Page, served: Program) -> None:
    page.get_by_role("button", name="Wake slow").click()
    expect(page.get_by_role("dialog")).to_contain_text("$3.60 an hour")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert operator_wakes(served.directory) == []
    page.get_by_role("button", name="Wake slow").click()
    page.get_by_role("dialog").get_by_role("button", name="Wake").click()
    live = page.locator(".live:visible").first
    expect(live).to_contain_text("slow is waking: weights")
    expect(live).to_contain_text("left of the budget")
    expect(row(page, "slow")).to_contain_text(re.compile("waking from cold: weights.*ready in about"))
    bar = live.get_by_role("progressbar")
    first = int(bar.get_attribute("aria-valuenow") or 0)
    devices = page.locator("#devices [role=img]")
    expect(devices.first).to_have_attribute(
        "aria-label", re.compile("^25.8 GB given to replicas, .* of 85.9 GB$")
    )
    picture(page, "waking")
    moves = "getComputedStyle(document.querySelector('.live .track i')).transitionDuration"
    assert page.evaluate(moves) == "0.9s"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moves) == "0s"
    expect(page.get_by_role("button", name="Park slow")).to_be_enabled()
    assert 0 <= first < 100
    assert operator_wakes(served.directory) == [("slow", 1)]
    page.get_by_role("button", name="Park slow").click()
    page.get_by_role("dialog").get_by_role("button", name="Park").click()
    expect(page.get_by_role("button", name="Wake slow")).to_be_enabled()
    expect(page.locator("#events")).to_contain_text("slow-0: parked cold")
    ribbon = page.locator(".ribbon", has_text="slow").locator("canvas")
    expect(ribbon).not_to_have_attribute(
        "aria-valuemax", "0", timeout=8_000
    )  # it had one span when it was opened
    asked = [json.loads(line) for line in (served.directory / "serve.log").read_text().splitlines()]
    said = [one for one in asked if "an operator asked" in one.values()]
    assert [one["what"] for one in said][-2:] == ["wake", "park"] and said[-1]["by"].startswith("user ")


FILTERED = """texts => { for (const text of texts) {
  const box = document.getElementById("filter"); box.value = text; box.dispatchEvent(new Event("input"));
} }"""


def test_the_keyboard_does_it_too(page: Page, served: Program) -> None:
    before = operator_wakes(served.directory)
    button = page.get_by_role("button", name="Wake slow")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Wake")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    assert operator_wakes(served.directory) == before


def test_focus_comes_back_to_a_row_drawn_anew(page: Page) -> None:
    button = page.get_by_role("button", name="Wake slow")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    filtered(page, "nothing is called so", "")
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    filtered(page, "slow")
    expect(button).to_be_focused()


def filtered(page: Page, *texts: str) -> None:
    """As while somebody is elsewhere on the page."""
    page.evaluate(FILTERED, list(texts))


def test_a_limit_is_lifted_by_button(page: Page, served: Program) -> None:
    """For the rest of the module: a limit stays lifted until its window ends."""
    limit = f"model_day_usd.{LONG}"
    page.get_by_role("button", name=f"Wake {LONG}").click()
    page.get_by_role("dialog").get_by_role("button", name="Wake").click()
    expect(page.locator("#toast")).to_contain_text("the day's spend limit of model")
    page.get_by_role("button", name=f"Lift it: {limit}").click()
    expect(page.get_by_role("dialog")).to_contain_text("The ledger records who lifted it")
    picture(page, "lift")
    page.context.set_extra_http_headers({"user-agent": HOSTILE})
    page.get_by_role("dialog").get_by_role("button", name="Lift").click()
    expect(page.locator("#events")).to_contain_text(f"by user {os.geteuid()} with {HOSTILE}")
    expect(page.locator("#limits")).to_contain_text("is lifted")
    expect(page.locator("#limits")).to_contain_text("it holds again in")
    (lifted,) = [text for kind, text in notes(served.directory) if kind == "spend_lifted"]
    assert f"by user {os.geteuid()} with {HOSTILE}" in lifted
    page.get_by_role("button", name=f"Wake {LONG}").click()
    page.get_by_role("dialog").get_by_role("button", name="Wake").click()
    expect(page.locator("#toast")).to_have_text(f"{LONG}: ready")
    assert served.operator("park", quote(LONG)).status_code == 200


def test_a_reload_by_button(page: Page, served: Program) -> None:
    def reload() -> None:
        page.get_by_role("button", name="Reload fleet.toml").click()
        page.get_by_role("dialog").get_by_role("button", name="Reload").click()

    path = served.directory / "fleet.toml"
    text = path.read_text()
    reload()
    expect(page.locator("#toast")).to_have_text("Nothing has changed.")
    path.write_text(text.replace("wake_backoff_s = 300", "wake_backoff_s = -1"))
    reload()
    expect(page.locator("#configuration")).to_contain_text("fleet.toml was refused, and nothing was changed")
    path.write_text(text.replace("wake_backoff_s = 300", "wake_backoff_s = 301"))
    reload()
    expect(page.locator("#toast")).to_contain_text("broken")
    expect(page.locator("#configuration")).to_be_empty()


ATTACK = """<form method=post action="http://{admin}/models/slow/wake"></form>
<script>fetch("http://{admin}/models/slow/wake", {{method: "POST", mode: "no-cors"}})
  .finally(() => document.forms[0].submit())</script>"""


def test_another_site_changes_nothing(browser: Browser, served: Program) -> None:
    before = operator_wakes(served.directory)
    context = browser.new_context()
    page = context.new_page()

    def evil(route: Route) -> None:
        route.fulfill(body=ATTACK.format(admin=served.admin), content_type="text/html")

    page.route("http://evil.test/", evil)
    with page.expect_response(lambda answer: answer.status == 403):
        page.goto("http://evil.test/")
    page.wait_for_url(f"http://{served.admin}/**")
    expect(page.locator("body")).to_contain_text("takes no requests from web pages of http://evil.test")
    context.close()
    assert operator_wakes(served.directory) == before


def test_a_rebound_name_sees_nothing(browser: Browser, served: Program) -> None:
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(f"http://rebound.test:{served.admin.rpartition(':')[2]}/status")
    assert answer is not None and answer.status == 403
    assert "rebound.test" in answer.text() and "replicas" not in answer.text()
    context.close()
