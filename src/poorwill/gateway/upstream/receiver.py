"""Who receives what an engine or a hosted API answers on a connection."""

from collections.abc import Sequence
from typing import Protocol

from poorwill.core.errors import PoorwillError
from poorwill.gateway.downstream.exchange import Link
from poorwill.gateway.downstream.response import Headers


class ResponseHandler(Protocol):
    """Receives the answer on a connection: an exchange, or a bridged request. Methods as `Exchange`'s."""

    def attach(self, link: Link) -> None:
        """Wait for the answer on this connection."""
        ...

    def on_head(self, status: int, headers: Headers, *, length: int | None, content_type: bytes) -> None:
        """Take the head of the answer."""
        ...

    def flush(self) -> None:
        """The head has arrived and the body has not."""
        ...

    def on_body(self, parts: Sequence[bytes]) -> None:
        """Take pieces of the body."""
        ...

    def on_end(self) -> None:
        """The answer is complete."""
        ...

    def on_lost(self, *, not_begun: bool, why: str) -> None:
        """The connection is gone before the answer was complete."""
        ...

    def fail(self, error: PoorwillError) -> None:
        """The connection, or its owner, gives up."""
        ...
