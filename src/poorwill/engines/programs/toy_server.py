"""A toy OpenAI-compatible server for tests and benchmarks: a real program with load time, token rate, failure
and hang switches.

Runs in a child process on the standard library alone and imports nothing of poorwill but its own HTTP. Its
text is a function of the prompt alone, so the answer before a park and after a wake must be the same. It has
no threads and no children, and only a listener, an epoll descriptor and the log open: CRIU can freeze it.
"""

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from poorwill.engines.programs.toy_http import Handler, HttpReply, Refused, Request, listen

WORDS = (
    "a bird sleeps in the cold and wakes when it is warm so that nothing is lost while it waits for you to "
    "ask what it knows of night snow stone grass wind river light wing song dust"
).split()

PREFILL_STEPS = 20


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="toy_server", description=__doc__)
    parser.add_argument("--model", default="toy", help="the name it serves under")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--load-seconds", type=float, default=0.0, help="from start to ready")
    parser.add_argument(
        "--tokens-per-second", type=float, default=0.0, help="of each request; 0 is unlimited"
    )
    parser.add_argument("--prefill-seconds", type=float, default=0.0, help="before a request's first token")
    parser.add_argument("--slots", type=int, default=0, help="requests decoded together; 0 is unlimited")
    parser.add_argument("--rss-mb", type=int, default=0, help="memory it really touches")
    parser.add_argument("--fail-start", action="store_true", help="exit with status 1 instead of being ready")
    parser.add_argument("--never-ready", action="store_true", help="answer /health with 503 for ever")
    parser.add_argument("--exit-after", type=float, default=0.0, help="exit so many seconds after ready")
    parser.add_argument("--hang", action="store_true", help="be healthy, accept requests, answer none")
    parser.add_argument("--hang-after-requests", type=int, default=-1, help="likewise, after so many")
    parser.add_argument("--spin-after-requests", type=int, default=-1, help="compute for ever, after so many")
    parser.add_argument("--die-after-requests", type=int, default=-1, help="die as the next one arrives")
    parser.add_argument("--die-in-request", type=int, default=-1, help="die after this one's first token")
    parser.add_argument("--fail-requests", type=int, default=0, help="answer every request with this status")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--flood-log", type=int, default=0, help="log so many lines while loading")
    return parser.parse_args(argv)


def mark(phase: str) -> None:
    """Print a marker line with the time since boot in microseconds."""
    print(
        f"poorwill-engine {phase} boot_us={time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000}",
        flush=True,
    )


@dataclass(slots=True, kw_only=True)
class Toy:
    """The server's state."""

    options: argparse.Namespace
    slots: asyncio.Semaphore | None
    ballast: bytearray = field(default_factory=bytearray)
    boot_id: str = field(default_factory=lambda: os.urandom(8).hex())
    ready: bool = False
    requests: int = 0
    active: int = 0
    worked: int = 0
    """Tokens written, and steps of prompts read."""

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what is served where."""
        return {
            ("GET", "/health"): self.health,
            ("GET", "/toy"): self.state,
            ("GET", "/metrics"): self.metrics,
            ("GET", "/v1/models"): self.models,
            ("POST", "/v1/completions"): self.completions,
            ("POST", "/v1/chat/completions"): self.completions,
            ("POST", "/v1/embeddings"): self.embeddings,
        }

    async def health(self, request: Request) -> HttpReply:
        """Answer 503 while loading, like llama.cpp's server."""
        if not self.ready:
            return HttpReply(status=503, body={"error": {"code": 503, "message": "Loading model"}})
        return HttpReply(body={"status": "ok"})

    async def state(self, request: Request) -> HttpReply:
        """Tell what only memory holds: an id drawn at start, and how many requests there were."""
        return HttpReply(
            body={
                "boot_id": self.boot_id,
                "requests": self.requests,
                "active": self.active,
                "pid": os.getpid(),
            }
        )

    async def metrics(self, request: Request) -> HttpReply:
        """Tell how much work is done, as other engines do for Prometheus."""
        return HttpReply(body=b"toy:tokens_total %d\n" % self.worked, content_type="text/plain")

    async def models(self, request: Request) -> HttpReply:
        """List the one model."""
        entry = {"id": self.options.model, "object": "model", "created": 0, "owned_by": "poorwill"}
        return HttpReply(body={"object": "list", "data": [entry]})

    async def completions(self, request: Request) -> HttpReply:
        """Complete a prompt or a chat, as a whole or as a stream."""
        body = request.json()
        await self.admit()
        chat = request.path.endswith("/chat/completions")
        prompt = json.dumps(body.get("messages")) if chat else json.dumps(body.get("prompt"))
        if prompt == "null":
            raise Refused(400, f"{'messages' if chat else 'prompt'} is missing")
        wanted = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        if not isinstance(wanted, int) or wanted < 1:
            raise Refused(400, "max_tokens must be a positive whole number")
        answer = Completion(toy=self, chat=chat, prompt=prompt, wanted=wanted)
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return HttpReply(events=answer.events(usage=usage), content_type="text/event-stream")
        return HttpReply(body=await answer.whole())

    async def embeddings(self, request: Request) -> HttpReply:
        """Return a vector made of the text's hash."""
        body = request.json()
        await self.admit()
        texts = body.get("input")
        if texts is None:
            raise Refused(400, "input is missing")
        texts = texts if isinstance(texts, list) else [texts]
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": [b / 255 for b in digest(str(text))[:16]],
            }
            for i, text in enumerate(texts)
        ]
        tokens = sum(len(str(text).split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return HttpReply(body={"object": "list", "model": self.options.model, "data": data, "usage": usage})

    async def admit(self) -> None:
        """Count an inference request, and fail it in the way the switches ask for."""
        if not self.ready:
            raise Refused(503, "Loading model")
        options = self.options
        if 0 <= options.die_after_requests <= self.requests:
            os._exit(137)
        self.requests += 1
        while 0 <= options.spin_after_requests < self.requests:
            pass
        if options.hang or 0 <= options.hang_after_requests < self.requests:
            await asyncio.Event().wait()
        if options.fail_requests:
            raise Refused(options.fail_requests, "failed as asked")


@dataclass(slots=True, kw_only=True)
class Completion:
    """One completion in the making."""

    toy: Toy
    chat: bool
    prompt: str
    wanted: int

    async def tokens(self) -> AsyncIterator[str]:
        """Yield the words at the configured rate."""
        options, number = self.toy.options, self.toy.requests
        self.toy.active += 1
        try:
            async with self.toy.slots or _Unlimited():
                for _ in range(PREFILL_STEPS):
                    await asyncio.sleep(options.prefill_seconds / PREFILL_STEPS)
                    self.toy.worked += 1
                for i, word in enumerate(words(self.prompt, self.wanted)):
                    self.toy.worked += 1
                    if options.tokens_per_second:
                        await asyncio.sleep(1 / options.tokens_per_second)
                    if i == 1 and number == options.die_in_request:
                        os._exit(137)
                    yield word if i == 0 else f" {word}"
        finally:
            self.toy.active -= 1

    async def whole(self) -> dict[str, Any]:
        """Return the complete answer."""
        text = "".join([token async for token in self.tokens()])
        choice = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return self.shell({"index": 0, "finish_reason": "length", **choice}) | {"usage": self.usage()}

    async def events(self, *, usage: bool) -> AsyncIterator[str]:
        """Yield the data of each event."""
        async for token in self.tokens():
            part = {"delta": {"role": "assistant", "content": token}} if self.chat else {"text": token}
            yield json.dumps(self.shell({"index": 0, "finish_reason": None, **part}, part=True))
        end: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        yield json.dumps(self.shell({"index": 0, "finish_reason": "length", **end}, part=True))
        if usage:
            yield json.dumps(self.shell(part=True) | {"usage": self.usage()})
        yield "[DONE]"

    def shell(self, choice: dict[str, Any] | None = None, *, part: bool = False) -> dict[str, Any]:
        """Return what surrounds a choice."""
        kind = "text_completion" if not self.chat else "chat.completion" + (".chunk" if part else "")
        return {
            "id": f"toy-{self.toy.requests}",
            "object": kind,
            "created": int(time.time()),
            "model": self.toy.options.model,
            "choices": [choice] if choice else [],
        }

    def usage(self) -> dict[str, int]:
        """Return the token counts: one token is one word."""
        asked = len(self.prompt.split())
        return {
            "prompt_tokens": asked,
            "completion_tokens": self.wanted,
            "total_tokens": asked + self.wanted,
        }


class _Unlimited:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


def digest(text: str) -> bytes:
    """Return the text's hash."""
    return hashlib.sha256(text.encode()).digest()


def words(prompt: str, count: int) -> Iterator[str]:
    """Yield the words that follow a prompt: always the same ones."""
    state = b""
    for i in range(count):
        if i % 32 == 0:
            state = digest(f"{prompt}{i}")
        yield WORDS[state[i % 32] % len(WORDS)]


async def load(toy: Toy) -> None:
    """Take the load time, in phases, then be ready or fail."""
    options = toy.options
    mark("weights")
    toy.ballast = bytearray(os.urandom(4096) * (options.rss_mb * 256))
    for line in range(options.flood_log):
        print(f"INFO flood {line} \x1b[32mgreen\x1b[0m {'x' * 200}")
    await asyncio.sleep(options.load_seconds * 0.7)
    mark("kv_cache")
    await asyncio.sleep(options.load_seconds * 0.1)
    mark("warmup")
    await asyncio.sleep(options.load_seconds * 0.2)
    if options.fail_start:
        print("ERROR failed to start, as asked", flush=True)
        os._exit(1)
    if options.never_ready:
        return
    mark("ready")
    toy.ready = True
    if options.exit_after:
        await asyncio.sleep(options.exit_after)
        os._exit(3)


async def serve(options: argparse.Namespace) -> None:
    """Listen, load, serve."""
    slots = asyncio.Semaphore(options.slots) if options.slots else None
    toy = Toy(options=options, slots=slots)
    async with await listen(toy.routes(), options.host, options.port) as server:
        await load(toy)
        await server.serve_forever()


def main(argv: list[str]) -> None:
    """Run until SIGTERM, which ends it as it ends any process."""
    mark("imports")
    options = arguments(argv)
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        asyncio.run(serve(options))
    except OSError as error:
        sys.exit(f"ERROR cannot listen on {options.host}:{options.port}: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
