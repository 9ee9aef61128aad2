"""Asks an admin listener, as `poorwill status` does.

A few lines over httptools: a general client takes longer to import than all the rest of `status`.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import SplitResult

import httptools
import msgspec

from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, TryLater
from poorwill.core.settings.addresses import is_loopback

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSite:
    """An admin listener, and what it takes to be let in."""

    url: SplitResult
    who: str
    """Who is behind it, for errors."""
    key: str = ""
    ca: str | None = None
    """A file of certificates (PEM) that are trusted; those of the system, if None."""


class _RefusalReason(msgspec.Struct):
    code: ErrorCode
    message: str
    hint: str | None = None


class _Refusal(msgspec.Struct):
    error: _RefusalReason


class _Answer:
    """An HTTP answer as the parser reports it."""

    def __init__(self) -> None:
        self.retry_after = b""
        self.body = bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value

    def on_body(self, body: bytes) -> None:
        self.body += body


async def ask_listener(
    site: AdminSite, method: str, path: str, document: type[T], *, timeout_s: float | None
) -> T:
    """Ask a listener and return the document that it answers.

    Raises OperatorFault(NOT_RUNNING) if nobody answers who can be trusted, or the error that was answered.
    Cancelled: what was started goes on.
    """
    if site.key and site.url.scheme == "http" and not is_loopback(site.url.hostname or ""):
        what = f"the key would go to {site.url.netloc} unencrypted"
        raise OperatorFault(ErrorCode.INVALID_REQUEST, what, hint="ask by https://, or through a tunnel")
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    try:
        async with asyncio.timeout(timeout_s):
            parser.feed_data(await _exchange(site, method, path))
        status = parser.get_status_code()
        if not 200 <= status < 300:
            raise _answered(status, answer)
        return msgspec.json.decode(answer.body, type=document)
    except ssl.SSLCertVerificationError as error:
        what = f"the certificate of {site.url.netloc} is not trusted: {error.verify_message}"
        hint = "--ca FILE names the certificate that vouches for it"
        raise OperatorFault(ErrorCode.NOT_RUNNING, what, hint=hint) from error
    except (OSError, EOFError, httptools.HttpParserError, msgspec.MsgspecError) as error:
        what = f"{site.who} does not answer at {site.url.netloc}: {error!r}"
        raise OperatorFault(ErrorCode.NOT_RUNNING, what, hint="see its log") from error


async def _exchange(site: AdminSite, method: str, path: str) -> bytes:
    """Return everything that comes back on a connection of its own."""
    url = site.url
    secure = ssl.create_default_context(cafile=site.ca) if url.scheme == "https" else None
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure)
    allowed = f"Authorization: Bearer {site.key}\r\n" if site.key else ""
    line = f"{method} {url.path.rstrip('/')}{path} HTTP/1.1\r\n"
    try:
        writer.write(f"{line}Host: {url.netloc}\r\n{allowed}Connection: close\r\n\r\n".encode())
        data = await reader.read(-1)
    finally:
        writer.close()
    if not data:
        raise EOFError("the connection was closed")
    return data


def _answered(status: int, answer: _Answer) -> PoorwillError:
    try:
        error = msgspec.json.decode(answer.body, type=_Refusal).error
    except msgspec.MsgspecError:
        text = answer.body[:300].decode(errors="replace")
        return OperatorFault(ErrorCode.INTERNAL, f"status {status}: {text}")
    seconds = int(answer.retry_after) if answer.retry_after.isdigit() else None
    return TryLater(error.code, error.message, retry_after_s=seconds, hint=error.hint)
