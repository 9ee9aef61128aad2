"""A client made of h11, which reads responses strictly and tells a clean end from a cut."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    interims: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    clean: bool = False

    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    def error(self) -> dict[str, object]:
        value = self.json()["error"]
        assert isinstance(value, dict)
        return value


@dataclass(slots=True)
class Talk:
    """One client connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    parser: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, method: str = "POST", until: bytes | None = None) -> Answer:
        """Read one response; `until` stops early, as soon as the body contains it."""
        answer = Answer()
        self._expect(method)
        async with asyncio.timeout(10):
            while True:
                try:
                    event = self.parser.next_event()
                except h11.RemoteProtocolError:
                    return answer
                if event is h11.NEED_DATA:
                    try:
                        data = await self.reader.read(65536)
                    except ConnectionError:
                        return answer
                    self.parser.receive_data(data)
                elif isinstance(event, h11.InformationalResponse):
                    answer.interims.append((event.status_code, _headers(event)))
                elif isinstance(event, h11.Response):
                    answer.status, answer.headers = event.status_code, _headers(event)
                elif isinstance(event, h11.Data):
                    answer.body += event.data
                    if until is not None and until in answer.body:
                        return answer
                elif isinstance(event, h11.EndOfMessage):
                    answer.clean = True
                    return answer
                else:
                    return answer

    async def first_interim(self) -> None:
        """Wait until at least one 102 came."""
        self._expect("POST")
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.InformationalResponse):
                return
            assert event is h11.NEED_DATA, event
            self.parser.receive_data(await self.reader.read(65536))

    def _expect(self, method: str) -> None:
        """Let h11 think that it has sent a request."""
        if self.parser.our_state is h11.MUST_CLOSE or self.parser.our_state is h11.SEND_BODY:
            return
        if self.parser.our_state is h11.DONE:
            if self.parser.their_state is not h11.DONE:
                return
            self.parser.start_next_cycle()
        self.parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        self.parser.send(h11.EndOfMessage())

    async def closed(self) -> bytes:
        """Return what comes until the connection ends."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    def leave(self) -> None:
        self.writer.transport.abort()


def _headers(event: h11.Response | h11.InformationalResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in event.headers:
        key = name.decode()
        assert key not in headers, f"{key} is sent twice"
        headers[key] = value.decode("latin-1")
    return headers


@asynccontextmanager
async def talk(port: int) -> AsyncIterator[Talk]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()
