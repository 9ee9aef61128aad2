"""What several replicas cost a request through the whole gateway: one model with 1, 4 and 16 replicas.

    python bench/fleet/gateway.py [--rounds 15] [--seconds 1] [--replicas 1 4 16]

Needs wrk (apt) and a C compiler. For each number of replicas a real `poorwill serve` with its ledger runs,
all at once, with the fake engines of bench/gateway; the load takes turns, so that a drift of the machine
hits all alike. All have 64 places. `half`: 32 connections, so that half the places are taken; `full`: 64, so
that all are. CPU is user and kernel time of the gateway's process alone. `least` is that of the best round:
whatever else runs on the machine only adds to it; the ratios are of the least, and the median of the rounds'.
"""

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "gateway"))

from processes import Process, compiled, free_port, started  # noqa: E402

GATEWAY_CORE, LOAD_CORE = 0, 1
PLACES = 64
BODY = '{"model":"m","messages":[{"role":"user","content":"%s"}]}' % ("a" * 240)
FLEET = """\
[fleet]
on_exit = "stop"
[models.m]
engine = "command"
command = ["taskset", "-c", "{core}", "{engine}", "{{port}}"]
ready_path = "/healthz"
ladder = ["cold"]
max_concurrency = {each}
replicas = {{ most = {count}, least_ready = {count} }}
{more}
policy = {{ name = "fixed", idle_s = 3600, allow_short_idle = true }}
"""


def serving(count: int, more: str, engine: Path, folder: Path, exits: ExitStack) -> tuple[int, Process]:
    """Start a fleet and return its port and process once every replica is ready."""
    own = folder / f"{count}"
    own.mkdir()
    each = PLACES // count
    text = FLEET.format(core=LOAD_CORE, engine=engine, each=each, count=count, more=more)
    (own / "fleet.toml").write_text(text)
    port, admin = free_port(), free_port()
    argv = [sys.executable, "-m", "poorwill", "serve", str(own)]
    argv += ["--port", str(port), "--admin-port", str(admin), "--log-level", "info"]
    process = exits.enter_context(started(argv, core=GATEWAY_CORE, log=own / "log"))
    until_ready(admin, count, own / "log")
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


def load(port: int, process: Process, script: Path, connections: int, seconds: float) -> tuple[float, float]:
    """Return requests a second and microseconds of the gateway's CPU a request."""
    argv = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s"]
    argv += ["-s", str(script), f"http://127.0.0.1:{port}/v1/chat/completions"]
    before = process.cpu_s()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
    used = process.cpu_s() - before
    found = re.search(r"(\d+) requests in ([\d.]+)(m?)s", done.stdout)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    assert found is not None and wrong is None, done.stdout
    requests = int(found[1])
    return requests / seconds, used / requests * 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 4, 16])
    options = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as name, ExitStack() as exits:
        folder = Path(name)
        engine = compiled(HERE.parent / "gateway" / "engine.c", folder)
        script = folder / "post.lua"
        script.write_text(
            f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{BODY}]]\n'
        )
        running = {count: serving(count, "", engine, folder, exits) for count in options.replicas}
        for port, process in running.values():
            load(port, process, script, PLACES, 1)
        for turn in range(options.rounds):
            for label, connections in (("half", PLACES // 2), ("full", PLACES)):
                order = options.replicas if turn % 2 else options.replicas[::-1]
                for count in order:
                    port, process = running[count]
                    sample = load(port, process, script, connections, options.seconds)
                    found.setdefault((label, count), []).append(sample)
    print(
        "| places taken | replicas | most requests/s | CPU a request, us, least | to one | median of rounds |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for label, count in sorted(found):
        mine, alone = found[label, count], found[label, options.replicas[0]]
        least = [min(cpu for _, cpu in samples) for samples in (mine, alone)]
        ratio = statistics.median(one / other for (_, one), (_, other) in zip(mine, alone, strict=True))
        rate = max(rate for rate, _ in mine)
        print(
            f"| {label} | {count} | {rate:,.0f} | {least[0]:.1f} | {least[0] / least[1]:.3f} | {ratio:.3f} |"
        )


if __name__ == "__main__":
    main()
