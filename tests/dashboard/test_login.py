"""The login page of an admin listener for other machines, in a real browser and by the keyboard alone."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.e2e.program import Program, write_fleet
from tests.gateway.bridge_site import certificate
from tests.waiting import wait_until

from poorwill.tiers.proof import free_port

from .conftest import sound


def ask(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "poorwill", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Remote:
    """A fleet with a listener for other machines, and an operator's key."""

    program: Program
    url: str
    key: str

    def keys(self, *words: str) -> str:
        return ask("keys", *words, "--fleet", str(self.program.directory))

    def knows(self, key: str) -> bool:
        """It reads the keys once a second."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{self.url}status", headers=headers, verify=False).status_code == 200


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    fleet, port = tmp_path_factory.mktemp("remote"), free_port()
    pem = certificate(fleet)
    write_fleet(fleet, ladder='["cold"]')
    file = fleet / "fleet.toml"
    lines = f'listen = "127.0.0.1:{port}"\ncertificate = "{pem}"\nprivate_key = "{pem}"\n'
    file.write_text(file.read_text() + f"\n[gateway.remote_admin]\n{lines}")
    key = ask("keys", "add", "ann", "--operator", "--fleet", str(fleet))
    program = Program.start(fleet)
    yield Remote(program, f"https://localhost:{port}/", key)
    assert program.stop() == 0


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that trusts the certificate; what its console complains of fails the test."""
    context = browser.new_context(ignore_https_errors=True, locale="en-GB")
    context.set_default_timeout(15_000)
    said: list[str] = []
    context.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    context.on("weberror", lambda one: said.append(str(one.error)))
    yield context
    context.close()
    assert [one for one in said if "status of 401" not in one] == []


def log_in(context: BrowserContext, remote: Remote, key: str) -> Page:
    """Type a key where the page puts the cursor, and press Enter."""
    page = context.new_page()
    page.goto(remote.url)
    expect(page.get_by_label("Operator's key")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    return page


def test_a_key_opens_the_dashboard(context: BrowserContext, remote: Remote) -> None:
    page = log_in(context, remote, remote.key)
    page.locator("#replicas tr").first.wait_for()
    assert page.url == remote.url, "no key is in the address"
    (cookie,) = context.cookies()
    assert cookie["httpOnly"] and cookie["secure"] and cookie["sameSite"] == "Strict"
    assert page.evaluate("document.cookie") == "" and remote.key not in page.content()
    again = context.new_page()
    again.goto(remote.url)
    again.locator("#replicas tr").first.wait_for()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Operator's key")).to_be_focused()
    page.reload()
    expect(page.get_by_label("Operator's key")).to_be_visible()
    assert context.cookies() == []


def test_a_wrong_key_is_refused(context: BrowserContext, remote: Remote) -> None:
    page = log_in(context, remote, "no key at all")
    expect(page.get_by_role("alert")).to_have_text("That is no operator's key, or it is revoked or expired.")
    assert context.cookies() == []
    sound(page)
    page.get_by_label("Operator's key").fill(remote.key)
    page.keyboard.press("Enter")
    page.locator("#replicas tr").first.wait_for()


def test_an_operator_changes_something(context: BrowserContext, remote: Remote) -> None:
    page = log_in(context, remote, remote.key)
    page.locator("#replicas tr").first.wait_for()
    page.get_by_role("button", name="Wake toy").click()
    page.get_by_role("dialog").get_by_role("button", name="Wake").click()
    expect(page.locator("#replicas")).to_contain_text("ready", timeout=20_000)
    assert "operator ann" in (remote.program.directory / "serve.log").read_text()


def test_a_revoked_key_ends_its_session(context: BrowserContext, remote: Remote) -> None:
    key = remote.keys("add", "ben", "--operator")
    wait_until(lambda: remote.knows(key))
    page = log_in(context, remote, key)
    page.locator("#replicas tr").first.wait_for()
    remote.keys("revoke", "ben")
    expect(page.get_by_label("Operator's key")).to_be_visible(timeout=30_000)
