"""The HTTP/1.1 server under the toy engine: enough for any client, on the standard library alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_BODY = 64 * 2**20


class Refused(Exception):
    """A request that gets an error in OpenAI's shape."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, its body read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    query: str = ""

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object."""
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise Refused(400, f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise Refused(400, "not a JSON object")
        return value


@dataclass(slots=True, kw_only=True)
class HttpReply:
    """A whole answer, or the events of a stream."""

    status: int = 200
    body: object = None
    events: AsyncIterator[str] | None = None
    content_type: str = "application/json"


Handler = Callable[[Request], Awaitable[HttpReply]]
Routes = Mapping[tuple[str, str], Handler]


async def listen(routes: Routes, host: str, port: int) -> asyncio.Server:
    """Start to serve the routes. Raises OSError."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_connection(routes, reader, writer)

    return await asyncio.start_server(serve_one, host, port, backlog=512)


async def serve_connection(
    routes: Routes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one client connection until it closes."""
    try:
        while (request := await read_request(reader)) is not None:
            handler = routes.get((request.method, request.path))
            try:
                if handler is None:
                    raise Refused(404, f"no {request.method} {request.path}")
                reply = await handler(request)
            except Refused as refused:
                error = {"message": str(refused), "type": "toy_error", "code": refused.status}
                reply = HttpReply(status=refused.status, body={"error": error})
            await write_reply(writer, reply)
            if request.headers.get("connection", "").lower() == "close":
                return
    except (ConnectionError, asyncio.IncompleteReadError, ValueError):
        pass  # the client left or does not speak HTTP
    finally:
        writer.close()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read one request, None at the end of the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join([chunk async for chunk in read_chunks(reader)])
    else:
        size = int(headers.get("content-length") or 0)
        if size > MOST_BODY:
            raise ValueError("body too large")
        body = await reader.readexactly(size)
    path, _, query = target.partition("?")
    return Request(method=method, path=path, headers=headers, body=body, query=query)


async def read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the chunks of a chunked body."""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        if size > MOST_BODY:
            raise ValueError("chunk too large")
        yield await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass


async def write_reply(writer: asyncio.StreamWriter, reply: HttpReply) -> None:
    """Write an answer, a stream event by event."""
    reason = "OK" if reply.status < 400 else "Error"
    head = f"HTTP/1.1 {reply.status} {reason}\r\nContent-Type: {reply.content_type}\r\n"
    if reply.events is None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    async for event in reply.events:
        data = f"data: {event}\n\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
