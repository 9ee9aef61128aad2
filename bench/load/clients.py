"""Very many clients in one asyncio loop: each a connection, a request, and the order of their answers."""

import asyncio
import json
from dataclasses import dataclass, field


@dataclass
class Crowd:
    """Connections of one run, by number, in the order in which they asked."""

    port: int
    first: list[int] = field(default_factory=list)
    """Who had a first byte of an answer, in that order."""
    whole: list[int] = field(default_factory=list)
    """Whose answer was complete and a 200, in that order."""
    refused: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    open: list["Client"] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, model: str, **fields: object) -> None:
        """Connect and ask; return when the request is sent."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
        text = json.dumps(body).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        number = len(self.open)
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(self, number), "127.0.0.1", self.port
        )
        self.open.append(client)
        client.transport.write(head + b"content-length: %d\r\n\r\n" % len(text) + text)

    async def until(self, count: int, *, what: str, within_s: float) -> None:
        """Wait until so many have had a first byte, or a whole answer. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while (
                len(self.first if what == "first" else self.whole) + sum(self.refused.values()) + self.cut
                < count
            ):
                self.changed.clear()
                await self.changed.wait()

    def leave(self) -> None:
        for client in self.open:
            client.transport.abort()


class Client(asyncio.Protocol):
    """One of them."""

    __slots__ = ("crowd", "number", "said", "transport")
    transport: asyncio.Transport

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd, self.number, self.said = crowd, number, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if b"data: {" in data or b'"choices"' in data:
            if b'"choices"' not in self.said:
                self.crowd.first.append(self.number)
                self.crowd.changed.set()
        self.said = (self.said + data)[-4096:]

    def connection_lost(self, error: Exception | None) -> None:
        crowd = self.crowd
        if self.said.startswith(b"HTTP/1.1 200") and b'"choices"' in self.said:
            crowd.whole.append(self.number)
        elif self.said.startswith(b"HTTP/1.1 "):
            status = self.said[9:12].decode()
            crowd.refused[status] = crowd.refused.get(status, 0) + 1
        else:
            crowd.cut += 1
        crowd.changed.set()
