"""The mark in an engine's environment, by which the next poorwill finds it and all that it started.

What /proc shows was written by processes that may be hostile. So a mark counts only if every user id of its
process is poorwill's own, and only if it has exactly this form; anything else is no mark, never an error.
"""

import os
import secrets
from typing import Annotated

import msgspec

from poorwill.core.launch import Launch, Running
from poorwill.core.words import ReplicaId
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.session import MARK_NAME

ID = "mark"
"""Key in `Running.extra`: the id in the engine's mark."""

Text = Annotated[str, msgspec.Meta(max_length=4096)]


class EngineMark(msgspec.Struct, frozen=True, kw_only=True):
    """Which replica of which fleet an engine is, as it was started."""

    fleet: Text
    replica: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    generation: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    host: Text
    port: Annotated[int, msgspec.Meta(ge=0, lt=2**16)]
    log_path: Text
    driver: Text
    engine_model: Text = ""
    launched: Text = ""
    id: Text = ""
    """Drawn at its start: tells its processes from those of any other start."""


def new_mark(launch: Launch, *, fleet: str, generation: int, driver: str) -> EngineMark:
    """Return the mark of an engine that is about to be started."""
    return EngineMark(
        fleet=fleet,
        replica=launch.replica,
        generation=generation,
        host=launch.host,
        port=launch.port,
        log_path=launch.log_path,
        driver=driver,
        engine_model=launch.engine_model,
        launched=launch.identity(),
        id=secrets.token_hex(16),
    )


def variables(mark: EngineMark) -> dict[str, str]:
    """Return what is added to the engine's environment.

    SPT_NOENV keeps py-setproctitle, which vLLM uses, from overwriting the environment in place.
    """
    return {MARK_NAME: msgspec.json.encode(mark).decode(), "SPT_NOENV": "1"}


def read_mark(pid: int) -> EngineMark | None:
    """Return a process's mark, None if it has none that counts."""
    if procfs.user_ids(pid) != {os.geteuid()}:
        return None
    try:
        mark = msgspec.json.decode(procfs.variable(pid, MARK_NAME), type=EngineMark)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    texts = (mark.replica, mark.host, mark.log_path, mark.driver, mark.engine_model, mark.launched, mark.id)
    return mark if all(text.isprintable() for text in texts) else None


def marked_running(mark: EngineMark, stat: procfs.ProcessStat) -> Running:
    """Return the engine that a process with this mark is."""
    return Running(
        replica=ReplicaId(mark.replica),
        generation=mark.generation,
        pid=stat.pid,
        pid_started=stat.started,
        host=mark.host,
        port=mark.port,
        log_path=mark.log_path,
        driver=mark.driver,
        extra={ID: mark.id} if mark.id else {},
        engine_model=mark.engine_model,
        launched=mark.launched,
    )
