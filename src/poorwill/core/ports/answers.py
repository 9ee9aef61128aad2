"""What the gateway asks about answers on their way to a client: how many tokens they are about.

Counts follow the dialects that engines and hosted APIs speak, so who reads them lives with the engines.
"""

from typing import Protocol

from msgspec import Struct

from poorwill.core.tokens import NO_PARTS, TokenParts


class Counts(Struct, frozen=True, kw_only=True):
    """The tokens of one request; None is unknown. A Struct: one is made for every request."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    parts: TokenParts = NO_PARTS
    counted: bool = False
    """Whether they were counted on the way instead of reported as usage."""


UNKNOWN = Counts()


class AnswerReader(Protocol):
    """Reads one answer piece by piece, within a bound of memory."""

    def feed(self, data: bytes) -> bytes:
        """Read the next piece, however the answer was split; return what of it is for the client.

        That is all of it, unless the usage that nobody but the gateway asked for is in it.
        """
        ...

    def rest(self) -> bytes:
        """Return what was held back when the answer ends, because it might have been usage."""
        ...

    def counts(self, *, complete: bool) -> Counts:
        """Return the counts; an answer that was broken off has no final ones."""
        ...


class NewReader(Protocol):
    """Makes what reads an answer."""

    def __call__(self, content_type: bytes, *, hides: bool) -> AnswerReader | None:
        """Return a reader, None if an answer of this content type (in lower case) never has a count.

        `hides`: the usage of a stream is to be taken out of it.
        """
        ...
