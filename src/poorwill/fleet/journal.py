"""A ledger writer that also passes every entry on to live listeners."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from poorwill.core.entries import Alive, Entry
from poorwill.core.ports.ledger import LedgerWriter

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
class Journal:
    """A LedgerWriter in front of the ledger that also serves feeds and listeners (metrics)."""

    ledger: LedgerWriter
    listeners: tuple[Callable[[Entry], None], ...] = ()
    """Called with every entry on the event loop's thread; must be quick and must not raise."""
    feeds: set[Feed] = field(default_factory=set)

    def record(self, entries: Sequence[Entry]) -> Awaitable[None]:
        """Hand the entries over now; the awaitable resolves after COMMIT."""
        self._tell(entries)
        return self.ledger.record(entries)

    def post(self, entries: Sequence[Entry]) -> None:
        """Hand the entries over; committed within a second."""
        self._tell(entries)
        self.ledger.post(entries)

    @property
    def unavailable(self) -> str:
        """Why the ledger cannot commit now, or empty."""
        return self.ledger.unavailable

    def dropped_rows(self) -> int:
        """Return how many request rows were dropped since the last call, 0 while nothing can be written."""
        return self.ledger.dropped_rows()

    def feed(self) -> Feed:
        """Open a feed of what is written from now on."""
        feed = Feed(leave=self.feeds.discard)
        self.feeds.add(feed)
        return feed

    def close(self) -> None:
        """Close every feed."""
        for feed in list(self.feeds):
            feed.close()

    def _tell(self, entries: Sequence[Entry]) -> None:
        if not self.feeds and not self.listeners:
            return
        for entry in entries:
            for listener in self.listeners:
                listener(entry)
            if not isinstance(entry, Alive):
                for feed in self.feeds:
                    feed.put(entry)
