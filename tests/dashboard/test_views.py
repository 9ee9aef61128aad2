"""Every view of the dashboard with real data, in Chromium."""

import re

import pytest
from playwright.sync_api import Page, Route, expect
from tests.dashboard.conftest import HOSTILE, picture, sound
from tests.e2e.program import Program

PAST: dict[str, object] = dict.fromkeys(("request", "model", "key", "outcome", "status", "bridge"), HOSTILE)
PAST |= dict.fromkeys(("arrived_us", "leased_us", "first_byte_us", "ended_us", "tokens_in", "tokens_out"), 1)
VIEWS = ("overview", "wakes", "costs", "requests", "logs", "chat", "plan")


def opened(page: Page, view: str) -> None:
    page.locator(f"nav a[href='#{view}']").click()
    expect(page.locator(f"#view-{view}")).to_be_visible()


def row(page: Page, model: str):
    return page.locator("#replicas tr").filter(has=page.get_by_role("rowheader", name=model, exact=True))


def test_it_paints_before_it_asks(page: Page) -> None:
    """The first paint waits for no script's work and for no answer."""
    painted, asked = page.evaluate(
        "[performance.getEntriesByName('first-contentful-paint'), performance.getEntriesByType('resource')]"
        ".map(entries => entries[0].startTime)"
    )
    assert painted <= asked


def test_at_a_glance(page: Page) -> None:
    expect(row(page, "toy")).to_contain_text("ready for")
    expect(row(page, "toy")).to_contain_text("kept ready by the policy fixed; parks cold in")
    expect(row(page, "toy")).to_contain_text("$")
    expect(row(page, "broken")).to_have_class(re.compile("failing"))
    expect(row(page, "broken")).to_contain_text(f"no weights {HOSTILE}. Backing off")
    expect(page.locator("#figures")).to_contain_text("$14.40 / h if nothing slept")
    expect(page.locator("#figures .saved dd")).to_contain_text("$")
    expect(page).to_have_title(re.compile("1 failed"))
    assert "d92d20" in (page.locator("#icon").get_attribute("href") or "")
    expect(page.locator("#trends [role=img]")).to_have_count(4)
    expect(page.locator("#events")).to_contain_text(
        f"no weights {HOSTILE}"
    )  # it was before the page was opened
    picture(page, "overview")


def test_a_ribbon_tells_and_explains(page: Page) -> None:
    canvas = page.locator(".ribbon canvas").first
    canvas.focus()
    page.keyboard.press("End")
    expect(page.locator("#hover")).to_contain_text("toy: linger")
    last = canvas.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowLeft")
    assert canvas.get_attribute("aria-valuetext") != last
    assert canvas.get_attribute("aria-valuenow") == str(int(canvas.get_attribute("aria-valuemax") or 0) - 1)
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("kept ready by policy fixed")
    expect(page.get_by_role("dialog")).to_contain_text("$3.60 an hour: rate 1, for every replica")
    picture(page, "explain")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 10)
    expect(page.locator("#hover")).to_contain_text("toy: parked.cold")
    for hours, window in ((1, "1 h"), (168, "7 d")):
        with page.expect_response(lambda answer, hours=hours: f"hours={hours}" in answer.url):
            page.get_by_role("button", name=window).click()
        expect(page.get_by_role("button", name=window)).to_have_attribute("aria-pressed", "true")


def test_wakes_show_their_phases(page: Page) -> None:
    opened(page, "wakes")
    falls = page.locator("#waterfalls .wakefall")
    expect(falls.filter(has_text="toy")).to_have_count(2)
    expect(falls.filter(has_text="broken")).to_contain_text(HOSTILE)
    assert "weights" in (falls.first.locator(".track").get_attribute("aria-label") or "")
    page.locator("#wakes-of").select_option("toy")
    expect(falls).to_have_count(2)
    picture(page, "wakes")


def test_costs_by_day_and_their_change(page: Page) -> None:
    opened(page, "costs")
    expect(page.get_by_role("img", name="Cost of each day by cause").locator("rect").first).to_be_attached()
    page.get_by_text("as a table").click()
    expect(page.locator("#days tbody tr")).to_have_count(14)
    expect(page.locator("#days tbody tr").last).to_contain_text("$")
    page.get_by_role("button", name="Today and yesterday").click()
    expect(page.locator("#compared")).to_contain_text("more or fewer")
    picture(page, "costs")


def test_a_scale_of_requests_has_no_halves(page: Page) -> None:
    def five(route: Route) -> None:
        costs = route.fetch().json()
        costs["hours"] = [costs["hours"][-1] | {"requests": 5, "failed": 0}]
        route.fulfill(json=costs)

    page.route("**/history/costs", five)
    page.reload()
    opened(page, "costs")
    scale = page.get_by_role("img", name="Requests by hour").locator("text")
    expect(scale.nth(0)).to_have_text("0")
    expect(scale.nth(1)).to_have_text("5")  # 2.5 was called 3


def test_requests_without_their_text(page: Page) -> None:
    opened(page, "requests")
    rows = page.locator("#request-rows tr")
    expect(rows).to_have_count(3)
    page.locator("#request-filter").fill("broken")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("503 wake_failed")
    picture(page, "requests")


def test_a_log_is_followed(page: Page, served: Program) -> None:
    opened(page, "logs")
    log = page.locator("#log")
    expect(log).not_to_be_empty()
    path = served.directory / "logs" / "toy-0.log"
    with path.open("a") as file:
        file.write("\x1b[31mred\x1b[0m \x07\u202ebackwards <script>hacked()</script>\n")
    expect(log).to_contain_text("red backwards <script>hacked()</script>")
    assert not re.search("[\x00-\x08\x1b\u202e]", log.inner_text())
    picture(page, "logs")


def test_hostile_text_is_text(page: Page) -> None:
    """Whatever a name, an error or a remark says, it is shown and never run."""

    def hostile(route: Route) -> None:
        status = route.fetch().json()
        for replica in status["replicas"]:
            told = dict.fromkeys(("model", "replica", "last_error", "policy", "phase", "tier"), HOSTILE)
            replica |= {**told, "failures": 2, "notes": {HOSTILE: HOSTILE}}
        status |= {"ledger": HOSTILE, "bridges": [{"model": HOSTILE, "what": HOSTILE}]}
        route.fulfill(json=status)

    page.route("**/status", hostile)
    page.route("**/history/requests*", lambda route: route.fulfill(json=[PAST]))
    page.reload()
    expect(page.locator("#replicas th").first).to_have_text(HOSTILE)
    expect(page.locator("#health")).to_contain_text(HOSTILE)
    for view in VIEWS:
        opened(page, view)
        expect(page.locator("img")).to_have_count(0)
    opened(page, "requests")
    expect(page.locator("#request-rows")).to_contain_text(HOSTILE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for view in VIEWS:
        opened(page, view)
        page.wait_for_load_state("networkidle")
        if scheme == "dark":
            picture(page, f"{view}-dark")
        sound(page)


def test_what_is_empty_yet_is_sound(page: Page) -> None:
    for view in ("costs", "logs"):
        opened(page, view)
        page.wait_for_load_state("networkidle")
        page.locator("pre").evaluate_all("all => all.forEach(one => { one.textContent = ''; })")
        sound(page)


def test_nothing_sticks_out(page: Page) -> None:
    for view in VIEWS:
        opened(page, view)
        for width in (360, 768, 1100, 1280, 2200):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
            if view == "overview":
                tables = (
                    "[...document.querySelectorAll('.wide')].every(box => box.scrollWidth <= box.clientWidth)"
                )
                assert page.evaluate(tables)
                picture(page, f"overview-{width}")
