"""What several replicas cost a request through the whole gateway: models with 1, 4 and 16 replicas.

    python bench/fleet/gateway.py [--rounds 10] [--seconds 1] [--replicas 1 4 16] [--answers whole stream]

Needs wrk (apt) and a C compiler. One real `poorwill serve` with its ledger has a model for each number of
replicas; the load takes turns, so that a drift of the machine hits all alike. One process, because two that
are alike differ by up to a tenth for as long as they run. All models have 64 places and 64 clients. `whole`:
answers at once, and no pause before the next request; `stream`: 20 tokens, 5 ms apart, and a random pause of
0.1 s on average, so that half the places are taken, more or less. All replicas share one engine process: 16
of them would answer one by one where one answers many at a time, which is not the gateway's doing. CPU is
user and kernel time of the gateway's process alone. `least` is that of the best round: whatever else runs on
the machine only adds to it; the ratios are of the least, and the median of the rounds'. A replica that
becomes busy or idle opens a span.
"""

import argparse
import contextlib
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "gateway"))

from processes import Process, compiled, free_port, started  # noqa: E402

GATEWAY_CORE, LOAD_CORE = 0, 1
PLACES = 64
WRITTEN_S = 30
"""The ledger has all rows well before."""
ANSWERS = {"whole": ("", 0), "stream": (',"stream":true,"chunks":20,"every_ms":5', 200)}
"""What a request asks for, and how many milliseconds its client pauses at most before the next one."""
SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[{{"model":"m{count}","messages":[{{"role":"user","content":"{text}"}}]{more}}}]]
function delay() return math.random(0, {pause_ms}) end
"""
FLEET = """\
[fleet]
on_exit = "stop"
"""
MODEL = """\
[models.m{count}]
engine = "command"
command = ["sh", "-c", "echo {{port}} > {ports}; exec sleep 86400"]
ready_path = "/healthz"
ladder = ["cold"]
max_concurrency = {each}
replicas = {{ most = {count}, least_ready = {count} }}
policy = {{ name = "fixed", idle_s = 3600, allow_short_idle = true }}
"""


def serving(counts: Sequence[int], ports: Path, folder: Path, exits: ExitStack) -> tuple[int, Process]:
    """Start a fleet and return its port and process once every replica is ready."""
    models = [MODEL.format(ports=ports, each=PLACES // count, count=count) for count in counts]
    folder.mkdir()
    (folder / "fleet.toml").write_text("".join([FLEET, *models]))
    port, admin = free_port(), free_port()
    argv = [sys.executable, "-m", "poorwill", "serve", str(folder)]
    argv += ["--port", str(port), "--admin-port", str(admin), "--log-level", "info"]
    process = exits.enter_context(started(argv, core=GATEWAY_CORE, log=folder / "log"))
    until_ready(admin, sum(counts), folder / "log")
    return port, process


def until_ready(admin: int, count: int, log: Path) -> None:
    """Wait until so many replicas are ready."""
    for _ in range(600):
        time.sleep(0.2)  # noqa: TID251
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{admin}/status") as told:
            ready = sum(each["state"] == "ready" for each in json.load(told)["replicas"])
            if ready == count:
                return
    raise SystemExit(log.read_text())


def shared_engine(folder: Path, exits: ExitStack) -> Path:
    """Start the engine and return the pipe that takes the ports it is to listen on."""
    ports = folder / "ports"
    os.mkfifo(ports)
    argv = ["taskset", "-c", str(LOAD_CORE), str(compiled(HERE.parent / "gateway" / "engine.c", folder)), "-"]
    with ports.open("r+b", buffering=0) as pipe:
        engine = subprocess.Popen(argv, stdin=pipe)
    exits.callback(engine.wait)
    exits.callback(engine.kill)
    return ports


ROWS = """
SELECT (SELECT count(*) FROM spans), (SELECT coalesce(max(id), 0) FROM requests),
  EXISTS (SELECT 1 FROM spans WHERE next_us IS NULL AND cause = 'serving')
"""


def rows(folder: Path) -> tuple[int, int, bool]:
    """Return how many spans and requests a fleet's ledger has, and whether a replica serves by it."""
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        spans, requests, serves = db.execute(ROWS).fetchone()
        return spans, requests, bool(serves)


def written(folder: Path, requests: int) -> int:
    """Wait until so many requests are in the ledger and their last span has ended; return its spans."""
    for _ in range(WRITTEN_S * 10):
        spans, there, serves = rows(folder)
        if there >= requests and not serves:
            return spans
        time.sleep(0.1)  # noqa: TID251
    raise SystemExit(f"{folder}: {requests} requests were answered, the ledger has {there}")


def load(
    port: int, process: Process, folder: Path, script: str, seconds: float
) -> tuple[float, float, float]:
    """Return requests a second, and microseconds of the gateway's CPU and spans a request."""
    argv = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{PLACES}", f"-d{seconds:g}s"]
    argv += ["-s", str(folder.parent / script), f"http://127.0.0.1:{port}/v1/chat/completions"]
    before, (opened, had, _) = process.cpu_s(), rows(folder)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
    found = re.search(r"(\d+) requests in ([\d.]+)(m?)s", done.stdout)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    assert found is not None and wrong is None, done.stdout
    requests = int(found[1])
    opened = written(folder, had + requests) - opened
    return requests / seconds, (process.cpu_s() - before) / requests * 1e6, opened / requests


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--answers", nargs="*", choices=ANSWERS, default=list(ANSWERS))
    options = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    kinds = [(answers, count) for answers in options.answers for count in options.replicas]
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as name, ExitStack() as exits:
        folder = Path(name)
        for answers, count in kinds:
            more, pause_ms = ANSWERS[answers]
            script = SCRIPT.format(text="a" * 240, more=more, pause_ms=pause_ms, count=count)
            (folder / f"{answers}-{count}").write_text(script)
        ports, fleet = shared_engine(folder, exits), folder / "fleet"
        port, process = serving(options.replicas, ports, fleet, exits)
        for turn in range(-1, options.rounds):  # the first one only warms up
            for answers, count in kinds[:: 1 if turn % 2 else -1]:
                measured = load(port, process, fleet, f"{answers}-{count}", options.seconds)
                if turn >= 0:
                    found.setdefault((answers, count), []).append(measured)
    print("| answers | replicas | most requests/s | spans a request | CPU, us, least | to one | median |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for answers, count in kinds:
        mine, alone = found[answers, count], found[answers, options.replicas[0]]
        rate, opened = max(each[0] for each in mine), statistics.median(each[2] for each in mine)
        least, lone = (min(each[1] for each in samples) for samples in (mine, alone))
        ratio = statistics.median(one[1] / other[1] for one, other in zip(mine, alone, strict=True))
        cells = [answers, count, f"{rate:,.0f}", f"{opened:.2f}", f"{least:.1f}"]
        print(f"| {' | '.join(map(str, cells))} | {least / lone:.3f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
