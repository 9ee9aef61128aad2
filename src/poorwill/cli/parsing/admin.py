"""Asks the poorwill that serves a fleet, through its admin listener.

A few lines over httptools: a general client takes longer to import than all the rest of `status`.
"""

import asyncio
import os.path
import shlex
from collections.abc import Mapping
from typing import TypeVar

import httptools
import msgspec

from poorwill.cli.parsing.fleet import fleet_directory, fleet_path
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, TryLater
from poorwill.fleet.lock import holder_of

T = TypeVar("T")


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


def holder_of_fleet(fleet: str, env: Mapping[str, str]) -> Mapping[str, str | int] | None:
    """Return what the poorwill that serves a fleet published; None if none does.

    A fleet that is being served can be asked whatever its file says by now; otherwise raises ConfigFault if
    something is wrong with the file.
    """
    directory = fleet_directory(fleet, env)
    holder = None if directory is None else holder_of(directory)
    if holder is None:
        from poorwill.cli.parsing.settings import read_fleet  # slow to import; it says what is wrong

        read_fleet(fleet, env)
    return holder


async def ask(
    fleet: str,
    env: Mapping[str, str],
    method: str,
    path: str,
    document: type[T],
    *,
    timeout_s: float | None = 30.0,
) -> T:
    """Ask the poorwill that serves a fleet and return the document that it answers.

    Raises OperatorFault(NOT_RUNNING) if none does, or the error that it answered. Cancelled: the request is
    abandoned; what it started goes on.
    """
    holder = holder_of_fleet(fleet, env)
    if holder is None or "admin" not in holder:
        raise _not_running(fleet)
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    try:
        async with asyncio.timeout(timeout_s):
            parser.feed_data(await _exchange(str(holder["admin"]), method, path))
        status = parser.get_status_code()
        if not 200 <= status < 300:
            raise _answered(status, answer)
        return msgspec.json.decode(answer.body, type=document)
    except (OSError, EOFError, httptools.HttpParserError, msgspec.MsgspecError) as error:
        raise OperatorFault(
            ErrorCode.NOT_RUNNING,
            f"poorwill (pid {holder.get('pid')}) does not answer at {holder['admin']}: {error!r}",
            hint="see its log",
        ) from error


def _not_running(fleet: str) -> OperatorFault:
    where = os.path.dirname(os.path.abspath(fleet_path(fleet)))
    return OperatorFault(
        ErrorCode.NOT_RUNNING,
        f"no poorwill serves {where}",
        hint=f"start it with: poorwill serve {shlex.quote(where)}",
    )


async def _exchange(address: str, method: str, path: str) -> bytes:
    """Return everything that comes back on a connection of its own."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
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
