"""Who receives what an engine or a hosted API answers on a connection, and where it rests afterwards."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from poorwill.core.errors import PoorwillError
from poorwill.gateway.downstream.exchange import Link, Lost
from poorwill.gateway.downstream.response import Headers
from poorwill.hosts.files.reach import Reach

C_contra = TypeVar("C_contra", contravariant=True)
"""A connection."""


class ResponseHandler(Protocol):
    """Receives the answer on a connection: an exchange, or a bridged request. Methods as `Exchange`'s."""

    def attach(self, link: Link) -> None:
        """Wait for the answer on this connection."""

    def on_head(self, status: int, headers: Headers, *, length: int | None, content_type: bytes) -> None:
        """Take the head of the answer."""

    def flush(self) -> None:
        """The head has arrived and the body has not."""

    def on_body(self, parts: Sequence[bytes]) -> None:
        """Take pieces of the body."""

    def on_end(self) -> None:
        """The answer is complete."""

    def on_lost(self, known: Lost, why: str) -> None:
        """The connection is gone before the answer was complete."""

    def fail(self, error: PoorwillError) -> None:
        """The connection, or its owner, gives up."""


class AddressPool(Protocol[C_contra]):
    """The pool's entry for one address: where a connection rests between exchanges."""

    @property
    def head_lines(self) -> bytes:
        """The header lines of its address: `Host`, and the key of an engine elsewhere."""

    ends_streams: bool
    """The engine has been seen to end a connection after an event stream: such a one is not used again."""

    @property
    def reach(self) -> Reach | None:
        """How its engine is reached, if it is elsewhere."""

    @property
    def relayed(self) -> bool:
        """Whether it is reached through the relay of another host."""

    def answered(self, now: float) -> None:
        """The engine has sent something to somebody."""

    def opened(self, upstream: C_contra) -> None:
        """The connection exists from now on."""

    def rest(self, upstream: C_contra) -> None:
        """The connection is idle and may be used again."""

    def closing(self, upstream: C_contra) -> None:
        """The connection must not be used again; `closed` follows."""

    def closed(self, upstream: C_contra) -> None:
        """The connection is gone."""
