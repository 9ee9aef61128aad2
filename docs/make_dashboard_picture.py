"""Makes the dashboard's pictures in docs/ from a real run, as Chromium shows it.

    ./dev shell python docs/make_dashboard_picture.py

Three toy engines that take seconds to start, as engines with large models do, are asked, frozen with CRIU and
thawed for two minutes. It needs CRIU (`poorwill doctor --install-criu`) and Debian's chromium.
"""

import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parent
FLEET = """\
[defaults]
engine = "toy"
ladder = ["frozen", "cold"]
wake_budget_s = 30

[models.llama-3-8b]
options = { load_seconds = 6, tokens_per_second = 10 }
policy = { name = "fixed", idle_s = 6, allow_short_idle = true }

[models.qwen-coder]
options = { load_seconds = 8, tokens_per_second = 6 }
policy = { name = "fixed", idle_s = 9, allow_short_idle = true }

[models.embed]
options = { load_seconds = 3 }
policy = { name = "fixed", idle_s = 12, allow_short_idle = true }

[[rates]]
active_usd_h = "3.80"
parked_usd_h = { frozen = "0.02", cold = "0.01" }
source = "example"
"""
ASKED = {
    "llama-3-8b": (0, 17, 20, 44, 47, 49, 72, 96, 99, 114),
    "qwen-coder": (4, 35, 39, 80, 108, 110),
    "embed": (10, 12, 58, 60, 63, 102),
}
"""When each model is asked, in seconds from the start."""
UNTIL_S = 118
SHOTS = (("dashboard", "light", "overview", 900), ("dashboard-dark", "dark", "wakes", 760))


def main() -> None:
    """Serve, ask, take the pictures."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "fleet.toml").write_text(FLEET)
        line = [sys.executable, "-m", "poorwill", "serve", directory, "--port", "0"]
        serve = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        try:
            assert serve.stdout is not None
            found = re.match(r"serving (http://\S+) \(admin (http://\S+)\)", serve.stdout.readline())
            assert found, "it did not say where it listens"
            timers = [
                threading.Timer(at, ask, (found[1], model)) for model, times in ASKED.items() for at in times
            ]
            for timer in timers:
                timer.start()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": 1280, "height": 900}, locale="en-GB")
                page.goto(found[2])
                page.wait_for_timeout(UNTIL_S * 1000)
                for name, scheme, view, height in SHOTS:
                    shoot(page, name, scheme, view, height)
                browser.close()
            for timer in timers:
                timer.join()
        finally:
            serve.terminate()
            serve.wait()


def ask(address: str, model: str) -> None:
    """Ask a model something."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "What is a poorwill?"}]})
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", body.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def shoot(page: Page, name: str, scheme: str, view: str, height: int) -> None:
    """Take a picture of a view that has painted everything."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 1280, "height": height})
    page.locator(f"nav a[href='#{view}']").click()
    page.wait_for_timeout(1500)
    page.screenshot(path=DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
