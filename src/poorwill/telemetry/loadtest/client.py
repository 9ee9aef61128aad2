"""The load generator's HTTP client: one keep-alive connection at a time, every arriving byte dated.

Not a general client: it speaks to engines and gateways on addresses that the fleet itself gave, and measures
what an application would see. Parsing the events happens after the last byte, off the measured path.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import httptools

from poorwill.policies.coldstart.steady_state import Shot

MOST_ANSWER_S = 120.0


class BenchError(Exception):
    """A request of the benchmark did not get a usable answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send requests and as what."""

    route: str
    host: str
    port: int
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Wire(asyncio.Protocol):
    """One connection. `ask` sends a request and returns what came, with its times in microseconds."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[None] | None = None
        self._stays = True
        self.arrived: list[tuple[int, bytes]] = []
        self.usable = True
        self.silent = True
        """Nothing has come for the last request."""

    async def ask(self, request: bytes) -> tuple[int, list[tuple[int, bytes]]]:
        """Return the status and the body's pieces as they arrived. Raises BenchError. Cancelled: closes."""
        if self._transport is None:
            raise BenchError("not connected")
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self.arrived, self.silent = [], True
        self._transport.write(request)
        try:
            async with asyncio.timeout(MOST_ANSWER_S):
                await self._done
        except BaseException:
            self.close()
            raise
        if not self._stays:
            self.close()
        return self._parser.get_status_code(), self.arrived

    def close(self) -> None:
        """Close the connection; nothing can be asked any more."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        self.silent = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is being asked."""
        self.usable = False
        self._fail("the connection was closed")

    def on_body(self, body: bytes) -> None:
        """Date a piece of the body."""
        self.arrived.append((now_us(), body))

    def on_message_complete(self) -> None:
        """End the answer, unless it was an interim one."""
        self._stays = self._parser.should_keep_alive()
        if self._parser.get_status_code() >= 200 and self._done and not self._done.done():
            self._done.set_result(None)

    def _fail(self, why: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(BenchError(why))


@dataclass(slots=True, kw_only=True)
class Caller:
    """One client: a connection kept alive for as long as the server keeps it. Close it."""

    target: Target
    _wire: Wire | None = None

    async def ask(self, request: bytes) -> tuple[int, int, list[tuple[int, bytes]]]:
        """Return when the request was sent, the status, and the body's pieces with their times.

        A kept connection that turns out closed is replaced once, as RFC 9112, section 9.3.1, lets clients do.
        Raises BenchError or OSError. Cancelled: the connection is closed.
        """
        kept = self._wire is not None and self._wire.usable
        wire = await self._connected()
        began_us = now_us()
        try:
            return (began_us, *await wire.ask(request))
        except BenchError:
            if not (kept and wire.silent):
                raise
        wire = await self._connected()
        began_us = now_us()
        return (began_us, *await wire.ask(request))

    def close(self) -> None:
        """Close the connection."""
        if self._wire is not None:
            self._wire.close()

    async def _connected(self) -> Wire:
        if self._wire is None or not self._wire.usable:
            loop = asyncio.get_running_loop()
            _, self._wire = await loop.create_connection(Wire, self.target.host, self.target.port)
        return self._wire


async def shoot(caller: Caller, prompt: str, *, tokens: int) -> Shot:
    """Ask for a streamed completion and return its times. Raises BenchError if it is no completion."""
    body = {
        "model": caller.target.model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = _request(caller.target, "/v1/completions", body)
    began_us, status, pieces = await caller.ask(request)
    ended_us = now_us()
    if status != 200:
        raise BenchError(f"status {status}: {_told(pieces)}")
    return _shot(began_us, ended_us, pieces)


def _told(pieces: Sequence[tuple[int, bytes]]) -> str:
    """Return what an answer that is no completion says: an error's message, else its beginning."""
    data = b"".join(piece for _, piece in pieces)
    try:
        return str(json.loads(data)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return data[:200].decode("utf-8", "replace")


async def round_trip_us(caller: Caller, prompt: str) -> int:
    """Return how long a one-token completion, not streamed, takes. Raises BenchError."""
    body = {"model": caller.target.model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    request = _request(caller.target, "/v1/completions", body)
    began_us, status, pieces = await caller.ask(request)
    took_us = now_us() - began_us
    if status != 200:
        raise BenchError(f"status {status}: {_told(pieces)}")
    return took_us


async def get(target: Target, path: str) -> bytes | None:
    """Return the body of a GET, None if it is not 200 or nobody answers."""
    head = f"GET {path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nConnection: close\r\n\r\n"
    caller = Caller(target=target)
    try:
        _, status, pieces = await caller.ask(head.encode())
    except (OSError, BenchError, TimeoutError):
        return None
    finally:
        caller.close()
    return b"".join(data for _, data in pieces) if status == 200 else None


def now_us() -> int:
    """Return a monotonic time for differences."""
    return time.perf_counter_ns() // 1000


def _request(target: Target, path: str, body: Mapping[str, object]) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {target.host}:{target.port}"]
    lines += [f"{name}: {value}" for name, value in target.headers.items()]
    lines += ["Content-Type: application/json", f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(lines).encode() + data


def _shot(began_us: int, ended_us: int, pieces: list[tuple[int, bytes]]) -> Shot:
    """Read the events of a stream; each has the time at which its last byte arrived."""
    times: list[int] = []
    tokens = 0
    rest = b""
    for at_us, data in pieces:
        *events, rest = (rest + data).split(b"\n\n")
        for event in events:
            value = _event(event)
            if value is None:
                continue
            usage = value.get("usage")
            if usage:
                tokens = int(usage.get("completion_tokens") or 0)
            if any(choice.get("text") for choice in value.get("choices", ())):
                times.append(at_us)
    if not times:
        raise BenchError("the answer holds no token")
    gaps = tuple(later - earlier for earlier, later in pairwise(times))
    return Shot(
        began_us=began_us, first_us=times[0], ended_us=ended_us, gaps_us=gaps, tokens=tokens or len(times)
    )


def _event(event: bytes) -> dict[str, Any] | None:
    data = event.strip().removeprefix(b"data:").strip()
    if not data.startswith(b"{"):
        return None
    try:
        value = json.loads(data)
    except ValueError:
        return None
    if isinstance(value, dict) and "error" in value:
        raise BenchError(f"an error within the stream: {value['error']}")
    return value if isinstance(value, dict) else None
