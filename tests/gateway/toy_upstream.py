"""Toy engines on loopback that speak raw HTTP, written so that a test can make them misbehave.

`ToyUpstream` answers chat completions like a small engine. What it does is decided per request by a
script: a coroutine that gets the request and the writer. It records every request and connection.
"""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11


@dataclass(slots=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


Script = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class ToyUpstream:
    script: Script
    host: str = "127.0.0.1"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client connection ended."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request arrived."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    stop_listening: Callable[[], None] = lambda: None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that arrives with a request has become true."""
        async with asyncio.timeout(5):
            while not condition():
                self.arrived.clear()
                await self.arrived.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        try:
            while (asked := await _read(reader, number)) is not None:
                self.asked.append(asked)
                self.arrived.set()
                await self.script(asked, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        except (ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
            pass
        except RuntimeError:  # uvloop's, for a script that writes to a client that left
            if not writer.is_closing():
                raise
        finally:
            self.open_connections -= 1
            self.closed.set()
            self.tasks.discard(task)
            writer.close()


@asynccontextmanager
async def toy_upstream(
    script: Script | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ToyUpstream]:
    toy = ToyUpstream(script=script or chat)
    server = await asyncio.start_server(toy.serve, toy.host, port, ssl=tls)
    toy.port = server.sockets[0].getsockname()[1]
    toy.stop_listening = server.close
    try:
        yield toy
    finally:
        server.close()
        for task in list(toy.tasks):
            task.cancel()
        await asyncio.gather(*toy.tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, number: int) -> Asked | None:
    connection = h11.Connection(h11.SERVER)
    request: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(65536)
            if not data and request is None:
                return None
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.ConnectionClosed):
            return None
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            headers = {k.decode(): v.decode("latin-1") for k, v in request.headers}
            return Asked(request.method.decode(), request.target.decode(), headers, body, number)


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def answer(status: int, body: bytes, *headers: str, content_type: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} Toy", f"content-type: {content_type}", *headers]
    lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(document: object) -> bytes:
    return chunk(b"data: " + json.dumps(document).encode() + b"\n\n")


def completion(model: str) -> dict[str, object]:
    message = {"role": "assistant", "content": "hello there"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def delta(model: str, text: str, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [choice],
        **more,
    }


async def closes_unread(writer: asyncio.StreamWriter, *, politely: bool = False) -> None:
    """Close the connection as the next request arrives, unread: a keep-alive timeout won the race.

    Politely, as llama.cpp's server does: shut down first.
    """
    await writer.drain()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    arrived, loop = asyncio.Event(), asyncio.get_running_loop()
    descriptor = os.dup(writer.get_extra_info("socket").fileno())
    loop.add_reader(descriptor, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    if politely:
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
    writer.transport.abort()


async def takes(seconds: float) -> None:
    """Pass simulated time: an engine that works, a client that thinks. Never used to wait for an effect."""
    over = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()


async def chat(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer like an engine: chat, completions, embeddings, messages; streamed where asked for."""
    ask = asked.json() if asked.body else {}
    model = str(ask.get("model"))
    path = asked.target.partition("?")[0]
    if path == "/v1/embeddings":
        rows = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        document: object = {"object": "list", "data": rows, "model": model, "usage": usage}
        writer.write(answer(200, json.dumps(document).encode()))
    elif path == "/v1/messages":
        await _messages(ask, model, writer)
    elif path == "/v1/completions":
        choice = {"index": 0, "text": "hello", "finish_reason": "stop", "logprobs": None}
        document = completion(model) | {"object": "text_completion", "choices": [choice]}
        writer.write(answer(200, json.dumps(document).encode()))
    elif ask.get("stream") is True:
        writer.write(EVENTS_HEAD)
        for text in ("hello", " ", "there"):
            writer.write(event(delta(model, text)))
            await writer.drain()
            await takes(0)
        writer.write(event(delta(model, "", usage=USAGE) | {"choices": []}))
        writer.write(chunk(b"data: [DONE]\n\n") + LAST)
    else:
        writer.write(answer(200, json.dumps(completion(model)).encode()))


async def _messages(ask: dict[str, object], model: str, writer: asyncio.StreamWriter) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "hello there"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    if ask.get("stream") is not True:
        writer.write(answer(200, json.dumps(message).encode()))
        return
    started = message | {"content": [], "stop_reason": None}
    started["usage"] = {"input_tokens": 9, "output_tokens": 1}
    events = [
        {"type": "message_start", "message": started},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "hello there"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 4},
        },
        {"type": "message_stop"},
    ]
    writer.write(EVENTS_HEAD)
    for one in events:
        data = f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode()
        writer.write(chunk(data))
        await writer.drain()
    writer.write(LAST)
