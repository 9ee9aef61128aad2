"""An operator's own request to a model, sent through the inference listener as any client's is.

So limits, holds, heartbeats and the ledger treat it like every other request; its key is `operator`. The page
cannot ask the inference listener itself: that is another origin, which takes no requests from pages.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex

from httptools import HttpParserError, HttpResponseParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from poorwill.core.settings import Address
from poorwill.telemetry.dashboard.events import until_gone

_PATH = "/v1/chat/completions"
_ANY: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Playground:
    """Sends chats to the inference listener."""

    where: Callable[[], tuple[str, int]]
    credential: bytes = field(default_factory=lambda: token_hex().encode(), repr=False)
    """What the operator is known by there: a secret of this process alone."""

    async def chat(self, request: Request) -> Response:
        """Answer with what the model answers, as it comes. The client leaves: so does the request."""
        host, port = self.where()
        address = Address(_ANY.get(host, host), port)
        body = await request.body()
        head = (
            f"POST {_PATH} HTTP/1.1\r\nhost: {address}\r\n"
            f"authorization: Bearer {self.credential.decode()}\r\n"
            f"content-type: application/json\r\nuser-agent: poorwill playground\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return _Relayed(address=address, request=head.encode() + body)


class _Answer:
    """What the parser has found."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.began = self.complete = False
        self.body: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what is for the page; the rest is about this hop."""
        lower = name.lower()
        if lower in (b"content-type", b"retry-after", b"x-request-id") or lower.startswith(b"x-poorwill-"):
            self.headers.append((lower, value))

    def on_headers_complete(self) -> None:
        """Take note."""
        self.began = True

    def on_body(self, data: bytes) -> None:
        """Keep it until it is sent."""
        self.body.append(data)

    def on_message_complete(self) -> None:
        """Take note."""
        self.complete = True


class _Relayed(Response):
    """Relays one answer of the inference listener."""

    def __init__(self, *, address: Address, request: bytes) -> None:
        super().__init__()
        self._address = address
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request, and the answer as it comes, until either side leaves."""
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._relay(scope, receive, send))
            watch = group.create_task(until_gone(receive, work.cancel))
            await asyncio.wait([work])
            watch.cancel()

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reader, writer = await asyncio.open_connection(*self._address)
        except OSError as error:
            document = {"error": {"message": f"the inference listener does not answer: {error}"}}
            await JSONResponse(document, status_code=503)(scope, receive, send)
            return
        try:
            writer.write(self._request)
            await self._follow(reader, send)
        finally:
            writer.close()

    async def _follow(self, reader: asyncio.StreamReader, send: Send) -> None:
        answer, started = _Answer(), False
        parser = HttpResponseParser(answer)
        while not answer.complete:
            data = await reader.read(_READ_BYTES)
            try:
                parser.feed_data(data)
            except HttpParserError:
                return  # it broke off: so does this
            if answer.began and not started:
                started, status = True, parser.get_status_code()
                await send({"type": "http.response.start", "status": status, "headers": answer.headers})
            if answer.body:
                chunk = b"".join(answer.body)
                answer.body.clear()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if not data:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
