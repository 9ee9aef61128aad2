"""Asks an admin listener, as `poorwill status` does.

A few lines over httptools: a general client takes longer to import than all the rest of `status`.
"""

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import SplitResult, urlsplit

import httptools
import msgspec

from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, TryLater
from poorwill.core.settings.addresses import is_loopback

T = TypeVar("T")
_READ_BYTES, _ERROR_BYTES = 2**18, 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSite:
    """An admin listener, and what it takes to be let in."""

    url: SplitResult
    who: str
    """Who is behind it, for errors."""
    key: str = ""
    ca: str | None = None
    """A file of certificates (PEM) that are trusted; those of the system, if None."""


def site_at(address: str, *, key_file: str, key: str, ca: str | None) -> AdminSite:
    """Return the admin listener at an address that somebody typed; `key` counts if no file is named.

    Raises OperatorFault if it is none, or its key cannot be read or is none.
    """
    try:
        key = Path(key_file).read_text().strip() if key_file else key
        url = urlsplit(address if "://" in address else f"http://{address}")
        if url.scheme in ("http", "https") and url.hostname and url.port != 0 and key.isprintable():
            return AdminSite(url=url, who="poorwill", key=key, ca=ca)
    except OSError as error:
        what = f"--key-file {key_file}: {error.strerror}"
        raise OperatorFault(ErrorCode.INVALID_REQUEST, what) from error
    except ValueError:
        pass
    what = f"--url {address}: not an address such as https://box:8443, or its key is none"
    raise OperatorFault(ErrorCode.INVALID_REQUEST, what)


async def copied_ledger(site: AdminSite, env: Mapping[str, str]) -> str:
    """Copy the ledger of a fleet that is served elsewhere, and return the file; an earlier copy is replaced.

    Raises as `ask_listener`. Cancelled: the earlier copy stays.
    """
    cache = Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME", "."), ".cache"), "poorwill", "ledgers")
    target = cache / f"{re.sub('[^A-Za-z0-9.-]', '_', site.url.netloc)}.sqlite"
    with _replacing(target) as file:
        await _asked(site, "GET", "/ledger", _Copy(file), timeout_s=None)
    return str(target)


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Have a file written that takes another's place if all goes well; its owner alone reads it."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        for log in ("-wal", "-shm"):  # of the copy before
            target.with_name(target.name + log).unlink(missing_ok=True)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


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
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


class _Copy(_Answer):
    """An answer of any length, to a file; its beginning is kept, for errors are short."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file

    def on_body(self, body: bytes) -> None:
        self.file.write(body)
        if len(self.body) < _ERROR_BYTES:
            self.body += body


async def ask_listener(
    site: AdminSite, method: str, path: str, document: type[T], *, timeout_s: float | None
) -> T:
    """Ask a listener and return the document that it answers.

    Raises OperatorFault(NOT_RUNNING) if nobody answers who can be trusted, or the error that was answered.
    Cancelled: what was started goes on.
    """
    answer = _Answer()
    await _asked(site, method, path, answer, timeout_s=timeout_s)
    try:
        return msgspec.json.decode(answer.body, type=document)
    except msgspec.MsgspecError as error:
        raise _silent(site, error) from error


async def _asked(
    site: AdminSite, method: str, path: str, answer: _Answer, *, timeout_s: float | None
) -> None:
    """Take the answer, if it is a good one. Raises as `ask_listener`."""
    if site.key and site.url.scheme == "http" and not is_loopback(site.url.hostname or ""):
        what = f"the key would go to {site.url.netloc} unencrypted"
        raise OperatorFault(ErrorCode.INVALID_REQUEST, what, hint="ask by https://, or through a tunnel")
    parser = httptools.HttpResponseParser(answer)
    try:
        async with asyncio.timeout(timeout_s):
            await _exchange(site, method, path, parser.feed_data)
        if not answer.whole:
            raise EOFError("the connection was closed")
        status = parser.get_status_code()
        if not 200 <= status < 300:
            raise _answered(status, answer)
    except ssl.SSLCertVerificationError as error:
        what = f"the certificate of {site.url.netloc} is not trusted: {error.verify_message}"
        hint = "--ca FILE names the certificate that vouches for it"
        raise OperatorFault(ErrorCode.NOT_RUNNING, what, hint=hint) from error
    except (OSError, EOFError, httptools.HttpParserError) as error:
        raise _silent(site, error) from error


def _silent(site: AdminSite, error: Exception) -> OperatorFault:
    what = f"{site.who} does not answer at {site.url.netloc}: {error!r}"
    return OperatorFault(ErrorCode.NOT_RUNNING, what, hint="see its log")


async def _exchange(site: AdminSite, method: str, path: str, feed: Callable[[bytes], None]) -> None:
    """Feed everything that comes back on a connection of its own."""
    url = site.url
    secure = ssl.create_default_context(cafile=site.ca) if url.scheme == "https" else None
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure)
    allowed = f"Authorization: Bearer {site.key}\r\n" if site.key else ""
    line = f"{method} {url.path.rstrip('/')}{path} HTTP/1.1\r\n"
    try:
        writer.write(f"{line}Host: {url.netloc}\r\n{allowed}Connection: close\r\n\r\n".encode())
        while data := await reader.read(_READ_BYTES):
            feed(data)
    finally:
        writer.close()


def _answered(status: int, answer: _Answer) -> PoorwillError:
    try:
        error = msgspec.json.decode(answer.body, type=_Refusal).error
    except msgspec.MsgspecError:
        text = answer.body[:300].decode(errors="replace")
        return OperatorFault(ErrorCode.INTERNAL, f"status {status}: {text}")
    seconds = int(answer.retry_after) if answer.retry_after.isdigit() else None
    return TryLater(error.code, error.message, retry_after_s=seconds, hint=error.hint)
