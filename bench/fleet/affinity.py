"""What keeping conversations on one replica does to the time to the first token, with a real llama.cpp.

    python bench/fleet/affinity.py [--rounds 3] [--turns 6] [--conversations 8] [--prefix 400] [--size 5m]

Three fleets of three replicas with four slots each and a small random model: without affinity, with it,
and with a slack of four. They take turns, one round of conversations each, so that a drift of the machine
hits all alike. Each conversation begins with a long text of its own and goes on, with pauses between;
`found` is the share of the prompts' tokens that the engine had in its cache, by its own `timings`.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from poorwill.engines.weights.gguf_model import make_model

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gateway")]

from gateway import until_ready  # noqa: E402
from processes import free_port, started  # noqa: E402

REPLICAS, SLOTS = 3, 4
WAYS = {
    "off": "prefix_affinity = false",
    "equally full": "affinity_slack = 0",
    "slack of 4": "affinity_slack = 4",
}
FLEET = """\
[fleet]
on_exit = "stop"
[models.m]
engine = "llama.cpp"
path = "{path}"
context = 4096
ladder = ["cold"]
max_concurrency = {slots}
replicas = {{ most = {replicas}, least_ready = {replicas} }}
options = {{ threads = 1, parallel = {slots}, prompt_cache_mib = 0 }}
{way}
"""
Turn = tuple[float, int, int]
"""Seconds to the first token, tokens of the prompt found in the cache, tokens of the prompt."""


def serving(way: str, model: Path, folder: Path, exits: ExitStack) -> int:
    """Start a fleet and return its port once every replica is ready."""
    folder.mkdir()
    text = FLEET.format(path=model, slots=SLOTS, replicas=REPLICAS, way=way)
    (folder / "fleet.toml").write_text(text)
    port, admin = free_port(), free_port()
    argv = [sys.executable, "-m", "poorwill", "serve", str(folder)]
    argv += ["--port", str(port), "--admin-port", str(admin)]
    exits.enter_context(started(argv, core=0, log=folder / "log"))
    until_ready(admin, REPLICAS, folder / "log")
    return port


async def asked(
    client: httpx.AsyncClient, messages: Sequence[dict[str, str]], tokens: int
) -> tuple[Turn, str]:
    """Ask, and return what a turn took, and the answer."""
    body = {"model": "m", "messages": messages, "stream": True, "max_tokens": tokens, "ignore_eos": True}
    began, first, text, timings = time.perf_counter(), 0.0, "", {}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            timings = event.get("timings", timings)
            for choice in event["choices"]:
                said = choice["delta"].get("content") or ""
                if said and not first:
                    first = time.perf_counter() - began
                text += said
    found = timings["cache_n"]
    return (first, found, found + timings["prompt_n"]), text


async def talk(client: httpx.AsyncClient, rng: random.Random, turns: int, prefix: int) -> list[Turn]:
    """Have one conversation; return its turns but the first, which nobody can have in a cache."""
    words = " ".join(rng.choice(("red", "lamp", "sea", "nine", "oak", "far")) for _ in range(prefix))
    messages, found = [{"role": "user", "content": words}], []
    for number in range(turns):
        await asyncio.sleep(rng.uniform(0.2, 2.5))
        turn, text = await asked(client, messages, rng.randint(8, 48))
        if number:
            found.append(turn)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "and then?"}]
    return found


async def one_round(port: int, seed: int, options: argparse.Namespace) -> list[Turn]:
    """Have all conversations of a round at once."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
        rngs = [random.Random(f"{seed}-{number}") for number in range(options.conversations)]
        told = await asyncio.gather(*(talk(client, rng, options.turns, options.prefix) for rng in rngs))
    return [turn for turns in told for turn in turns]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    for name, value in (("--rounds", 3), ("--turns", 6), ("--conversations", 8), ("--prefix", 400)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--size", default="5m")
    options = parser.parse_args()
    found: dict[str, list[Turn]] = {}
    with tempfile.TemporaryDirectory(prefix="affinity-") as name, ExitStack() as exits:
        folder = Path(name)
        model = make_model(folder / "model.gguf", size=options.size)
        ports = {
            way: serving(text, model, folder / str(n), exits) for n, (way, text) in enumerate(WAYS.items())
        }
        for turn in range(options.rounds):
            for way in sorted(WAYS, key=lambda each: hash((each, turn))):
                found.setdefault(way, []).extend(asyncio.run(one_round(ports[way], turn, options)))
    alone = statistics.median(first for first, _, _ in found["off"])
    print("| prefix affinity | found in the cache | median to the first token, s | mean, s | median to off |")
    print("| --- | --- | --- | --- | --- |")
    for way in WAYS:
        firsts = [first for first, _, _ in found[way]]
        share = sum(hit for _, hit, _ in found[way]) / sum(tokens for _, _, tokens in found[way])
        median, mean = statistics.median(firsts), statistics.mean(firsts)
        print(f"| {way} | {share:.0%} | {median:.3f} | {mean:.3f} | {median / alone:.2f} |")


if __name__ == "__main__":
    main()
