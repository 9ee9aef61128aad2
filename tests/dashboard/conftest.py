"""Debian's Chromium, and a fleet that served, failed and slept: the page as people see it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from tests.e2e.program import Program, marked_processes, write_fleet

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP rebound.test 127.0.0.1",
]
PICTURES = Path(__file__).parents[2] / "artefacts"
HOSTILE = "<img src=x onerror=hacked()>"
LONG = "some-team/a-model-with-a-name-as-long-as-people-give-them-today-8b-instruct-q4_k_m"
MORE = f"""
[models.slow]
engine = "toy"
options = {{ load_seconds = 3 }}
ladder = ["cold"]
gpu_memory = "24 GiB"

[models.broken]
engine = "command"
command = ["sh", "-c", "echo 'ERROR no weights {HOSTILE}' >&2; exit 1", "{{port}}"]
ladder = ["cold"]
wake_backoff_s = 300
gpus = 1

[models."{LONG}"]
engine = "toy"
ladder = ["cold"]

[[devices]]
index = 0
memory = "80 GiB"

[[devices]]
index = 1
memory = "80 GiB"

[spend]
model_day_usd = {{ "{LONG}" = "0.01" }}
"""
RATES = 'active_usd_h = "3.60"\nparked_usd_h = { cold = "0.02" }'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep these tests in one worker: they share a browser and a fleet."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, installed if it may be. Playwright's event loop runs meanwhile, so no longer than needed."""
    if not Path(CHROMIUM).exists():
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("Chromium is not installed; apt-get install chromium")
        line = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "install", "-y", "-q", "--no-install-recommends"]
        done = subprocess.run([*line, "chromium"], capture_output=True, text=True, timeout=1200)
        if done.returncode:
            pytest.skip(f"Chromium cannot be installed: {done.stderr[-200:]}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def fleet(directory: Path) -> None:
    """Write a fleet with a model that works, a slow one, a broken one and one with a long name."""
    write_fleet(directory, options="load_seconds = 0.1", commit_after_s=20, idle_s=600.0)
    text = (directory / "fleet.toml").read_text().replace('active_usd_h = "3.60"', RATES)
    (directory / "fleet.toml").write_text(text + MORE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The fleet, with some history; tests leave it as they found it, or say so."""
    directory = tmp_path_factory.mktemp("dashboard")
    fleet(directory)
    program = Program.start(directory)
    assert program.ask().status_code == 200
    assert program.operator("park").status_code == 200
    broken = {"model": "broken", "messages": []}
    assert program.ask(broken, headers={"user-agent": HOSTILE}).status_code == 503
    assert program.ask().status_code == 200
    yield program
    assert program.stop() == 0
    assert marked_processes(directory) == []


@pytest.fixture
def page(browser: Browser, served: Program) -> Iterator[Page]:
    """The page of the fleet, in a window of its own; an error in its script fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script("window.hacked = () => { document.title = 'hacked'; window.wasHacked = true; }")
    page.goto(f"http://{served.admin}/")
    page.locator("#replicas tr").first.wait_for()
    yield page
    assert errors == []
    assert not page.evaluate("window.wasHacked")
    page.unroute_all(behavior="ignoreErrors")  # an answer under way belongs to no other test
    context.close()


def sound(page: Page) -> None:
    """Assert that axe finds nothing serious in what is shown."""
    found = Axe().run(page).response["violations"]
    assert [
        (one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"])
        for one in found
        if one["impact"] in ("serious", "critical")
    ] == []


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page with the run's artefacts."""
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
