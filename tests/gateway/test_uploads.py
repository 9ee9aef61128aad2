"""Large forms: routed by their `model` wherever it is, kept on disk, bounded in memory and on disk."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from tests.waiting import until

from poorwill.gateway.downstream.spool import Spool

from .site import M1, post, running_site
from .talk import talk
from .toy_upstream import Asked, ToyUpstream, answer, closes_unread

MB = 2**20
FORM = "multipart/form-data; boundary=b0undary"
ROOMY = {"max_upload_bytes": 64 * MB, "max_uploads_bytes": 256 * MB}


def field(name: str, value: bytes) -> bytes:
    return b'--b0undary\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)


NOISE = os.urandom(5 * MB)
MODEL_LAST = field("file", NOISE) + field("model", b"m1") + b"--b0undary--\r\n"
MODEL_FIRST = field("model", b"m1") + field("file", NOISE) + b"--b0undary--\r\n"


async def says_what_came(asked: Asked, writer: asyncio.StreamWriter) -> None:
    digest = hashlib.sha256(asked.body).hexdigest()
    writer.write(answer(200, json.dumps({"digest": digest, "size": len(asked.body)}).encode()))


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


async def send(url: str, body: bytes | AsyncIterator[bytes]) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=60) as client:
        headers = {"content-type": FORM}
        return await client.post(f"{url}/audio/transcriptions", content=body, headers=headers)


@pytest.mark.parametrize("body", [MODEL_FIRST, MODEL_LAST], ids=["model first", "model last"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_large_form_passes_byte_for_byte(body: bytes, *, chunked: bool) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    async with running_site(says_what_came, **ROOMY) as site:
        got = await send(site.url, in_chunks() if chunked else body)
        assert got.json() == {"digest": digest(body), "size": len(body)}
        assert (await site.ledger.row()).model == M1


async def test_its_model_is_renamed() -> None:
    async with running_site(says_what_came, **ROOMY) as site:
        site.activator.engine_model = "whisper-large"
        changed = MODEL_LAST.replace(b"\r\n\r\nm1\r\n", b"\r\n\r\nwhisper-large\r\n")
        assert (await send(site.url, MODEL_LAST)).json()["digest"] == digest(changed)


async def test_a_form_waits_for_a_wake() -> None:
    async with running_site(says_what_came, parked=True, **ROOMY) as site, asyncio.TaskGroup() as group:
        asking = group.create_task(send(site.url, MODEL_FIRST))
        await site.held()
        site.wake()
        assert (await asking).json()["digest"] == digest(MODEL_FIRST)


async def test_a_stale_connection_gets_it_again() -> None:
    tries = 0

    async def stale_once(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await says_what_came(asked, writer)
        if tries == 1:
            await closes_unread(writer)

    async with running_site(stale_once, **ROOMY) as site:
        assert (await send(site.url, MODEL_FIRST)).status_code == 200
        assert (await send(site.url, MODEL_FIRST)).json()["digest"] == digest(MODEL_FIRST)


async def test_a_silent_host_takes_no_half_form_along() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def reads_no_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await over.wait()
        writer.transport.abort()

    async with running_site(says_what_came, **ROOMY) as site, asyncio.TaskGroup() as group:
        deaf = await asyncio.start_server(reads_no_more, "127.0.0.1", 0, limit=1)
        async with deaf:
            port = deaf.sockets[0].getsockname()[1]
            site.activator.ready[M1] = ToyUpstream(says_what_came, port=port)
            asking = group.create_task(send(site.url, MODEL_FIRST))
            await begun.wait()
            site.activator.ready[M1] = site.upstream
            site.pool.cut("127.0.0.1", port, "its host is silent", again=True)
            assert (await asking).json()["digest"] == digest(MODEL_FIRST)
            over.set()


async def test_one_that_is_too_large_is_refused() -> None:
    async with running_site(says_what_came, max_upload_bytes=2 * MB) as site:
        async with talk(site.port) as client:
            client.send(post(MODEL_FIRST, path="/v1/audio/transcriptions", headers=[f"Content-Type: {FORM}"]))
            refused = await client.answer()
        assert refused.status == 413 and b"2097152 bytes" in refused.body
        assert not site.upstream.asked


async def test_a_json_body_is_never_so_large() -> None:
    async with running_site(says_what_came, **ROOMY) as site, talk(site.port) as client:
        client.send(post({"model": "m1", "pad": "x" * MB}))
        assert (await client.answer()).status == 413


async def test_the_disk_is_bounded() -> None:
    async with running_site(says_what_came, **(ROOMY | {"max_uploads_bytes": 4 * MB})) as site:
        got = await send(site.url, MODEL_FIRST)
        assert (got.status_code, got.json()["error"]["code"]) == (503, "overloaded")


async def test_a_form_without_a_model_is_refused() -> None:
    async with running_site(says_what_came, **ROOMY) as site:
        got = await send(site.url, field("file", NOISE) + b"--b0undary--\r\n")
        assert got.status_code == 400
        assert (await send(site.url, b"x" * (2 * MB))).status_code == 400


def open_files() -> set[str]:
    """What has no name any more and is still open."""
    names = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(os.readlink(path))
    return {name for name in names if "(deleted)" in name}


async def test_a_client_that_leaves_takes_its_form_along() -> None:
    before = open_files()
    async with running_site(says_what_came, parked=True, **ROOMY) as site:
        async with talk(site.port) as client:
            whole = post(MODEL_FIRST, path="/v1/audio/transcriptions", headers=[f"Content-Type: {FORM}"])
            client.send(whole)
            await site.held()
        await site.activator.until(lambda: site.activator.withdrawn == 1)
        async with talk(site.port) as client:
            client.send(whole[: 3 * MB])
            await until(lambda: open_files() - before)
        await until(lambda: not open_files() - before)
        site.wake()
        assert (await send(site.url, MODEL_FIRST)).status_code == 200
        await until(lambda: not open_files() - before)


async def test_an_engine_may_answer_before_it_has_all() -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(400, b'{"error": {"message": "no"}}'))
        await writer.drain()
        await reader.read(-1)
        writer.close()

    async with running_site(says_what_came, **ROOMY) as site:
        server = await asyncio.start_server(refuses, "127.0.0.1", 0)
        async with server:
            site.upstream.port = server.sockets[0].getsockname()[1]
            got = await send(site.url, MODEL_FIRST)
            assert (got.status_code, got.json()["error"]["message"]) == (400, "no")
            await site.settled()


async def test_an_engine_that_dies_meanwhile_fails_it() -> None:
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with running_site(says_what_came, **ROOMY) as site:
        server = await asyncio.start_server(dies, "127.0.0.1", 0)
        async with server:
            site.upstream.port = server.sockets[0].getsockname()[1]
            got = await send(site.url, MODEL_FIRST)
            assert (got.status_code, got.json()["error"]["code"]) == (502, "replica_lost")
            await site.settled()


async def test_pieces_are_found_across_reads(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    body = b"a" * (2**18 - 3) + b"needle" + b"b" * 10
    spool.add(body)
    await spool.flush()
    assert spool.find(b"needle", 0) == 2**18 - 3
    assert spool.find(b"needle", 2**18) == -1
    assert spool[2**18 - 3 : 2**18 + 3] == b"needle"
    spool.close()


async def test_a_form_dropped_as_it_is_written(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.add(NOISE)
    writing = asyncio.get_running_loop().create_task(spool.flush())
    await asyncio.sleep(0)
    spool.add(NOISE)  # came before its client went
    spool.close()
    await writing
    await spool.flush()
