"""The writing side of the ledger."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from poorwill.core.entries import Entry


class LedgerWriter(Protocol):
    """The writing side of the ledger. Entries are applied in the order of the calls, across both methods."""

    def record(self, entries: Sequence[Entry]) -> Awaitable[None]:
        """Hand the entries over now; the awaitable resolves after COMMIT.

        Raises OperatorFault(LEDGER_UNAVAILABLE) from the awaitable if they could not be committed.
        Abandoning the awaitable does not take the entries back.
        """
        ...

    def post(self, entries: Sequence[Entry]) -> None:
        """Hand the entries over; committed in a batch within a second. Never blocks, never raises."""
        ...

    @property
    def unavailable(self) -> str:
        """Why nothing can be committed now (disk full, locked), or empty."""
        ...

    def dropped_rows(self) -> int:
        """Return how many request rows were dropped since the last call, 0 while nothing can be written."""
        ...
