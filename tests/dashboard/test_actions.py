"""What the page does: wakes and parks, seen as they happen and found in the ledger; and who may not."""

import json
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.dashboard.conftest import LONG, picture, start
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
    bar = live.get_by_role("progressbar")
    first = int(bar.get_attribute("aria-valuenow") or 0)
    picture(page, "waking")
    expect(page.get_by_role("button", name="Park slow")).to_be_enabled()
    assert 0 <= first < 100
    assert operator_wakes(served.directory) == [("slow", 1)]
    page.get_by_role("button", name="Park slow").click()
    page.get_by_role("dialog").get_by_role("button", name="Park").click()
    expect(page.get_by_role("button", name="Wake slow")).to_be_enabled()
    expect(page.locator("#events")).to_contain_text("slow-0: parked cold")
    asked = [json.loads(line) for line in (served.directory / "serve.log").read_text().splitlines()]
    said = [one for one in asked if "an operator asked" in one.values()]
    assert [one["what"] for one in said][-2:] == ["wake", "park"] and said[-1]["by"].startswith("user ")


def test_a_limit_is_lifted_by_button(page: Page, served: Program) -> None:
    """For the rest of the module: a limit stays lifted until its window ends."""
    limit = f"model_day_usd.{LONG}"
    page.get_by_role("button", name=f"Wake {LONG}").click()
    page.get_by_role("dialog").get_by_role("button", name="Wake").click()
    expect(page.locator("#toast")).to_contain_text("the day's spend limit of model")
    page.get_by_role("button", name=f"Lift {limit}").click()
    expect(page.get_by_role("dialog")).to_contain_text("The ledger records who lifted it")
    picture(page, "lift")
    page.get_by_role("dialog").get_by_role("button", name="Lift").click()
    expect(page.locator("#limits")).to_contain_text("is lifted")
    expect(page.locator("#limits")).to_contain_text("it holds again in")
    (lifted,) = [text for kind, text in notes(served.directory) if kind == "spend_lifted"]
    assert f"by user {os.geteuid()} with Mozilla" in lifted
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


def test_a_server_that_is_gone_is_told(browser: Browser, tmp_path: Path) -> None:
    program = start(tmp_path)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{program.admin}/")
    page.locator("#replicas tr").first.wait_for()
    assert program.stop() == 0
    expect(page.get_by_role("alert")).to_contain_text("poorwill does not answer since")
    expect(page).to_have_title("gone · poorwill")
    picture(page, "gone")
    context.close()


def many(status: dict[str, object], models: int) -> dict[str, object]:
    [replica, *_] = status["replicas"]  # type: ignore[misc]
    names = [
        f"model-{number:03}-with-quite-a-long-name-as-people-give-them-{number}" for number in range(models)
    ]
    return {**status, "replicas": [{**replica, "model": name, "replica": f"{name}-0"} for name in names]}


@pytest.mark.parametrize("models", [0, 200])
def test_no_model_and_very_many(browser: Browser, served: Program, models: int) -> None:
    status = many(httpx2.get(f"http://{served.admin}/status").json(), models)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.route("**/status", lambda route: route.fulfill(json=status))
    page.goto(f"http://{served.admin}/")
    rows = page.locator("#replicas tr")
    if models:
        expect(rows).to_have_count(models)
        page.locator("#filter").fill("model-007")
        expect(rows).to_have_count(1)
        page.locator("#filter").fill("")
        expect(rows).to_have_count(models)
        assert busy_share(page) < 0.3
    else:
        expect(page.locator("#no-models")).to_have_text("fleet.toml names no model yet.")
    picture(page, f"models-{models}")
    context.close()


def test_an_open_page_rests(page: Page) -> None:
    assert busy_share(page) < 0.2  # it rests: no timer or animation keeps a core busy


def busy_share(page: Page, seconds: float = 5) -> float:
    """Return the share of the time for which the page's own thread is busy."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    before = busy()
    page.wait_for_timeout(seconds * 1000)  # the time that is measured
    return (busy() - before) / seconds
