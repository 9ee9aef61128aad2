"""A ledger writer that also passes every entry on to live listeners."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from poorwill.core.entries import Entry
from poorwill.core.ports.ledger import LedgerWriter


@dataclass(slots=True, kw_only=True, eq=False)
class Journal:
    """A LedgerWriter in front of the ledger that also tells its listeners: metrics, logs, feeds."""

    ledger: LedgerWriter
    listeners: tuple[Callable[[Entry], None], ...] = ()
    """Called with every entry on the event loop's thread; must be quick and must not raise."""

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

    def _tell(self, entries: Sequence[Entry]) -> None:
        for listener in self.listeners:
            for entry in entries:
                listener(entry)
