"""What the dashboard costs: `python bench/dashboard/run.py [--pages 50] [--seconds 10]`.

A real `poorwill serve` with toy engines and Debian's Chromium, all on loopback. It prints

- the page: bytes; the times to its first contentful and its largest contentful paint, in a new tab and
  reloaded, each the median of `--opens`, and the same of an empty page in turn with it: the floor of this
  browser on this machine, which no page can be below;
- at rest: what one open page takes of a core, its renderer's whole process, and what `serve` takes;
- crowd: what a warm request takes of the gateway's CPU and of a client's time, with and without `--pages`
  pages open, in alternating rounds of one run, and the ratio of the medians.

The crowd's pages are clients that ask as the page does when it is open: Chromium's own would take the cores
that are measured. Each follows `/events`, asks `/status` every 2.5 s and the overview's history every 20 s.
"""

import argparse
import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, sync_playwright

FLEET = """\
[fleet]
on_exit = "stop"
[[rates]]
active_usd_h = "3.60"
""" + "".join(
    f'[models.model-{number}]\nengine = "toy"\nladder = ["cold"]\n'
    f'policy = {{ name = "fixed", idle_s = 3600 }}\n'
    for number in range(6)
)
HISTORY = ("/history/ribbons?hours=24", "/history/costs", "/history/wakes?model=&last=200")
TICKS = os.sysconf("SC_CLK_TCK")
ASK = {"model": "model-0", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
RATE = 100
"""Warm requests a second in the crowd's rounds: far from what the gateway can do."""


@dataclass
class Served:
    """A running `poorwill serve`."""

    pid: int
    address: str
    admin: str

    def cpu_s(self) -> float:
        return cpu_s(self.pid)


def cpu_s(pid: int) -> float:
    """Return what a process has used of the CPU, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def served() -> Iterator[Served]:
    """Serve the fleet until the context ends."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "fleet.toml").write_text(FLEET)
        line = [sys.executable, "-m", "poorwill", "serve", directory, "--port", "0"]
        child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert child.stdout is not None
            found = re.match(r"serving (http://\S+) \(admin (http://\S+)\)", child.stdout.readline())
            assert found, "it did not say where it listens"
            yield Served(child.pid, found[1], found[2])
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()


def page_figures(fleet: Served, seconds: float, opens: int) -> None:
    """Print what Chromium finds of the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        floor, ours = [], []
        with empty_page() as empty:
            for _ in range(opens):
                floor.append(opened(browser, empty, "p"))
                ours.append(opened(browser, fleet.admin, "#trend-cost :is(svg, p)"))
        document = len(httpx2.get(fleet.admin).content)
        print(f"page: {document:,} B; with the overview's first answers {ours[-1].received:,} B")
        for name, first, largest in (
            ("in a new tab", "first", "largest"),
            ("reloaded", "first_again", "largest_again"),
        ):
            print(
                f"first paint {name}: {median(ours, first)}, an empty page's {median(floor, first)}; "
                f"largest paint {median(ours, largest)}"
            )
        page = browser.new_page()
        page.goto(fleet.admin)
        page.wait_for_timeout(5_000)
        shift = page.evaluate(
            "new Promise(done => { let sum = 0; new PerformanceObserver(list => { for (const one of "
            "list.getEntries()) sum += one.value; }).observe({type: 'layout-shift', buffered: true});"
            " setTimeout(() => done(sum), 500); })"
        )
        renderers = _renderers(os.getpid())
        before, ours = [cpu_s(pid) for pid in renderers], fleet.cpu_s()
        page.wait_for_timeout(seconds * 1_000)
        used = max(cpu_s(pid) - was for pid, was in zip(renderers, before, strict=True))
        print(f"layout shift while it loads: {shift:.3f}")
        print(
            f"at rest: {100 * used / seconds:.1f} % of a core for the page, "
            f"{100 * (fleet.cpu_s() - ours) / seconds:.1f} % for the whole of `serve`"
        )
        browser.close()


@contextmanager
def empty_page() -> Iterator[str]:
    """Serve a page with one word."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href='data:,'><p>word")

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


PAINTS = """new Promise(done => new PerformanceObserver(list => done([
  performance.getEntriesByName("first-contentful-paint")[0].startTime, list.getEntries().at(-1).startTime]))
  .observe({type: "largest-contentful-paint", buffered: true}))"""


@dataclass
class Opening:
    """What it took to open a page: paints in ms, in a new tab and of a reload."""

    first: float
    largest: float
    first_again: float
    largest_again: float
    received: int


def opened(browser: Browser, url: str, sign: str) -> Opening:
    """Open a page until a sign of it is there, and reload it."""
    page, bodies = browser.new_page(), []
    page.on("response", lambda answer: bodies.append(_size(answer)))

    def paints() -> tuple[float, float]:
        page.locator(sign).first.wait_for()
        page.wait_for_timeout(500)  # what it fetched is painted
        first, largest = page.evaluate(PAINTS)
        return first, largest

    page.goto(url)
    new, received = paints(), sum(bodies)
    page.reload()
    again = paints()
    page.close()
    return Opening(*new, *again, received)


def median(found: Sequence[Opening], what: str) -> str:
    """Return one figure's median."""
    return f"{statistics.median(getattr(one, what) for one in found):.0f} ms"


def _size(answer) -> int:
    if answer.url.endswith("/events") or "/events?" in answer.url:
        return 0
    return len(answer.body())


def _renderers(root: int) -> list[int]:
    """Return the renderer processes that descend from a process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:
                continue
    mine = {root}
    for _ in range(8):
        mine |= {pid for pid, parent in parents.items() if parent in mine}
    return [pid for pid in mine if b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def open_page(client: httpx2.AsyncClient, number: int, pages: int) -> None:
    """Ask what an open page asks, until cancelled."""

    async def follow() -> None:
        async with client.stream("GET", "/events?most=20", timeout=None) as events:
            async for _ in events.aiter_raw():
                pass

    async def every(seconds: float, *paths: str) -> None:
        await asyncio.sleep(seconds * number / pages)
        while True:
            for path in paths:
                (await client.get(path, timeout=60)).raise_for_status()
            await asyncio.sleep(seconds)

    await asyncio.gather(follow(), every(2.5, "/status"), every(20, *HISTORY))


async def requests(fleet: Served, seconds: float) -> tuple[float, float]:
    """Send warm requests at a fixed rate; return the gateway's CPU for one and a client's median, in ms."""
    took: list[float] = []
    async with httpx2.AsyncClient(base_url=fleet.address, trust_env=False) as client:

        async def one() -> None:
            began = time.perf_counter()
            (await client.post("/v1/chat/completions", json=ASK)).raise_for_status()
            took.append(time.perf_counter() - began)

        used, began = fleet.cpu_s(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(RATE * seconds)):
                await asyncio.sleep(max(began + number / RATE - time.perf_counter(), 0))
                group.create_task(one())
        return 1_000 * (fleet.cpu_s() - used) / len(took), 1_000 * statistics.median(took)


async def crowd(fleet: Served, pages: int, seconds: float, rounds: int) -> None:
    """Print what open pages cost warm requests."""
    alone: list[tuple[float, float]] = []
    among: list[tuple[float, float]] = []
    await requests(fleet, 1)
    limits = httpx2.Limits(max_connections=None, keepalive_expiry=1)  # the server closes idle ones after 5 s
    for _ in range(rounds):
        alone.append(await requests(fleet, seconds))
        async with httpx2.AsyncClient(base_url=fleet.admin, trust_env=False, limits=limits) as client:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(open_page(client, number, pages)) for number in range(pages)]
                await asyncio.sleep(3)
                among.append(await requests(fleet, seconds))
                for task in tasks:
                    task.cancel()
    cpu, took = ([statistics.median(row[at] for row in found) for found in (alone, among)] for at in (0, 1))
    print(
        f"{pages} pages, {RATE} warm requests/s: a client's median {took[0]:.2f} ms without them, "
        f"{took[1]:.2f} ms with them, ratio {took[1] / took[0]:.2f}; "
        f"they take {(cpu[1] - cpu[0]) * RATE / 10:.1f} % of a core"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--opens", type=int, default=10)
    options = parser.parse_args()
    with served() as fleet:
        httpx2.post(f"{fleet.address}/v1/chat/completions", json=ASK, timeout=60).raise_for_status()
        page_figures(fleet, options.seconds, options.opens)
        asyncio.run(crowd(fleet, options.pages, options.seconds, options.rounds))


if __name__ == "__main__":
    main()
