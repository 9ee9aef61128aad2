"""Talking to a running QEMU: its monitor (QMP) to save and load a guest, the guest's agent for its clock.

Each conversation is a connection of its own that ends with it, so that no other poorwill finds the socket
taken. Needs the extra `qemu` (the library qemu.qmp); it is imported when it is first used.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.extras import install_extra
from poorwill.core.ports.driver import DriverError
from poorwill.tiers.suspended.qemu.program import AGENT, CAPABILITIES, MONITOR, Layout

_CONNECT_TRIES = 400
_CONNECT_DELAY_S = 0.025
_POLL_S = 0.005
_ANSWER_S = 20.0
_ASK_AGAIN_S = 0.1
_ENDED = ("completed", "failed", "cancelled")

Connect = Callable[[str], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Monitor:
    """An open conversation with QEMU; see `open_monitor`."""

    client: Any

    async def __call__(self, command: str, **arguments: object) -> Any:
        """Execute one command (qapi/*.json in QEMU). Raises DriverError if QEMU refuses it."""
        qmp = _library()
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self.client.execute(command, arguments or None)
        except (qmp.QMPError, TimeoutError) as error:
            raise DriverError(f"QEMU did not carry out {command}: {error}") from error

    async def save(self, uri: str, *, layout: Layout) -> None:
        """Write the stopped guest to `uri`. Cancelled or failed: QEMU has stopped writing."""
        await self._prepare(layout)
        await self("migrate-set-parameters", **{"max-bandwidth": 0})
        try:
            await self("migrate", uri=uri)
            await self._transferred()
        except BaseException:
            with suppress(DriverError):
                await self.stop_saving()
            raise

    async def stop_saving(self) -> None:
        """Have QEMU stop writing, whether it had begun or not, and wait until it has.

        A guest let go on before that is stopped again, for good, when the transfer ends. Raises DriverError.
        """
        await self("migrate_cancel")
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._over(*_ENDED, "none")
        except TimeoutError as error:
            raise DriverError("QEMU does not stop writing the guest") from error

    async def load(self, uri: str, *, layout: Layout) -> None:
        """Read a guest from `uri`; it is stopped then, until `cont`."""
        await self._prepare(layout)
        await self("migrate-incoming", uri=uri)
        await self._transferred()

    async def _prepare(self, layout: Layout) -> None:
        # Both ways: a guest that was loaded with a capability still has it on when it is saved.
        known = {entry["capability"] for entry in await self("query-migrate-capabilities")}
        states = [
            {"capability": name, "state": name in CAPABILITIES[layout]}
            for names in CAPABILITIES.values()
            for name in names
            if name in known
        ]
        await self("migrate-set-capabilities", capabilities=states)

    async def _transferred(self) -> None:
        told = await self._over(*_ENDED)
        if told.get("status") != "completed":
            why = told.get("error-desc", "no reason")
            raise DriverError(f"QEMU's transfer {told.get('status')}: {why}")

    async def _over(self, *ends: str) -> Any:
        """Return QEMU's report of the transfer once it is in one of these states; bounded by the caller."""
        # Polled: QEMU 7.2 and 10 differ in which events an incoming migration sends.
        while True:
            told = await self("query-migrate")
            if told.get("status", "none") in ends:
                return told
            await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def open_monitor(run: Path, *, alive: Callable[[], bool]) -> AsyncIterator[Monitor]:
    """Connect to the QEMU that runs in `run`; waits for its socket up to ten seconds.

    Raises DriverError if it ends meanwhile or does not answer, OperatorFault if the library is
    missing.
    """
    qmp = _library()
    client = qmp.QMPClient("poorwill")
    await _connected(run, MONITOR, client.connect, alive=alive, errors=(qmp.ConnectError, OSError))
    try:
        yield Monitor(client)
    finally:
        try:
            await client.disconnect()
        except (qmp.QMPError, EOFError, OSError):
            pass  # it has ended: that is what closing the connection was for


async def set_guest_clock(
    run: Path,
    *,
    now_us: Callable[[], int],
    seed: bytes,
    alive: Callable[[], bool],
    limit_s: float,
) -> int:
    """Give the guest the host's time and fresh randomness; return by how many seconds it was behind.

    Asks for the time first, again and again, since what is written to a serial port that nobody reads yet
    may be lost or late; the time that is set is written once somebody answers. Raises DriverError if
    QEMU ends or `limit_s` elapses without an answer.
    """
    ends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect(path: str) -> None:
        ends.append(await asyncio.open_unix_connection(path))

    await _connected(run, AGENT, connect, alive=alive, errors=(OSError,))
    reader, writer = ends[0]
    try:
        async with asyncio.timeout(limit_s):
            writer.write(b"\ntime\n")  # a line end first: it completes what may be half there
            while not await _heard(reader, "time", within_s=_ASK_AGAIN_S):
                if not alive():
                    raise DriverError("QEMU ended before its guest was up")
                writer.write(b"time\n")
            writer.write(f"set {now_us() * 1000} {seed.hex()}\n".encode())
            answer = await _heard(reader, "set", within_s=_ANSWER_S)
            if not answer:
                raise DriverError("the guest's agent does not set the clock")
            return int(answer) // 1_000_000_000
    except TimeoutError as error:
        raise DriverError("the guest's agent does not answer") from error
    except OSError as error:
        raise DriverError(f"QEMU ended while its guest was asked for the time: {error}") from error
    finally:
        writer.close()


async def _heard(reader: asyncio.StreamReader, request: str, *, within_s: float) -> str:
    """Return the agent's answer to a request, or nothing if none comes in time."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                line = (await reader.readline()).decode("utf-8", "replace")
                if not line:
                    raise DriverError("QEMU ended while its guest was asked for the time")
                words = line.split()
                if words[:1] == [request] and len(words) == 2:
                    return words[1]
                if words[:1] == ["failed:"]:
                    raise DriverError(f"the guest's clock was not set: {line.strip()}")
    except TimeoutError:
        return ""


async def _connected(
    run: Path,
    socket: str,
    connect: Connect,
    *,
    alive: Callable[[], bool],
    errors: Sequence[type[Exception]],
) -> None:
    """Connect to a socket in `run` as soon as it is there, by way of a descriptor of the directory.

    /proc/self/fd/N/NAME is short however long the directory's own name is (unix(7): 108 bytes).
    """
    not_yet: tuple[type[Exception], ...] = (FileNotFoundError, *errors)
    directory = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_CONNECT_TRIES):
            try:
                os.stat(socket, dir_fd=directory)  # the library logs each failed attempt as an error
                return await connect(f"/proc/self/fd/{directory}/{socket}")
            except not_yet as error:
                if not alive():
                    raise DriverError(f"QEMU ended before it could be told anything: {error}") from error
            await asyncio.sleep(_CONNECT_DELAY_S)
        raise DriverError(f"QEMU does not answer on {run / socket}")
    finally:
        os.close(directory)


def _library() -> Any:
    try:
        import qemu.qmp
    except ImportError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "the suspended tier needs the library qemu.qmp",
            hint=install_extra("qemu"),
        ) from error
    return qemu.qmp
