"""Reads HTTP answers of engines and clouds, which may be broken into or send without end.

httpx reads an answer whole and unpacks it: 2.5 GB of a readiness answer, or a few kilobytes that unpack to
4 GB, would end poorwill. Here nothing compressed is taken, and no more than a bound is read.
"""

from collections.abc import Mapping

import httpx2

MOST_ANSWER_BYTES = 8 * 2**20


async def bounded_answer(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    json: Mapping[str, object] | None = None,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    most_bytes: int = MOST_ANSWER_BYTES,
) -> httpx2.Response:
    """Make a request and return its answer, read to its end.

    Raises httpx2.HTTPError, also for an answer that is compressed or larger than `most_bytes`. Cancelled: the
    connection is closed.
    """
    plain = {**(headers or {}), "accept-encoding": "identity"}
    async with client.stream(method, url, json=json, params=params, headers=plain) as answer:
        if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise httpx2.DecodingError("the answer is compressed, though that was not asked for")
        parts, size = [], 0
        async for part in answer.aiter_raw():
            size += len(part)
            if size > most_bytes:
                raise httpx2.ReadError(f"the answer is larger than {most_bytes} bytes")
            parts.append(part)
        return httpx2.Response(
            answer.status_code, headers=answer.headers, content=b"".join(parts), request=answer.request
        )


async def answered_status(client: httpx2.AsyncClient, url: str) -> int:
    """Return the status that a GET is answered with; nothing of the body is read. Raises httpx2.HTTPError."""
    async with client.stream("GET", url) as answer:
        return answer.status_code
