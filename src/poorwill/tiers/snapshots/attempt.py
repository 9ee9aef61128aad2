"""A note of a dump or restore under way, so that the next poorwill can end what a killed one left running.

criu lives in its own session and outlives poorwill. What it was doing is half done, so criu and the
engine it was working on are ended; the ledger's owner then starts the replica cold.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.session import end_session

NOTE = "attempt.json"
NOTE_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    criu_pid: int
    criu_started: int
    engine_pid: int
    engine_started: int | None


def note_attempt(work: Path, *, criu_pid: int | None, engine_pid: int, engine_started: int | None) -> None:
    """Write down who works on whom; `engine_started` is None for an engine being restored.

    Called without criu's pid before criu is started, so that a full disk shows while nothing has been
    touched yet, and again with it: the note has a fixed size and is then written over in place. Raises
    OSError.
    """
    criu = procfs.read_stat(criu_pid) if criu_pid is not None else None
    note = _Attempt(
        criu_pid=criu_pid or 0,
        criu_started=criu.started if criu else 0,
        engine_pid=engine_pid,
        engine_started=engine_started,
    )
    path = work / NOTE
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(msgspec.json.encode(note).ljust(NOTE_BYTES))


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
    if note is None or not note.criu_pid:
        return ""  # without a pid poorwill died before criu was started: nothing has been touched
    ended = []
    if await end_session(note.criu_pid, started=note.criu_started):
        ended.append(f"criu {note.criu_pid}")
    # An engine that was being restored is younger than criu, all of it.
    since = note.criu_started if note.engine_started is None else 0
    if await end_session(note.engine_pid, started=note.engine_started, since=since):
        ended.append(f"engine {note.engine_pid}")
    return ", ".join(ended)


def _read(path: Path) -> _Attempt | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Attempt)
    except (OSError, msgspec.MsgspecError):
        return None
