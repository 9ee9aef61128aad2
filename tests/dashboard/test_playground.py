"""The playground: a chat with a model, its wake and what the answer cost."""

import sqlite3

import httpx2
from playwright.sync_api import Page, expect
from tests.dashboard.conftest import HOSTILE, picture, sound
from tests.dashboard.test_views import opened
from tests.e2e.program import Program


def operator_rows(served: Program) -> list[tuple[str, str]]:
    db = sqlite3.connect(served.directory / "ledger.sqlite")
    try:
        return db.execute("SELECT model, outcome FROM request_rows WHERE key = 'operator'").fetchall()
    finally:
        db.close()


def asked_of_toy(served: Program) -> list[str]:
    """Rows of other models may still come from the tests before."""
    return [outcome for model, outcome in operator_rows(served) if model == "toy"]


def chat(page: Page, model: str, text: str) -> None:
    page.locator("#chat-model").select_option(model)
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def test_a_chat_wakes_a_model_and_tells_its_cost(page: Page, served: Program) -> None:
    opened(page, "chat")
    page.locator("#chat-model").select_option("slow")
    expect(page.locator("#chat-note")).to_contain_text("slow is parked: it is woken at $3.60 an hour")
    chat(page, "slow", HOSTILE)
    live = page.locator("#view-chat .live")
    expect(live).to_contain_text("slow is waking")
    expect(live).to_contain_text("1 request waits, asked for by operator")
    picture(page, "chat-waking")
    answer = page.locator(".said.theirs").last
    expect(answer.locator("small")).to_contain_text("its part of the wake; held", timeout=30_000)
    expect(answer.locator("small")).to_contain_text("tokens in")
    assert answer.locator("span").inner_text()
    expect(page.locator(".said.mine")).to_have_text(HOSTILE)
    picture(page, "chat")
    sound(page)
    assert ("slow", "ok") in operator_rows(served)
    assert served.operator("park", "slow").status_code == 200


def test_an_error_is_told(page: Page) -> None:
    opened(page, "chat")
    chat(page, "broken", "hello")
    expect(page.locator(".said.theirs .bad")).to_contain_text("broken")


def test_who_stops_a_chat_is_not_held(page: Page, served: Program) -> None:
    """The request leaves with the page, long before the model is awake."""
    opened(page, "chat")
    chat(page, "slow", "hello")
    expect(page.locator("#view-chat .live")).to_contain_text("1 request waits")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".said.theirs")).to_contain_text("Stopped.")
    expect(page.locator("#events")).to_contain_text("slow: 499 client_gone")
    assert served.operator("wake", "slow").status_code == 200
    assert served.operator("park", "slow").status_code == 200


def test_other_sites_cannot_chat(served: Program) -> None:
    before = asked_of_toy(served)
    body = {"model": "toy", "messages": []}
    for headers in ({"origin": "http://evil.test"}, {"sec-fetch-site": "cross-site"}):
        answer = httpx2.post(f"http://{served.admin}/chat", json=body, headers=headers)
        assert answer.status_code == 403
    assert asked_of_toy(served) == before
