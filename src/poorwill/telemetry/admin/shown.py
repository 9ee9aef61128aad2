"""What the admin listener shows: the gateway and the dashboard, as it sees them."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import BinaryIO, Protocol

from starlette.requests import Request
from starlette.responses import Response

from poorwill.core.errors import PoorwillError
from poorwill.telemetry.admin.listener import Accepting, Tls


class Gateway(Protocol):
    """What the admin listener shows of the gateway, and what both listeners speak alike."""

    @property
    def admin_routes(self) -> Sequence[tuple[str, Sequence[str], str]]:
        """The admin listener's rows of the route table: path, methods, action."""
        ...

    def health(self) -> Mapping[str, object]:
        """Return how the gateway itself is."""
        ...

    def bridges(self) -> Sequence[Mapping[str, object]]:
        """Return how each bridge stands."""
        ...

    async def metrics_text(self) -> str:
        """Return everything counted, in Prometheus' text format."""
        ...

    def post_rows(self) -> None:
        """Hand the rows of every request that has ended to the ledger."""
        ...

    def error_answer(self, error: PoorwillError) -> tuple[int, Mapping[str, object], Mapping[str, str]]:
        """Return an error's status, body and headers."""
        ...

    def no_route(self, *, method: str, path: str, allowed: Sequence[str]) -> PoorwillError:
        """Return the error of a request that no route answers."""
        ...

    def accept(
        self,
        make: Callable[[str], asyncio.Protocol],
        make_room: Callable[[str | None], bool],
        tls: Tls | None,
    ) -> Accepting:
        """Return what accepts a listener's connections, within its limit."""
        ...

    def foreign_page(self, *, method: str, headers: Mapping[str, str], names: Collection[str]) -> str:
        """Return why a web page may not ask this, or nothing. `names` are the listener's own."""
        ...


class Dashboard(Protocol):
    """What people look at: a page, what it asks, and events as they happen."""

    async def page(self, request: Request) -> Response:
        """Answer with the page."""
        ...

    async def chat(self, request: Request) -> Response:
        """Answer with what a model answers to an operator."""
        ...

    async def past(self, request: Request) -> Response:
        """Answer the question about the past that the path names."""
        ...

    async def ledger(self) -> BinaryIO:
        """Return a consistent copy of the ledger, to be closed. Raises OperatorFault if there is no room."""
        ...

    async def events(self, request: Request) -> Response:
        """Answer with a stream of events."""
        ...

    def standing(self) -> Mapping[str, object]:
        """Return what it adds to the fleet's state: downloads, and whose prompts are kept."""
        ...

    def pull(self, name: str, *, by: str) -> object:
        """Have a model downloaded, and return how that stands. Raises RequestFault, TryLater."""
        ...

    def stop_pull(self, name: str) -> object:
        """Stop a download, and return how it stands. Raises RequestFault."""
        ...

    def prompt(self, request: str) -> object:
        """Return what a request asked, if that is kept. Raises RequestFault."""
        ...

    def end_streams(self) -> None:
        """End every open stream of events."""
        ...
