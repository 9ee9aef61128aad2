"""Stands in for SGLang's memory release where there is no GPU: the toy engine with its routes and traps.

Behaves as documented for SGLang 0.5 (docs/advanced_features, sglang/srt/managers/scheduler*.py):

- /release_memory_occupation while a request runs and generation is not paused kills the engine;
- there is no route that tells whether it sleeps, and /health answers 200 all along;
- requests that arrive while generation is paused are accepted and silently wait;
- without --enable-weights-cpu-backup the weights are lost: after a resume it serves garbage until
  /update_weights_from_disk.

It serves no model: it is for tests.
"""

import argparse
import asyncio
import os
import sys
from dataclasses import dataclass, field

from poorwill.engines.programs import toy_server
from poorwill.engines.programs.toy_http import Handler, HttpReply, Refused, Request, listen
from poorwill.engines.programs.toy_server import Toy

GARBAGE = "!!!!!!!!"


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="sglang", description=__doc__)
    parser.add_argument("--served-model-name", default="toy")
    parser.add_argument("--model-path", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--enable-metrics", action="store_true")
    parser.add_argument("--enable-memory-saver", action="store_true")
    parser.add_argument("--enable-weights-cpu-backup", action="store_true")
    parser.add_argument("--fail-reload", action="store_true", help="the weights' file is unreadable")
    parser.add_argument("--tokens-per-second", type=float, default=0.0)
    return parser.parse_args(argv)


@dataclass(slots=True, kw_only=True)
class SleepingSglang:
    """The engine's memory and whether generation is paused."""

    toy: Toy
    options: argparse.Namespace
    released: bool = False
    real: bool = True
    """Whether the memory of the weights holds weights."""
    going: asyncio.Event = field(default_factory=asyncio.Event)

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what is served where."""
        routes = self.toy.routes()
        for path in ("/v1/completions", "/v1/chat/completions"):
            routes["POST", path] = self.complete
        routes["POST", "/pause_generation"] = self.pause
        routes["POST", "/continue_generation"] = self.go_on
        if self.options.enable_memory_saver:
            routes["POST", "/release_memory_occupation"] = self.release
            routes["POST", "/resume_memory_occupation"] = self.resume
        routes["POST", "/update_weights_from_disk"] = self.update_weights
        return routes

    async def complete(self, request: Request) -> HttpReply:
        """Complete; while paused the request waits. Without memory the scheduler dies on it."""
        await self.going.wait()
        if self.released:
            die("CUDA error: an illegal memory access was encountered")
        reply = await self.toy.completions(request)
        return reply if self.real else HttpReply(body={"choices": [{"index": 0, "text": GARBAGE}]})

    async def pause(self, request: Request) -> HttpReply:
        """Start no more requests."""
        self.going.clear()
        return HttpReply(body={"status": "paused"})

    async def go_on(self, request: Request) -> HttpReply:
        """Start requests again."""
        self.going.set()
        return HttpReply(body={"status": "continued"})

    async def release(self, request: Request) -> HttpReply:
        """Release all memory; a bare assertion in the scheduler guards it."""
        if self.toy.active and self.going.is_set():
            die("AssertionError: release_memory_occupation should be called only when idle")
        self.released = True
        self.real = self.real and self.options.enable_weights_cpu_backup
        return HttpReply(body=None)

    async def resume(self, request: Request) -> HttpReply:
        """Take the memory again; what was in it comes back from the CPU's copy only."""
        self.released = False
        return HttpReply(body=None)

    async def update_weights(self, request: Request) -> HttpReply:
        """Read the weights again."""
        path = request.json().get("model_path")
        if self.options.fail_reload or path != self.options.model_path:
            raise Refused(400, f"Failed to get weights iterator: {path}")
        self.real = not self.released
        return HttpReply(body={"success": True, "message": "Succeeded to update model weights."})


def die(why: str) -> None:
    """End as a failing scheduler does: it takes the server with it."""
    print(f"Scheduler hit an exception: {why}", flush=True)
    os._exit(1)


async def serve(options: argparse.Namespace) -> None:
    """Listen and serve."""
    words = ["--model", options.served_model_name, "--port", str(options.port)]
    words += ["--tokens-per-second", str(options.tokens_per_second)]
    toy = Toy(options=toy_server.arguments(words), slots=None, ready=True)
    engine = SleepingSglang(toy=toy, options=options)
    engine.going.set()
    async with await listen(engine.routes(), options.host, options.port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(arguments(sys.argv[1:])))
