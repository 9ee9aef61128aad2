"""A note of a dump or restore under way, so that the next poorwill can end what a killed one left running.

criu lives in its own session and outlives poorwill. What it was doing is half done, so criu and the
engine it was working on are ended; the ledger's owner then starts the replica cold.
"""

import json
from pathlib import Path

from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.session import end_session

NOTE = "attempt.json"
NOTE_BYTES = 256


def note_attempt(work: Path, *, criu_pid: int | None, engine_pid: int, engine_started: int | None) -> None:
    """Write down who works on whom; `engine_started` is None for an engine being restored.

    Called without criu's pid before criu is started, so that a full disk shows while nothing has been
    touched yet, and again with it: the note has a fixed size and is then written over in place. Raises
    OSError.
    """
    criu = procfs.read_stat(criu_pid) if criu_pid is not None else None
    note = {
        "criu_pid": criu_pid or 0,
        "criu_started": criu.started if criu else 0,
        "engine_pid": engine_pid,
        "engine_started": engine_started,
    }
    path = work / NOTE
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(json.dumps(note).encode().ljust(NOTE_BYTES))


def forget_attempt(work: Path) -> None:
    """Remove the note: the engine is whole and about to run on. Raises OSError."""
    (work / NOTE).unlink()


async def settle_leftover(directory: Path) -> str:
    """End what a leftover's note names; return what was ended, for people, or an empty string.

    Only for leftovers of a poorwill that is no more: it kills. criu goes first, so that nothing new
    appears; what it has restored by then was never let run by anybody who had verified it. Raises
    DriverError if a process does not disappear.
    """
    note = _read(directory / "work" / NOTE) or _read(directory / NOTE)
    if note is None:
        return ""
    criu_pid, criu_started, engine_pid, engine_started = note
    if not criu_pid:
        return ""  # poorwill died before criu was started: nothing has been touched
    ended = []
    if await end_session(criu_pid, started=criu_started):
        ended.append(f"criu {criu_pid}")
    if engine_started is None:
        # The engine was being restored: all of it is younger than criu.
        if await end_session(engine_pid, since=criu_started):
            ended.append(f"engine {engine_pid}")
    elif await end_session(engine_pid, started=engine_started):
        ended.append(f"engine {engine_pid}")
    return ", ".join(ended)


def _read(path: Path) -> tuple[int, int, int, int | None] | None:
    try:
        note = json.loads(path.read_text())
        started = note["engine_started"]
        return (
            int(note["criu_pid"]),
            int(note["criu_started"]),
            int(note["engine_pid"]),
            None if started is None else int(started),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
