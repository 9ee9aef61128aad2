"""What is written to the ledger, as it is written, for whoever looks on.

All readers share one list, so that an entry costs the warm path the same however many look on.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from poorwill.core.entries import Alive, Entry

FEED_LENGTH = 1_000


@dataclass(slots=True, kw_only=True, eq=False)
class Feed:
    """One reader's place in the entries; a reader that falls behind loses the oldest."""

    source: "Feeds"
    read: int
    closed: bool = False

    def __aiter__(self) -> "Feed":
        return self

    async def __anext__(self) -> Entry | int:
        source = self.source
        while self.read == source.written:
            if self.closed:
                raise StopAsyncIteration
            source.news.clear()
            await source.news.wait()
        lost = source.written - len(source.entries) - self.read
        if lost > 0:
            self.read += lost
            return lost
        self.read += 1
        return source.entries[self.read - 1 - source.written]

    def rest(self) -> Sequence[Entry]:
        """Return what there is besides, without waiting."""
        source = self.source
        unread = min(source.written - self.read, len(source.entries))
        self.read = source.written
        return list(islice(source.entries, len(source.entries) - unread, None))

    def close(self) -> None:
        """Stop the feed; a reader that waits is released."""
        self.closed = True
        self.source.news.set()
        self.source.feeds.discard(self)


@dataclass(slots=True, kw_only=True, eq=False)
class Feeds:
    """The last entries, and the feeds of everybody who looks on; `put` is a listener of the journal."""

    feeds: set[Feed] = field(default_factory=set)
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=FEED_LENGTH))
    written: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, entry: Entry) -> None:
        """Pass an entry on to whoever looks on; signs of life are no news."""
        if self.feeds and not isinstance(entry, Alive):
            self.entries.append(entry)
            self.written += 1
            self.news.set()

    def feed(self) -> Feed:
        """Open a feed of what is written from now on."""
        if not self.feeds:
            self.entries.clear()
        feed = Feed(source=self, read=self.written)
        self.feeds.add(feed)
        return feed

    def close(self) -> None:
        """Close every feed."""
        for feed in list(self.feeds):
            feed.close()
