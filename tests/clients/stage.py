"""One client against a real gateway: seven things that happen, and what the client makes of each.

Time runs fifty times as fast: a heartbeat every 0.1 s for 5 s, a commitment after 1 s for 50 s, or 4.6 s for
230 s.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.site import M1, Site, post, running_site
from tests.gateway.toy_upstream import EVENTS_HEAD, LAST, USAGE, Asked, chat, chunk, delta, event, takes

from poorwill.core.errors import EngineFault, ErrorCode, TryLater

from .known import Client
from .proxies import running_proxy

SHORT_S, BUDGET_S, LONG_S = 0.3, 1.2, 3.5
"""For 15, 60 and 175 s: the second is after the commitment, the third after the last 102."""
PATIENCE_S = 120
"""A client that still says nothing is written down as such."""
LEFT_S = 5
TEXT = "hello there"
PROBE = "probe"
"""A model that is always ready, for the stage's own requests."""
FAILED = EngineFault(ErrorCode.WAKE_FAILED, "the engine exited", retry_after_s=1)
BACKS_OFF = TryLater(
    ErrorCode.WAKE_FAILED, "the engine exited; the next wake is not yet due", retry_after_s=1
)
PASSED = TryLater(ErrorCode.WAKE_TIMEOUT, "the wake budget of 60 s elapsed", retry_after_s=1)
REASONS = ("the engine exited", "wake budget of 60 s", "the connection to the engine", "nothing here answers")
"""What a user must be told, if only in the chain of an error."""
COLUMNS = ("warm", "short wake", "long wake", "failed wake", "budget passed", "engine dies", "leaves")


async def answers(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer whole, as an engine does; some clients insist on a reason for the end."""
    if asked.target.startswith("/v1/messages") or asked.json().get("stream") is not True:
        return await chat(asked, writer)
    writer.write(EVENTS_HEAD)
    for text in ("hello", " ", "there"):
        writer.write(event(delta("m1", text)))
    done = {"index": 0, "delta": {}, "finish_reason": "stop"}
    writer.write(
        event(delta("m1", "") | {"choices": [done]}) + event(delta("m1", "", usage=USAGE) | {"choices": []})
    )
    writer.write(chunk(b"data: [DONE]\n\n") + LAST)


async def dies(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer half, and end."""
    if asked.json().get("stream") is True:
        writer.write(EVENTS_HEAD + event(delta("m1", "hello")))
    else:
        writer.write(
            b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": '
        )
    await writer.drain()
    await takes(0.1)
    writer.transport.abort()


@dataclass(slots=True, kw_only=True)
class Engine:
    """The engine behind the gateway, which lives or dies as the scene wants it."""

    act: Callable[[Asked, asyncio.StreamWriter], Awaitable[None]] = answers

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        await self.act(asked, writer)


@dataclass(slots=True, kw_only=True)
class Program:
    """The client's program, which asks once a line."""

    process: asyncio.subprocess.Process

    async def seen(self) -> Mapping[str, object]:
        """Return the next answer; libraries may print other lines."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := await self.process.stdout.readline():
                if line.startswith(b"{") and line.rstrip().endswith(b"}"):
                    value = json.loads(line)
                    assert isinstance(value, dict)
                    return value
        raise AssertionError("the client's program has ended")

    def ask(self, request: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(request.encode() + b"\n")

    def kill(self) -> None:
        """End it and what it started, as Ctrl-C does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@asynccontextmanager
async def program(client: Client, port: int, log: Path) -> AsyncIterator[Program]:
    line = [*await asyncio.to_thread(client.line), f"http://127.0.0.1:{port}"]
    env = {"HOME": str(log.parent), "DSPY_CACHEDIR": str(log.parent), "PATH": os.environ["PATH"]}  # noqa: TID251
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            env=env,
            start_new_session=True,
            limit=2**20,
        )
    running = Program(process=process)
    try:
        await running.seen()
        yield running
    finally:
        running.kill()
        await process.wait()


def cell(seen: Mapping[str, object], requests: int) -> str:
    """Return what the client showed, in a few words."""
    shown = _shown(_read(str(seen["raw"]), seen) if "raw" in seen else seen)
    return shown if requests == 1 else f"{shown}; asked {requests} times"


def _read(raw: str, seen: Mapping[str, object]) -> Mapping[str, object]:
    """Read an answer that came whole to a client that leaves the reading to its user."""
    if '"error"' in raw:
        return {"error": "Refused", "status": seen["status"], "says": raw}
    if raw.rstrip().endswith("data: [DONE]") or ("data: " not in raw and '"choices"' in raw):
        return {"text": TEXT}
    return {"text": raw[-80:]}


def _shown(seen: Mapping[str, object]) -> str:
    if "text" in seen:
        return "answer" if seen["text"] == TEXT else f"`{seen['text']}`, as if whole"
    status = seen.get("status")
    said = any(reason in str(seen["says"]).replace("\\", "") for reason in REASONS)
    named = "" if seen["error"] in ("Refused", "Object") else f"`{seen['error']}`"
    known = str(status) if status not in (None, 200) else "" if named else "error object"
    return f"{f'{named} {known}'.strip()}, {'says why' if said else 'does not say why'}"


@dataclass(slots=True, kw_only=True)
class Stage:
    """A gateway, a client's program, and what happens between them."""

    site: Site
    engine: Engine
    client: Program

    async def scene(self, name: str, request: str) -> str:
        """Let the client ask once, and return what it made of it."""
        activator = self.site.activator
        self.engine.act = dies if name == "engine dies" else answers
        activator.refuse = None
        activator.ready[M1] = self.site.upstream if name in ("warm", "engine dies") else None
        before = await self._rows()
        async with asyncio.TaskGroup() as group:
            fleet = group.create_task(self._fleet(name))
            self.client.ask(request)
            try:
                seen = await self.client.seen()
            except TimeoutError:
                return f"nothing within {PATIENCE_S} s"
            finally:
                fleet.cancel()
        await self.site.settled()
        await activator.until(lambda: not activator.queue)
        return cell(seen, max(1, await self._rows() - before))

    async def leaves(self, request: str) -> str:
        """Let the client end while it is held."""
        self.site.activator.refuse, self.site.activator.ready[M1] = None, None
        self.client.ask(request)
        await self.site.held()
        self.client.kill()
        try:
            async with asyncio.timeout(LEFT_S):
                await self.site.activator.until(lambda: not self.site.activator.queue)
        except TimeoutError:
            self.site.wake()
            await self.site.settled()
            return "keeps its place"
        return "free at once"

    async def _rows(self) -> int:
        """Return how many of the client's requests are over; rows are written in batches, in order."""
        ledger = self.site.ledger
        earlier = sum(row.model == PROBE for row in ledger.rows)
        await self.site.raw(post({"model": PROBE}, headers=["Connection: close"]))
        while sum(row.model == PROBE for row in ledger.rows) == earlier:
            ledger.posted.clear()
            await ledger.posted.wait()
        return sum(row.model == M1 for row in ledger.rows)

    async def _fleet(self, name: str) -> None:
        """What the fleet does with held requests, however often the client asks."""
        activator = self.site.activator
        while name not in ("warm", "engine dies"):
            while not activator.queue:
                activator.changed.clear()
                await activator.changed.wait()
            if name == "failed wake":
                await takes(SHORT_S)
                activator.refuse = BACKS_OFF
                activator.fail(FAILED)
            elif name == "budget passed":
                await takes(BUDGET_S)
                activator.fail(PASSED)
            else:
                await takes(SHORT_S if name == "short wake" else LONG_S)
                self.site.wake()


async def watched(client: Client, folder: Path) -> dict[str, dict[str, str]]:
    """Return what a client shows: by request, by what happened."""
    found: dict[str, dict[str, str]] = {}
    engine = Engine()
    async with running_site(
        engine,
        parked=True,
        models=[PROBE],
        heartbeat_us=100_000,
        commit_after_us=1_000_000,
        patience_us=4_600_000,
    ) as site:
        proxy = (
            running_proxy(client.behind, folder, site.port, default=True)
            if client.behind
            else nullcontext(site.port)
        )
        async with proxy as port:
            for request in client.requests:
                async with program(client, port, folder / "program.log") as running:
                    stage = Stage(site=site, engine=engine, client=running)
                    row = found[request] = {}
                    for name in COLUMNS[:-1]:
                        row[name] = await stage.scene(name, request)
                    row["leaves"] = await stage.leaves(request) if row["warm"] == "answer" else "is not held"
    return found
