"""Makes docs/dashboard.png from a real run: the demo's fleet, served, as Chromium shows it.

    ./dev shell python docs/make_dashboard_picture.py

It takes two minutes, and needs Debian's chromium.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

OUT = Path(__file__).with_name("dashboard.png")
POORWILL = [sys.executable, "-m", "poorwill"]


def main() -> None:
    """Run the demo, serve what it leaves, take the picture."""
    with tempfile.TemporaryDirectory() as fleet:
        subprocess.run([*POORWILL, "demo", "--dir", fleet], check=False)  # a busy machine may fail a request
        serve = subprocess.Popen(
            [*POORWILL, "serve", fleet, "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert serve.stdout is not None
            found = re.search(r"admin (http://\S+)\)", serve.stdout.readline())
            assert found, "it did not say where it listens"
            picture(found[1])
        finally:
            serve.terminate()
            serve.wait()


def picture(address: str) -> None:
    """Take the picture of a page that has painted everything."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 600}, locale="en-GB")
        page.goto(address)
        page.locator(".ribbon canvas").first.wait_for()
        page.locator("#replicas tr").first.wait_for()
        page.wait_for_timeout(1500)  # the ribbons are painted and the figures are there
        page.screenshot(path=OUT)
        browser.close()


if __name__ == "__main__":
    main()
