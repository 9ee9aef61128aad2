"""Ending a session of processes to the last one, and reaping those that are our children.

An engine and everything it starts share a session, whoever their parents are by now. A session is known by
its leader's pid; the kernel does not give that number to another process while any member is left.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress

from poorwill.core.ports.driver import DriverError
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.procfs import ProcessStat

GONE_LIMIT_S = 10.0
"""How long a killed process may take to disappear; longer means it hangs inside the kernel."""


def send(members: Iterable[ProcessStat], *numbers: signal.Signals) -> None:
    """Signal processes that may be gone by now."""
    for stat in members:
        with suppress(ProcessLookupError):
            for number in numbers:
                os.kill(stat.pid, number)


def reap(members: Iterable[ProcessStat]) -> dict[int, int]:
    """Collect the zombies among them that are our children; return their wait statuses by pid."""
    own, statuses = os.getpid(), {}
    for stat in members:
        if stat.state == "Z" and stat.parent == own:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(stat.pid, os.WNOHANG)
                if pid:
                    statuses[pid] = status
    return statuses


async def end_session(session: int, *, started: int | None = None, since: int = 0) -> bool:
    """Kill what there is of a session and wait until it is gone; return whether there was anything.

    `started`, `since` and errors as in `session_gone`.
    """
    there = bool(_members(session, started, since))
    await session_gone(session, started=started, since=since)
    return there


async def session_gone(
    session: int,
    *,
    started: int | None = None,
    since: int = 0,
    reaped: Callable[[dict[int, int]], None] = lambda statuses: None,
) -> None:
    """Wait until no process of a killed session is left; what it forked meanwhile is killed, too.

    `started`, if known, is the leader's start time: a later process with its pid does not count. Neither
    do processes that started before `since`. `reaped` is told the wait statuses of those that were our
    children. Raises DriverError after `GONE_LIMIT_S`. Cancelled: nothing more is waited for.
    """
    try:
        async with asyncio.timeout(GONE_LIMIT_S):
            while members := _members(session, started, since):
                send(members, signal.SIGKILL)
                await _all_gone(members, reaped)
    except TimeoutError:
        raise DriverError(
            f"process {session} does not disappear {GONE_LIMIT_S:.0f} s after SIGKILL"
        ) from None


def _members(session: int, started: int | None, since: int) -> list[ProcessStat]:
    members = [stat for stat in procfs.session_members(session) if stat.started >= since]
    leader = next((stat for stat in members if stat.pid == session), None)
    foreign = leader is not None and started is not None and leader.started != started
    return [] if foreign else members


async def _all_gone(members: list[ProcessStat], reaped: Callable[[dict[int, int]], None]) -> None:
    """Wait for these processes, looking at them alone: looking at all of the machine's takes longer."""
    delay_s = 0.001
    while True:
        now = [procfs.read_stat(stat.pid) for stat in members]
        members = [
            stat
            for stat, was in zip(now, members, strict=True)
            if stat is not None and stat.started == was.started
        ]
        reaped(reap(members))
        if not members:
            return
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, 0.05)
