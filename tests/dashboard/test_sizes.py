"""The page with nothing, with very much, and before and after there is a server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, Page, Route, expect
from tests.dashboard.conftest import HOSTILE, fleet, picture, sound
from tests.dashboard.test_views import opened
from tests.e2e.program import Program

RATE = '[[rates]]\nactive_usd_h = "3.60"\n'
MODEL = '[models.model-{:03}-with-quite-a-long-name-as-people-give-them]\nengine = "toy"\nladder = ["cold"]\n'
EVENT = {
    **dict.fromkeys(("request", "model", "replica", "key", "path", "bridge"), HOSTILE),
    **{"status": 200, "outcome": "ok", "arrived_us": 1, "leased_us": 9_000, "ended_us": 20_000},
}


def busy_share(page: Page, seconds: float = 4) -> float:
    """Return the share of the time for which the page's own thread is busy."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    before = busy()
    page.wait_for_timeout(seconds * 1000)  # the time that is measured
    return (busy() - before) / seconds


def test_an_open_page_rests(page: Page) -> None:
    assert busy_share(page) < 0.2  # it rests: no timer or animation keeps a core busy


@contextmanager
def running(directory: Path) -> Iterator[Program]:
    """Serve a directory until the context ends."""
    program = Program.start(directory)
    try:
        yield program
    finally:
        assert program.stop() == 0


def test_a_fleet_of_200_models(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(RATE + "".join(MODEL.format(number) for number in range(200)))
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    with running(tmp_path) as program:
        page.goto(f"http://{program.admin}/")
        rows = page.locator("#replicas tr")
        expect(rows).to_have_count(200)
        expect(page.locator(".ribbon canvas")).to_have_count(200)
        page.locator("#filter").fill("model-007")
        expect(rows).to_have_count(1)
        page.locator("#filter").fill("")
        expect(rows).to_have_count(200)
        assert busy_share(page) < 0.3
        picture(page, "models-200")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()


EMPTY = {
    "overview": ("#trends", "No cost yet."),
    "wakes": ("#waterfalls", "No wake has finished yet."),
    "costs": ("#days", "No cost yet: no rate is configured, or nothing has run."),
    "requests": ("#no-requests", "No request has been served yet."),
    "plan": ("#planned", "The planner replays the last 30 days of requests"),
}


def test_a_fleet_that_nobody_asked(browser: Browser, tmp_path: Path) -> None:
    """It is also seen before it answers."""
    (tmp_path / "fleet.toml").write_text(MODEL.format(1))
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    waiting: list[Route] = []
    page.route("**/status", lambda route: waiting.append(route))
    with running(tmp_path) as program:
        page.goto(f"http://{program.admin}/")
        expect(page.locator(".waits")).to_be_visible()
        expect(page.locator("#main")).to_be_hidden()
        picture(page, "loading")
        waiting[0].continue_()
        page.unroute_all(behavior="ignoreErrors")
        expect(page.locator(".waits")).to_be_hidden()
        for view, (place, text) in EMPTY.items():
            opened(page, view)
            expect(page.locator(place)).to_contain_text(text)
            picture(page, f"empty-{view}")
            sound(page)
        opened(page, "overview")
        page.locator("#filter").fill("nothing like it")
        expect(page.locator("#no-models")).to_have_text("No model has that in its name.")
        context.close()


def test_5000_events(browser: Browser, served: Program) -> None:
    """All at once; the page shows the last ones, and none of what they say runs."""
    events = [
        f"event: RequestEnded\ndata: {json.dumps({**EVENT, 'ended_us': at})}\n\n" for at in range(1, 5001)
    ]
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script("window.hacked = () => { window.wasHacked = true; }")
    stream = {"content_type": "text/event-stream", "body": "retry: 600000\n\n" + "".join(events)}
    page.route("**/events*", lambda route: route.fulfill(**stream))  # type: ignore[arg-type]
    stretches = [[at, at + 1, ("serving", "linger", "parked.cold")[at % 3], 1, 0] for at in range(5000)]
    ribbon = {"replica": "toy-0", "model": "toy", "stretches": stretches, "wakes": []}
    page.route(
        "**/ribbons*", lambda route: route.fulfill(json={"from_us": 0, "to_us": 5000, "rows": [ribbon]})
    )
    page.goto(f"http://{served.admin}/")
    expect(page.locator("#events li")).to_have_count(200)
    expect(page.locator("#events li").first).to_contain_text(HOSTILE)
    page.locator(".ribbon canvas").focus()
    page.keyboard.press("Home")
    expect(page.locator("#hover")).to_contain_text("toy: serving")
    assert busy_share(page) < 0.3
    assert not page.evaluate("window.wasHacked")
    context.close()


def test_the_past_outlives_a_restart(browser: Browser, tmp_path: Path) -> None:
    fleet(tmp_path)
    with running(tmp_path) as program:
        assert program.ask().status_code == 200
    with running(tmp_path) as program:
        before = httpx2.get(f"http://{program.admin}/history/wakes?last=9").json()
        page = browser.new_page()
        page.goto(f"http://{program.admin}/")
        expect(page.locator("#events")).to_contain_text("toy-0: ready after")
        expect(page.locator("#figures")).to_contain_text("useful of")
        page.locator(".ribbon", has_text="toy").locator("canvas").focus()
        page.keyboard.press("Home")
        expect(page.locator("#hover")).to_contain_text("toy: ")
        opened(page, "wakes")
        expect(page.locator("#waterfalls .wakefall")).to_have_count(len(before))
        opened(page, "overview")
    expect(page.get_by_role("alert")).to_contain_text("poorwill does not answer since")
    expect(page).to_have_title("gone · poorwill")
    picture(page, "gone")
    page.close()
