"""Crowds at one gateway: `python bench/load/run.py [--held 5000] [--streams 9500] [--storm 100]`.

held: so many requests wait for one wake, then drain through 64 places: memory, time, order.
streams: so many streams stay open at once: memory, time to open, and what another client's request takes.
storm: so many models are asked at the same moment, all parked: time to the last answer, memory.

A real `poorwill serve` and toy engines; clients in this process, all on loopback. Two descriptors of the
gateway a stream: `ulimit -Hn` bounds them. 0 leaves a part out.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients import Crowd

GATEWAY = """\
[fleet]
on_exit = "stop"
[gateway]
max_connections = 60000
max_connections_per_address = 60000
max_receiving = "2 GiB"
"""
MODEL = """
[models.{name}]
engine = "toy"
ladder = ["cold"]
wake_budget_s = 600
options = {{ {options} }}
policy = {{ name = "fixed", idle_s = 3600 }}
{more}
"""
PLACES = 64


@dataclass
class Served:
    """A running `poorwill serve`."""

    child: subprocess.Popen[str]
    port: int
    admin: int

    def memory_mb(self) -> float:
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def held(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status", timeout=60) as answer:
            return sum(int(one["held"]) for one in json.load(answer)["replicas"])


@contextmanager
def served(models: str, directory: str | None) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="load-", dir=directory) as fleet:
        Path(fleet, "fleet.toml").write_text(GATEWAY + models)
        with Path(fleet, "serve.log").open("w") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "poorwill", "serve", fleet, "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            found = re.match(r"serving http://[\d.]+:(\d+) \(admin http://[\d.]+:(\d+)\)", line)
            assert found, f"{line!r} {Path(fleet, 'serve.log').read_text()}"
            yield Served(child, int(found[1]), int(found[2]))
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(120)


async def held(count: int, directory: str | None) -> dict[str, object]:
    more = f'max_concurrency = {PLACES}\nhold = {{ count = {count + 100}, bytes = "1 GiB", age_s = 600 }}'
    with served(
        MODEL.format(name="m", options=f"load_seconds = {5 + count / 125:g}", more=more), directory
    ) as gateway:
        before_mb, crowd = gateway.memory_mb(), Crowd(gateway.port)
        began = time.perf_counter()
        for _ in range(count):
            await crowd.ask("m", max_tokens=1)
        while await asyncio.to_thread(gateway.held) < count and not crowd.whole:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        all_held, held_mb = await asyncio.to_thread(gateway.held), gateway.memory_mb()
        asked_s = time.perf_counter() - began
        await crowd.until(1, what="whole", within_s=600)
        woken, cpu = time.perf_counter(), gateway.cpu_s()
        await crowd.until(count, what="whole", within_s=600)
        drained_s = time.perf_counter() - woken
        late = [place - number for place, number in enumerate(crowd.whole)]
        return {
            "held": all_held,
            "asked in s": asked_s,
            "KB each": (held_mb - before_mb) * 1024 / count,
            "drained in s": drained_s,
            "gateway's CPU ms each": (gateway.cpu_s() - cpu) * 1e3 / count,
            "answered": len(crowd.whole),
            "refused": crowd.refused,
            "cut": crowd.cut,
            "places overtaken at most": max(late, default=0),
            "memory after MB": gateway.memory_mb(),
        }


async def streams(count: int, directory: str | None, *, token_s: float = 10) -> dict[str, object]:
    rate = f"tokens_per_second = {1 / token_s:g}"
    models = MODEL.format(name="m", options=rate, more="max_concurrency = 0")
    with served(models, directory) as gateway:
        crowd = Crowd(gateway.port)
        await crowd.ask("m", stream=True, max_tokens=50)
        await crowd.until(1, what="first", within_s=300)
        before_mb, before = gateway.memory_mb(), gateway.descriptors()
        began = time.perf_counter()
        for _ in range(count - 1):
            await crowd.ask("m", stream=True, max_tokens=50)
        await crowd.until(count, what="first", within_s=900)
        opened_s, full_mb, full = time.perf_counter() - began, gateway.memory_mb(), gateway.descriptors()
        waits = [await asyncio.to_thread(health_s, gateway.port) for _ in range(50)]
        crowd.leave()
        left = time.perf_counter()
        while gateway.descriptors() > before and time.perf_counter() < left + 60:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return {
            "open": len(crowd.first),
            "refused": crowd.refused,
            "opened in s": opened_s,
            "KB each": (full_mb - before_mb) * 1024 / count,
            "descriptors": full,
            "another's request ms, median": sorted(waits)[25] * 1e3,
            "descriptors after they left": f"{gateway.descriptors()}, {before} before",
            "gone after s": time.perf_counter() - left,
        }


def health_s(port: int) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
        answer.read()
    return time.perf_counter() - began


async def storm(count: int, directory: str | None) -> dict[str, object]:
    models = "".join(MODEL.format(name=f"m{n}", options="load_seconds = 1", more="") for n in range(count))
    with served(models, directory) as gateway:
        before_mb, crowd = gateway.memory_mb(), Crowd(gateway.port)
        began, cpu = time.perf_counter(), gateway.cpu_s()
        for number in range(count):
            await crowd.ask(f"m{number}", max_tokens=1)
        await crowd.until(1, what="whole", within_s=600)
        first_s = time.perf_counter() - began
        await crowd.until(count, what="whole", within_s=600)
        return {
            "models": count,
            "first answer after s": first_s,
            "last answer after s": time.perf_counter() - began,
            "answered": len(crowd.whole),
            "refused": crowd.refused,
            "cut": crowd.cut,
            "poorwill's CPU s": gateway.cpu_s() - cpu,
            "KB each": (gateway.memory_mb() - before_mb) * 1024 / count,
        }


async def run(options: argparse.Namespace) -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    whole = True
    for name, part in (("held", held), ("streams", streams), ("storm", storm)):
        if count := getattr(options, name):
            more = {"token_s": options.token_s} if part is streams else {}
            found = await part(count, options.directory, **more)
            shown = {
                key: round(value, 2) if isinstance(value, float) else value for key, value in found.items()
            }
            print(name, json.dumps({"asked": count, **shown}), flush=True)
            whole = whole and count == found.get("answered", found.get("open"))
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in (("held", 5000), ("streams", 9500), ("storm", 100)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help="default: %(default)s")
    parser.add_argument("--token-s", type=float, default=10, metavar="S", help="between a stream's tokens")
    parser.add_argument("--directory", metavar="DIR", help="where to work (default: the temporary directory)")
    with contextlib.suppress(KeyboardInterrupt):
        return 0 if asyncio.run(run(parser.parse_args())) else 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
