"""The mark in an engine's environment, by which the next poorwill finds it and all that it started.

What /proc shows was written by processes that may be hostile. So a mark counts only if it has exactly this
form, and every user id of its process is poorwill's own; an engine that runs as another user needs the seal,
which shows that poorwill made the mark. Anything else is no mark, never an error.
"""

import hmac
import os
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from poorwill.core.launch import Launch, Running
from poorwill.core.words import ReplicaId
from poorwill.hosts.files.opening import open_own
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.session import MARK_NAME

ID = "mark"
"""Key in `Running.extra`: the id in the engine's mark."""

KEY_FILE = "marks.key"
KEY_BYTES = 32

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
    seal: Text = ""

    def sealed(self, key: bytes) -> "EngineMark":
        """Return the mark with the seal that the fleet's key gives it."""
        bare = msgspec.structs.replace(self, seal="")
        return msgspec.structs.replace(self, seal=hmac.digest(key, msgspec.json.encode(bare), "sha256").hex())


def seal_key(fleet: str, *, make: bool = False) -> bytes:
    """Return the key of a fleet's seals, empty if there is none. Raises OSError if it cannot be made."""
    try:
        with open(open_own(Path(fleet, KEY_FILE), os.O_RDWR | (os.O_CREAT if make else 0)), "r+b") as file:
            key = file.read(KEY_BYTES)
            if make and len(key) < KEY_BYTES:  # new, or its writer was killed
                file.seek(0)
                file.write(key := secrets.token_bytes(KEY_BYTES))
    except OSError:
        if make:
            raise
        return b""
    return key if len(key) == KEY_BYTES else b""


def new_mark(launch: Launch, *, fleet: str, generation: int, driver: str) -> EngineMark:
    """Return the mark of an engine that is about to be started. Raises OSError."""
    mark = EngineMark(
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
    return mark.sealed(seal_key(fleet, make=True)) if launch.user else mark


def variables(mark: EngineMark) -> dict[str, str]:
    """Return what is added to the engine's environment.

    SPT_NOENV keeps py-setproctitle, which vLLM uses, from overwriting the environment in place.
    """
    return {MARK_NAME: msgspec.json.encode(mark).decode(), "SPT_NOENV": "1"}


def read_mark(pid: int, *, key: bytes = b"") -> EngineMark | None:
    """Return a process's mark, None if it has none that counts. `key` is that of the fleet's seals."""
    own = procfs.user_ids(pid) == {os.geteuid()}
    if not own and not key:
        return None
    try:
        mark = msgspec.json.decode(procfs.variable(pid, MARK_NAME), type=EngineMark)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not own and not hmac.compare_digest(mark.seal.encode(), mark.sealed(key).seal.encode()):
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
