"""What the page does besides: pulls a model, and shows prompts for as long as a key of fleet.toml says so."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.dashboard.conftest import HOSTILE, picture, sound
from tests.dashboard.test_views import opened
from tests.e2e.program import Program, write_fleet
from tests.hub.fake_hub import FakeHub, serving

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    """A hub whose one model stops half way until a test lets it go on."""
    content = os.urandom(2**20) * 24
    with serving(
        FakeHub(files={"small-Q4_K_M.gguf": content}, cut_after=12 * 2**20, cuts=1, stall=True)
    ) as hub:
        yield hub


@pytest.fixture(scope="module")
def capturing(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[Program]:
    directory = write_fleet(tmp_path_factory.mktemp("capturing"))
    path = directory / "fleet.toml"
    path.write_text(path.read_text().replace("[models.toy]", "[models.toy]\ncapture_until = 2099-01-01"))
    cache = str(directory / "cache")
    program = Program.start(directory, HF_ENDPOINT=hub.url, HF_HUB_CACHE=cache, HF_HUB_OFFLINE="0")
    asked = {"model": "toy", "messages": [{"role": "user", "content": f"a secret \u202e {HOSTILE}"}]}
    assert program.ask(asked, headers={"user-agent": HOSTILE}).status_code == 200
    yield program
    assert program.stop() == 0


@pytest.fixture
def shown(browser: Browser, capturing: Program) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.add_init_script("window.hacked = () => { window.wasHacked = true; }")
    page.goto(f"http://{capturing.admin}/")
    page.locator("#replicas tr").first.wait_for()
    yield page
    assert not page.evaluate("window.wasHacked")
    context.close()


def asked_of(program: Program) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in (program.directory / "serve.log").read_text().splitlines()]
    return [line for line in lines if line["message"] == "an operator asked"]


def test_a_model_is_pulled(shown: Page, capturing: Program, hub: FakeHub) -> None:
    shown.get_by_role("button", name="Pull a model").click()
    shown.get_by_label("Name").fill("nothing")
    shown.get_by_role("dialog").get_by_role("button", name="Pull").click()
    expect(shown.locator("#toast")).to_contain_text("there is no model 'nothing'")
    shown.get_by_role("button", name="Pull a model").click()
    shown.get_by_label("Name").fill("hf:org/name:Q4_K_M")
    shown.keyboard.press("Enter")
    row = shown.locator(".pull")
    expect(row).to_contain_text(" of 25 MB", timeout=30_000)
    picture(shown, "pull")
    hub.resume.set()
    expect(row).to_contain_text("on disk: ", timeout=60_000)
    [pull] = httpx2.get(f"http://{capturing.admin}/status").json()["pulls"]
    assert Path(pull["path"]).stat().st_size == 24 * 2**20 and pull["by"].startswith("user ")
    assert [line["what"] for line in asked_of(capturing)].count("pull") == 2


def test_other_sites_pull_nothing(capturing: Program) -> None:
    for method in ("POST", "DELETE"):
        for headers in ({"origin": "http://evil.test"}, {"sec-fetch-site": "cross-site"}):
            url = f"http://{capturing.admin}/pulls/hf:org/other"
            assert httpx2.request(method, url, headers=headers).status_code == 403
    pulls = httpx2.get(f"http://{capturing.admin}/status").json()["pulls"]
    assert all("other" not in pull["name"] for pull in pulls)


def test_prompts_are_shown_and_marked(shown: Page, capturing: Program) -> None:
    expect(shown.locator("#captures")).to_contain_text("Prompts are kept. The text of requests to toy")
    opened(shown, "requests")
    expect(shown.locator("#captures")).to_be_visible()
    shown.get_by_role("button", name="request ").first.click()
    dialog = shown.get_by_role("dialog")
    expect(dialog).to_contain_text("/v1/chat/completions")
    expect(dialog).to_contain_text("serving")
    dialog.get_by_role("button", name="Show the prompt").click()
    expect(dialog).to_contain_text("a secret")
    expect(dialog).to_contain_text(HOSTILE)
    assert "\u202e" not in dialog.inner_text()
    sound(shown)
    picture(shown, "prompt")
    assert asked_of(capturing)[-1]["what"] == "read a prompt"
    for path in (*capturing.directory.glob("ledger*"), capturing.directory / "serve.log"):
        assert b"a secret" not in path.read_bytes(), path


def test_a_reload_ends_it(shown: Page, capturing: Program) -> None:
    path = capturing.directory / "fleet.toml"
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if "capture_until" not in line))
    assert httpx2.post(f"http://{capturing.admin}/reload").status_code == 200
    expect(shown.locator("#captures")).to_be_empty()
    [request] = httpx2.get(f"http://{capturing.admin}/history/requests").json()
    answer = httpx2.get(f"http://{capturing.admin}/prompts/{request['request']}")
    assert answer.status_code == 400 and "is not kept" in answer.text
