"""The dashboard's questions about the past, as JSON.

Many open pages ask the same at the same time: an answer is kept for a moment, and made once however many
wait for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.ports.clock import Clock
from poorwill.core.words import HOUR_US

KEPT_S, LIVE_S, KEPT_TIMES = 2.0, 0.4, 20
"""How long an answer is kept: at least, a log's at least, and as a multiple of what it took to make."""
MOST_HOURS = 24 * 31
MOST_ROWS = 5000

Question = Callable[[Request], Coroutine[Any, Any, object]]


@dataclass(slots=True)
class _Kept:
    """One question's last answer."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    until: float = 0.0
    answer: bytes = b""


class HistoryAnswers:
    """Answers questions, each kept for a moment."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def endpoint(
        self, question: Question, kept_s: float = KEPT_S
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the handler of a question."""

        async def handle(request: Request) -> Response:
            answer = await self._answer(str(request.url), lambda: question(request), kept_s)
            return Response(answer, media_type="application/json", headers={"cache-control": "no-store"})

        return handle

    async def _answer(
        self, name: str, ask: Callable[[], Coroutine[Any, Any, object]], kept_s: float
    ) -> bytes:
        now = asyncio.get_running_loop().time
        for old in [
            name for name, kept in self._kept.items() if kept.until < now() and not kept.lock.locked()
        ]:
            del self._kept[old]
        kept = self._kept.setdefault(name, _Kept())
        async with kept.lock:
            if kept.until < now():
                began = now()
                kept.answer = msgspec.json.encode(await ask())
                kept.until = now() + max(kept_s, KEPT_TIMES * (now() - began))
            return kept.answer


class FleetHistory(Protocol):
    """The past of a fleet, in what JSON can tell.

    Every question may block on the disk for milliseconds, off the event loop; a cancelled one runs to its end
    and its answer is dropped.
    """

    async def ribbons(self, from_us: int, to_us: int) -> object:
        """Return every replica's time within a window; stretches too short to be seen in it are merged."""
        ...

    async def costs(self) -> object:
        """Return what the models cost today, this month and by day."""
        ...

    async def wakes(self, model: str | None, last: int) -> object:
        """Return the last finished wakes, the newest first."""
        ...

    async def requests(self, last: int) -> object:
        """Return the last finished requests, the newest first."""
        ...

    async def cost(self, request: str) -> object:
        """Return what a recent request cost, None if its row is not there yet."""
        ...

    async def copy(self) -> BinaryIO:
        """Return a consistent copy of everything, a file without a name. Raises OperatorFault."""
        ...

    async def plan(self, model: str) -> object:
        """Return what each way of serving would have cost. Raises RequestFault."""
        ...

    async def explain(self, model: str, at_us: int) -> object:
        """Say why a second was paid, as `poorwill bill --explain` does. Raises RequestFault."""
        ...

    async def compare(self, this: tuple[int, int], last: tuple[int, int]) -> object:
        """Say why one period cost more than another. Raises RequestFault."""
        ...

    async def log(self, replica: str, start: int | None) -> object:
        """Return an engine's log from a byte on, at most 64 KiB; None is near its end. It may be empty."""
        ...


def history_questions(*, history: FleetHistory, clock: Clock) -> Mapping[str, Question]:
    """Return every question, by the last part of its path."""

    async def ribbons(request: Request) -> object:
        hours, now_us = count(request, "hours", 24, MOST_HOURS), clock.now_us()
        return await history.ribbons(now_us - hours * HOUR_US, now_us)

    async def costs(request: Request) -> object:
        return await history.costs()

    async def wakes(request: Request) -> object:
        model = request.query_params.get("model") or None
        return await history.wakes(model, count(request, "last", 10, 200))

    async def requests(request: Request) -> object:
        return await history.requests(count(request, "last", 100, MOST_ROWS))

    async def cost(request: Request) -> object:
        return await history.cost(request.query_params.get("request", ""))

    async def plan(request: Request) -> object:
        return await history.plan(request.query_params.get("model", ""))

    async def explain(request: Request) -> object:
        return await history.explain(request.query_params.get("model", ""), _instant(request, "at_us"))

    async def compare(request: Request) -> object:
        edges = [_instant(request, name) for name in ("this_from", "this_to", "last_from", "last_to")]
        return await history.compare((edges[0], edges[1]), (edges[2], edges[3]))

    async def log(request: Request) -> object:
        start = _instant(request, "start") if "start" in request.query_params else None
        return await history.log(request.query_params.get("replica", ""), start)

    asked = (ribbons, costs, wakes, requests, cost, plan, explain, compare, log)
    return {question.__name__: question for question in asked}


def count(request: Request, name: str, usual: int, most: int) -> int:
    """Return a number that a request names, at most `most`. Raises RequestFault."""
    value = _number(request, name, usual)
    if not 1 <= value <= most:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{name} must be 1 to {most}")
    return value


def _instant(request: Request, name: str) -> int:
    value = _number(request, name, -1)
    if not 0 <= value < 2**62:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{name} is missing or out of range")
    return value


def _number(request: Request, name: str, usual: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return usual
    try:
        return int(text[:30])
    except ValueError:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{name} must be a whole number") from None
