"""What happens in the fleet, as a stream of server-sent events for the dashboard and for people with curl.

Each entry becomes one event named after its kind, with its fields as JSON. A reader that falls behind
learns how many it missed. Streams end when the client leaves and when the listener closes.

Many open pages must not slow requests down: what happens within a moment is sent together, each entry is
encoded once for all, and a page asks for no more than it can show (`/events?most=20`).
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from poorwill.core.entries import Entry, RequestEnded
from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.ports.view import EventFeed

KEEPALIVE_S = 15.0
TOGETHER_S, PAGE_TOGETHER_S = 0.2, 1.0
"""How long what happens is collected, after something was sent: for others, and for a page."""
_REMEMBERED = 1_000


class EventStreams:
    """The open event streams of a listener, kept so that it can end them."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._stops: set[Callable[[], object]] = set()
        self._texts: dict[int, tuple[Entry, str]] = {}

    def check_room(self) -> None:
        """Raises TryLater(OVERLOADED) if there are as many streams as there may be."""
        if len(self._stops) >= self._most:
            raise TryLater(
                ErrorCode.OVERLOADED,
                f"{self._most} streams of events are open already",
                hint="close one, or raise gateway.max_events",
                retry_after_s=5,
            )

    def add(self, stop: Callable[[], object]) -> None:
        """Register a stream that `stop` ends."""
        self._stops.add(stop)

    def discard(self, stop: Callable[[], object]) -> None:
        """Forget a stream that has ended."""
        self._stops.discard(stop)

    def text(self, entries: Sequence[Entry], most: int | None) -> str:
        """Return entries as events, of more than `most` not the first requests but how many they are."""
        left_out = 0
        if most is not None and len(entries) > most:
            requests = [entry for entry in entries if isinstance(entry, RequestEnded)]
            left_out = min(len(entries) - most, len(requests))
            dropped = {id(entry) for entry in requests[:left_out]}
            entries = [entry for entry in entries if id(entry) not in dropped]
        lost = event_text(left_out) if left_out else ""
        return lost + "".join(self._text(entry) for entry in entries)

    def _text(self, entry: Entry) -> str:
        known = self._texts.get(id(entry))
        if known is None:
            known = self._texts[id(entry)] = entry, event_text(entry)
            if len(self._texts) > _REMEMBERED:
                del self._texts[next(iter(self._texts))]
        return known[1]

    def end_all(self) -> None:
        """End every open stream."""
        for stop in tuple(self._stops):
            stop()


def event_text(item: Entry | int) -> str:
    """Return one event of the stream: an entry, or how many entries were lost."""
    if isinstance(item, int):
        return f"event: Lost\ndata: {json.dumps({'lost': item})}\n\n"
    return f"event: {type(item).__name__}\ndata: {json.dumps(asdict(item))}\n\n"


class EventResponse(Response):
    """A response that follows a feed. Closes the feed however it ends."""

    media_type = "text/event-stream"

    def __init__(self, *, feed: EventFeed, streams: EventStreams, most: int | None = None) -> None:
        super().__init__(headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._feed = feed
        self._streams = streams
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves or the listener ends its streams."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            await self._send(send, ": poorwill\n\n")
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._follow(send)),
                    group.create_task(self._keep_alive(send)),
                ]

                def stop() -> None:
                    for task in tasks:
                        task.cancel()

                self._streams.add(stop)
                watch = group.create_task(until_gone(receive, stop))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                self._streams.discard(stop)
                stop()
                watch.cancel()
        finally:
            self._feed.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, send: Send) -> None:
        async for item in self._feed:
            rest = self._feed.rest()
            text = event_text(item) if isinstance(item, int) else ""
            entries = rest if isinstance(item, int) else [item, *rest]
            await self._send(send, text + self._streams.text(entries, self._most))
            await asyncio.sleep(TOGETHER_S if self._most is None else PAGE_TOGETHER_S)

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            await self._send(send, ":\n\n")

    async def _send(self, send: Send, text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def until_gone(receive: Receive, stop: Callable[[], object]) -> None:
    """Wait until the client has left, then stop."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stop()
