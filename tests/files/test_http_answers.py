"""Answers of engines and clouds are read within a bound, from a real server that sends too much."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from poorwill.remote.http_answers import answered_status, bounded_answer

OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"


@asynccontextmanager
async def server(head: bytes, piece: bytes, pieces: int = 1) -> AsyncIterator[httpx2.AsyncClient]:
    """A server that answers everything with a head and as many pieces as its client takes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"\r\n")
        try:
            for _ in range(pieces):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield client


async def test_an_answer_is_read_whole() -> None:
    async with server(OK, b'{"a":1}') as client:
        answer = await bounded_answer(client, "GET", "/", params={"b": 2})
        assert (answer.status_code, answer.json()) == (200, {"a": 1})


async def test_an_endless_answer_is_an_error() -> None:
    async with server(OK, b"x" * 2**16, 10_000) as client:
        with pytest.raises(httpx2.ReadError, match="larger than 100000 bytes"):
            await bounded_answer(client, "GET", "/", most_bytes=100_000)


async def test_compressed_answers_are_an_error() -> None:
    async with server(OK + b"content-encoding: gzip\r\n", gzip.compress(b"0" * 2**24)) as client:
        with pytest.raises(httpx2.DecodingError):
            await bounded_answer(client, "GET", "/")


async def test_a_status_needs_no_body() -> None:
    async with server(OK, b"x" * 2**16, 10_000) as client:
        assert await answered_status(client, "/") == 200
