"""What an engine that answers no question is quoted with."""

import asyncio

import pytest

from poorwill.core.ports.driver import DriverError
from poorwill.engines.asking import Endpoint, warm_up

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
