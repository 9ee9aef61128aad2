"""Stands in for vLLM's sleep API where there is no GPU: the toy engine behind vLLM's routes and traps.

Behaves as documented for vLLM 0.33 (vllm/entrypoints/serve/dev, docs/features/sleep_mode.md):

- the sleep routes exist only with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode, without authentication;
- /health answers 200 while it sleeps; only /is_sleeping tells the truth;
- a request that arrives while it sleeps is accepted and silently waits;
- /sleep aborts requests in flight unless mode=wait;
- after level 2 the weights are gone: a wake without reload_weights serves garbage.

It serves no model: it is for tests.
"""

import argparse
import asyncio
import os
import sys
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from poorwill.engines.programs import toy_server
from poorwill.engines.programs.toy_http import Handler, HttpReply, Refused, Request, listen
from poorwill.engines.programs.toy_server import Toy

GARBAGE = "!!!!!!!!"


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="vllm", description=__doc__)
    parser.add_argument("--served-model-name", default="toy")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--wake-seconds", type=float, default=0.0, help="how long a wake takes")
    parser.add_argument("--fail-sleep", action="store_true", help="/sleep answers 500")
    parser.add_argument("--fail-reload", action="store_true", help="reload_weights answers 500")
    parser.add_argument("--tokens-per-second", type=float, default=0.0)
    return parser.parse_args(argv)


@dataclass(slots=True, kw_only=True)
class SleepingVllm:
    """The engine's memory: weights and KV cache are there, put aside or gone."""

    toy: Toy
    options: argparse.Namespace
    weights: bool = True
    kv_cache: bool = True
    real: bool = True
    """Whether the memory of the weights holds weights."""
    awake: asyncio.Event = field(default_factory=asyncio.Event)

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what is served where."""
        routes = self.toy.routes()
        for path in ("/v1/completions", "/v1/chat/completions"):
            routes["POST", path] = self.complete
        if os.environ.get("VLLM_SERVER_DEV_MODE") == "1" and self.options.enable_sleep_mode:
            routes["POST", "/sleep"] = self.sleep
            routes["POST", "/wake_up"] = self.wake_up
            routes["GET", "/is_sleeping"] = self.is_sleeping
            routes["POST", "/collective_rpc"] = self.collective_rpc
            routes["POST", "/reset_prefix_cache"] = self.reset_prefix_cache
        return routes

    async def complete(self, request: Request) -> HttpReply:
        """Complete; while asleep the request waits and nobody is told."""
        await self.awake.wait()
        reply = await self.toy.completions(request)
        return reply if self.real else HttpReply(body={"choices": [{"index": 0, "text": GARBAGE}]})

    async def sleep(self, request: Request) -> HttpReply:
        """Put the weights aside (level 1) or drop them (level 2); the KV cache goes either way."""
        if self.options.fail_sleep:
            raise Refused(500, "CUDA error: out of memory")
        query = parse_qs(request.query)
        level = int(query.get("level", ["1"])[0])
        self.awake.clear()
        while query.get("mode") == ["wait"] and self.toy.active:  # noqa: ASYNC110 - the toy counts
            await asyncio.sleep(0.005)
        self.weights = self.kv_cache = False
        self.real = self.real and level < 2
        return HttpReply(body={"status": "sleeping", "level": level})

    async def wake_up(self, request: Request) -> HttpReply:
        """Bring back the named parts, all without names; it serves again once both are there."""
        tags = parse_qs(request.query).get("tags")
        await asyncio.sleep(self.options.wake_seconds)
        self.weights = self.weights or not tags or "weights" in tags
        self.kv_cache = self.kv_cache or not tags or "kv_cache" in tags
        if self.weights and self.kv_cache:
            self.awake.set()
        return HttpReply(body={"status": "awake" if self.awake.is_set() else "sleeping", "tags": tags})

    async def is_sleeping(self, request: Request) -> HttpReply:
        """Tell the truth."""
        return HttpReply(body={"is_sleeping": not self.awake.is_set()})

    async def collective_rpc(self, request: Request) -> HttpReply:
        """Reload the weights; the one method it knows."""
        if request.json().get("method") != "reload_weights":
            raise Refused(400, "unknown method")
        if self.options.fail_reload:
            raise Refused(500, "safetensors_rust.SafetensorError: file not found")
        self.real = self.real or self.weights
        return HttpReply(body={"results": [None]})

    async def reset_prefix_cache(self, request: Request) -> HttpReply:
        """Forget cached prefixes."""
        return HttpReply(body={"success": True})


async def serve(options: argparse.Namespace) -> None:
    """Listen and serve."""
    words = ["--model", options.served_model_name, "--port", str(options.port)]
    words += ["--tokens-per-second", str(options.tokens_per_second)]
    toy = Toy(options=toy_server.arguments(words), slots=None, ready=True)
    engine = SleepingVllm(toy=toy, options=options)
    engine.awake.set()
    async with await listen(engine.routes(), options.host, options.port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(arguments(sys.argv[1:])))
