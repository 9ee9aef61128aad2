"""What is written to the ledger, as it is written, for whoever looks on."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from poorwill.core.entries import Alive, Entry

FEED_LENGTH = 1_000


@dataclass(slots=True, kw_only=True, eq=False)
class Feed:
    """A bounded feed of entries for one reader; a reader that falls behind loses the oldest."""

    leave: Callable[["Feed"], None]
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=FEED_LENGTH))
    lost: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    def put(self, entry: Entry) -> None:
        """Append an entry, dropping the oldest if the feed is full."""
        if len(self.entries) == FEED_LENGTH:
            self.lost += 1
        self.entries.append(entry)
        self.news.set()

    def __aiter__(self) -> "Feed":
        return self

    async def __anext__(self) -> Entry | int:
        while not self.entries and not self.lost:
            if self.closed:
                raise StopAsyncIteration
            self.news.clear()
            await self.news.wait()
        if self.lost:
            lost, self.lost = self.lost, 0
            return lost
        return self.entries.popleft()

    def close(self) -> None:
        """Stop the feed; a reader that waits is released."""
        self.closed = True
        self.news.set()
        self.leave(self)


@dataclass(slots=True, kw_only=True, eq=False)
class Feeds:
    """The feeds of everybody who looks on; `put` is a listener of the journal."""

    feeds: set[Feed] = field(default_factory=set)

    def put(self, entry: Entry) -> None:
        """Pass an entry on to every feed; signs of life are no news."""
        if not isinstance(entry, Alive):
            for feed in self.feeds:
                feed.put(entry)

    def feed(self) -> Feed:
        """Open a feed of what is written from now on."""
        feed = Feed(leave=self.feeds.discard)
        self.feeds.add(feed)
        return feed

    def close(self) -> None:
        """Close every feed."""
        for feed in list(self.feeds):
            feed.close()
