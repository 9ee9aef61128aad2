"""How an engine that answers no question is quoted, and what its counters tell."""

import asyncio

import pytest

from poorwill.core.ports.driver import DriverError
from poorwill.engines.asking import Endpoint, NoQuestion, vital_signs, warm_up

PAGE = b"<html>\n  <h1>Error</h1>\n</html>\n"


async def _page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    head = b"HTTP/1.1 501 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(PAGE)
    writer.write(head + PAGE)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_a_page_of_html_is_quoted_in_one_line() -> None:
    server = await asyncio.start_server(_page, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(host="127.0.0.1", port=port, model="m", extra={})
        with pytest.raises(DriverError) as caught:
            await warm_up(endpoint, timeout_s=5)
    assert "/v1/embeddings 501 <html> <h1>Error</h1> </html>" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "fault"),
    [(b"File Not Found (/v1/x)", NoQuestion), (b'{"message": "The model `m` does not exist."}', DriverError)],
)
async def test_an_engine_for_no_text_is_told_apart(body: bytes, fault: type[DriverError]) -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 404 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuses, "127.0.0.1", 0) as server:
        endpoint = Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1], model="m", extra={})
        with pytest.raises(DriverError) as caught:
            await warm_up(endpoint, timeout_s=5)
    assert type(caught.value) is fault


METRICS = b"""\
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0"} 7.0
vllm:kv_cache_usage_perc 0.25
http_requests_total{handler="/v1/completions"} 9.0
vllm:time_per_output_token_seconds_sum 3.0
llamacpp:prompt_tokens_seconds 2669.04
llamacpp:n_decode_total 1
"""


async def test_only_work_is_a_vital_sign() -> None:
    """Requests count up with the question itself, and some rates begin anew with each look."""

    async def metrics(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        known = asked.startswith(b"GET /metrics")
        head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (200 if known else 404, len(METRICS))
        writer.write(head + METRICS)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(metrics, "127.0.0.1", 0) as server:
        endpoint = Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1], model="m", extra={})
        told = await vital_signs(endpoint, ("/health", "/slots", "/metrics"))
        assert await vital_signs(endpoint, ("/health",)) == "", "it tells nothing"
    assert told is not None and [line.split()[-1] for line in told.splitlines()] == ["7.0", "0.25", "1"]
    assert await vital_signs(endpoint, ("/health",)) is None, "it does not answer"
