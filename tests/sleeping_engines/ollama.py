"""Stands in for Ollama's keep_alive: the toy engine behind Ollama's routes and traps.

Behaves as documented (ollama/docs/api.md, docs/faq.md):

- POST /api/generate with keep_alive 0 and no prompt unloads the model, with another keep_alive loads it;
- GET /api/ps lists what is loaded; /api/version answers whatever is loaded;
- any request loads the model by itself, silently, for as long as that takes, and with the server's own
  keep_alive it is unloaded again.

It serves no model: it is for tests.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass

from poorwill.engines.programs import toy_server
from poorwill.engines.programs.toy_http import Handler, HttpReply, Refused, Request, listen
from poorwill.engines.programs.toy_server import Toy


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="ollama", description=__doc__)
    parser.add_argument("--model", default="toy", help="the one model it has")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--load-seconds", type=float, default=0.0)
    parser.add_argument("--fail-load", type=int, default=-1, help="this load (from 0) and later ones fail")
    parser.add_argument("--ignore-unload", action="store_true", help="a runner that never goes away")
    return parser.parse_args(argv)


@dataclass(slots=True, kw_only=True)
class LoadingOllama:
    """Which model is loaded: the one it has, or none."""

    toy: Toy
    options: argparse.Namespace
    loaded: bool = False
    loads: int = 0

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what is served where."""
        routes = self.toy.routes()
        for path in ("/v1/completions", "/v1/chat/completions"):
            routes["POST", path] = self.complete
        routes["POST", "/api/generate"] = self.generate
        routes["GET", "/api/ps"] = self.ps
        routes["GET", "/api/version"] = self.version
        return routes

    async def complete(self, request: Request) -> HttpReply:
        """Load the model where it is not, then complete."""
        await self.load()
        return await self.toy.completions(request)

    async def generate(self, request: Request) -> HttpReply:
        """Load or unload; a prompt is not answered here."""
        body = request.json()
        if body.get("model") != self.options.model:
            raise Refused(404, f"model '{body.get('model')}' not found")
        if body.get("keep_alive") == 0:
            self.loaded = self.loaded and self.options.ignore_unload
            reason = "unload"
        else:
            await self.load()
            reason = "load"
        done = {"model": self.options.model, "response": "", "done": True, "done_reason": reason}
        return HttpReply(body=done)

    async def ps(self, request: Request) -> HttpReply:
        """List what is loaded."""
        entry = {"name": self.options.model, "model": self.options.model, "size_vram": 0}
        return HttpReply(body={"models": [entry] if self.loaded else []})

    async def version(self, request: Request) -> HttpReply:
        """Tell a version; it is the readiness path and says nothing of the model."""
        return HttpReply(body={"version": "0.0.0"})

    async def load(self) -> None:
        """Take the load time, then have the model; or fail as asked."""
        if self.loaded:
            return
        await asyncio.sleep(self.options.load_seconds)
        if 0 <= self.options.fail_load <= self.loads:
            raise Refused(500, "llama runner process has terminated: exit status 2")
        self.loads += 1
        self.loaded = True


async def serve(options: argparse.Namespace) -> None:
    """Listen and serve."""
    words = ["--model", options.model, "--port", str(options.port)]
    toy = Toy(options=toy_server.arguments(words), slots=None, ready=True)
    async with await listen(
        LoadingOllama(toy=toy, options=options).routes(), options.host, options.port
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(arguments(sys.argv[1:])))
