"""All processes of an engine: finding them, ending them to the last one, reaping those that are our children.

An engine and what it starts share a session, whoever their parents are by now. A session is known by its
leader's pid; the kernel does not give that number to another process while any member is left. A process
that leaves the session is found by the engine's control group, by its mark in the environment, or as a
descendant.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from poorwill.core.ports.driver import DriverError
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.procfs import ProcessStat

MARK_NAME = "POORWILL_REPLICA"
"""The variable of an engine's environment that all it starts inherits; see `mark`."""

GONE_LIMIT_S = 10.0
"""How long a killed process may take to disappear; longer means it hangs inside the kernel."""

ZOMBIE_LIMIT_S = 1.0
"""How long we wait for a foreign parent to reap. Not every first process of a container ever does; a zombie
holds nothing but its pid."""


def send(pids: Iterable[int], *numbers: signal.Signals) -> None:
    """Signal processes that may be gone by now."""
    for pid in pids:
        with suppress(ProcessLookupError):
            for number in numbers:
                os.kill(pid, number)


def reap(processes: Iterable[ProcessStat]) -> dict[int, int]:
    """Collect the zombies among them that are our children; return their wait statuses by pid."""
    own, statuses = os.getpid(), {}
    for stat in processes:
        if stat.state == "Z" and stat.parent == own:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(stat.pid, os.WNOHANG)
                if pid:
                    statuses[pid] = status
    return statuses


def members(
    session: int,
    *,
    mark: str = "",
    started: int | None = None,
    since: int = 0,
    inside: Collection[int] = (),
) -> list[ProcessStat]:
    """Return the processes of a session, those that carry the mark or are `inside`, and their descendants.

    `started`, where known, is the session leader's start time: the session of a later process with its pid
    does not count. Neither do processes that started before `since`.
    """
    processes = {stat.pid: stat for stat in procfs.all_processes()}
    leader = processes.get(session)
    foreign = leader is not None and started is not None and leader.started != started
    own = [
        pid
        for pid, stat in processes.items()
        if (stat.session == session and not foreign)
        or pid in inside
        or (mark and pid != os.getpid() and mark.encode() in procfs.variable(pid, MARK_NAME))
    ]
    found = procfs.with_descendants(own, processes.values())
    return [processes[pid] for pid in sorted(found) if processes[pid].started >= since]


async def end_session(session: int, *, started: int | None = None, since: int = 0) -> bool:
    """Kill what there is of a session and wait until it is gone; return whether there was anything.

    `started`, `since` and errors as in `session_gone`.
    """
    there = bool(members(session, started=started, since=since))
    await session_gone(session, started=started, since=since)
    return there


async def session_gone(
    session: int,
    *,
    mark: str = "",
    started: int | None = None,
    since: int = 0,
    inside: Callable[[], Collection[int]] = tuple,
    reaped: Callable[[dict[int, int]], None] = lambda statuses: None,
) -> None:
    """Wait until no process of a killed engine is left; what it forked meanwhile is killed, too.

    `mark`, `started`, `since` and `inside` as in `members`. `reaped` is told the wait statuses of those that
    were our children; zombies that their parents do not reap are left. Raises DriverError after
    `GONE_LIMIT_S`. Cancelled: nothing more is waited for.
    """
    zombies: set[tuple[int, int]] = set()
    try:
        async with asyncio.timeout(GONE_LIMIT_S):
            while left := [
                stat
                for stat in members(session, mark=mark, started=started, since=since, inside=inside())
                if (stat.pid, stat.started) not in zombies
            ]:
                send((stat.pid for stat in left), signal.SIGKILL)
                zombies |= await _all_gone(left, reaped)
    except TimeoutError:
        raise DriverError(
            f"process {session} does not disappear {GONE_LIMIT_S:.0f} s after SIGKILL"
        ) from None


async def _all_gone(
    left: list[ProcessStat], reaped: Callable[[dict[int, int]], None]
) -> set[tuple[int, int]]:
    """Wait for these processes, looking at them alone: looking at all of the machine's takes longer.

    Return pid and start time of those that remain as zombies of others.
    """
    delay_s, waited_s = 0.001, 0.0
    while True:
        now = [procfs.read_stat(stat.pid) for stat in left]
        left = [
            stat
            for stat, was in zip(now, left, strict=True)
            if stat is not None and stat.started == was.started
        ]
        reaped(reap(left))
        if not left or (waited_s >= ZOMBIE_LIMIT_S and all(_zombie_of_another(stat) for stat in left)):
            return {(stat.pid, stat.started) for stat in left}
        await asyncio.sleep(delay_s)
        waited_s += delay_s
        delay_s = min(delay_s * 1.25, 0.05)


def _zombie_of_another(stat: ProcessStat) -> bool:
    return stat.state == "Z" and stat.parent != os.getpid()
