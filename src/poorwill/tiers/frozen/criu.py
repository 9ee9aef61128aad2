"""The `criu` binary: finding one, and its two calls with the flags every caller gets.

Every call has a time limit and leaves no process of its own behind. The caller decides
what a failed call means for the engine; `CriuFault` tells the kinds apart. Flags and faults as measured with
CRIU 4.2.1 (criu(8)); older ones fail on newer kernels although `criu check` is content, so nothing here
trusts `check`.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import IO

from poorwill.hosts.files.aside import aside
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.blocking import open_pidfd, process_end
from poorwill.hosts.processes.session import end_session
from poorwill.hosts.processes.userfault import can_fill

VERSION_LIMIT_S = 5.0

SLOW_DISK_BYTES_S = 50 * 10**6
"""A disk slower than this is not waited for: a spinning disk makes twice as much."""

TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of the binary: it runs `ip` and `iptables` for what it cannot do itself."""


class CriuFault(StrEnum):
    """Why a call failed, by what the caller does about it."""

    CONNECTED = "connected"  # the process has TCP connections open; it runs on
    PORT_TAKEN = "port taken"  # something listens where the restored process did
    PID_TAKEN = "pid taken"  # a pid or thread id of the image is in use
    LIMIT = "time limit"  # criu was killed by us
    KILLED = "killed"  # criu was killed by somebody else
    FAILED = "failed"  # anything else that criu reported


GHOST_BYTES = 2**30
"""Files that are open but deleted are carried in the image up to this size each; criu's own limit of 1 MiB
is less than the shared memory that engines with several processes delete once all have opened it."""

CONTROL_GROUPS = ("--manage-cgroups=ignore",)
"""A restored engine is in poorwill's own control groups. criu would otherwise make the ones again that it was
in when it was dumped, with their limits as they were then: those of another container, maybe."""

SYMPTOMS: Sequence[tuple[str, CriuFault]] = (
    (r"Connected TCP socket", CriuFault.CONNECTED),
    (r"Can't bind inet socket|Address already in use", CriuFault.PORT_TAKEN),
    (r"Can't fork for \d+: File exists|Pid \d+ do not match expected", CriuFault.PID_TAKEN),
)


class Tcp(StrEnum):
    """What becomes of the TCP connections of a process tree."""

    NONE = "none"  # there are none; one that turns up fails the dump
    WITHIN = "within"  # among its own processes: both ends are dumped and restored
    DROPPED = "dropped"  # with others: restored as closed


TCP_DUMP: Mapping[Tcp, Sequence[str]] = MappingProxyType(
    {
        Tcp.NONE: ("--leave-stopped",),
        # criu gives connections back only to processes that run on. Both ends freeze at once, so that
        # no packet filter has to hold them meanwhile.
        Tcp.WITHIN: ("--leave-running", "--tcp-established", "--network-lock", "skip"),
        Tcp.DROPPED: ("--leave-running", "--tcp-close"),
    }
)
TCP_RESTORE: Mapping[Tcp, Sequence[str]] = MappingProxyType(
    {Tcp.NONE: (), Tcp.WITHIN: ("--tcp-established",), Tcp.DROPPED: ("--tcp-close",)}
)


class CriuFailed(Exception):
    """A call failed. The message is for people and carries criu's own error lines."""

    def __init__(self, message: str, *, fault: CriuFault) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Criu:
    """One installed binary. Safe to share; holds no state."""

    binary: str
    version: str
    dump_limit_s: float = 60.0
    restore_limit_s: float = 60.0
    """For each call, beside the time that its image may take on a slow disk (`SLOW_DISK_BYTES_S`)."""
    unprivileged: bool = False
    """Run by a user who is not root, with capabilities on the binary (criu(8), --unprivileged)."""
    fills: bool = False
    """Memory is filled from outside (`filling`), not by criu."""

    @property
    def named(self) -> str:
        """Return program and version for manifests: a snapshot is restored by the same version only."""
        return f"criu {self.version}"

    async def dump(
        self,
        pid: int,
        *,
        image: Path,
        work: Path,
        size_bytes: int,
        began: Callable[[int], None],
        tcp: Tcp = Tcp.NONE,
    ) -> None:
        """Write a process tree's image, of about `size_bytes`, and leave its end to the caller.

        The tree is left stopped, or, if it has TCP connections, running. `began` is told criu's pid.
        Raises CriuFailed; with the fault LIMIT or KILLED, and when cancelled, criu was ended in the middle
        of its work and the tree must not be trusted any more.
        """
        arguments = ["dump", "--tree", str(pid), "--file-locks", *TCP_DUMP[tcp]]
        arguments += ["--ghost-limit", str(GHOST_BYTES)]
        await self._call(
            arguments,
            image=image,
            work=work,
            limit_s=self.dump_limit_s + size_bytes / SLOW_DISK_BYTES_S,
            inherit=(),
            began=began,
        )

    async def restore(
        self,
        *,
        image: Path,
        work: Path,
        size_bytes: int,
        log_fd: int,
        log_path: str,
        root_pid: int,
        began: Callable[[int], None],
        tcp: Tcp = Tcp.NONE,
    ) -> None:
        """Bring an image's process tree back, stopped, with `log_fd` in the place of `log_path`, if any.

        If `fills`, somebody must listen for the tree's memory in `work`.

        Raises CriuFailed. After a failure and when cancelled, what criu had restored so far is killed and
        reaped: a zombie that keeps its pid would make every later restore fail.
        """
        arguments = ["restore", "--restore-detached", "--leave-stopped", "--file-locks"]
        arguments += ["--pidfile", str(work / "pid"), *TCP_RESTORE[tcp]]
        if self.fills:
            arguments.append("--lazy-pages")
        if log_path:
            # The log has grown or been cut since, which criu would refuse; it knows it by its old name.
            arguments += ["--inherit-fd", f"fd[{log_fd}]:{log_path.lstrip('/')}"]
        restorer = None

        def note(criu_pid: int) -> None:
            nonlocal restorer
            restorer = procfs.read_stat(criu_pid)
            began(criu_pid)

        try:
            await self._call(
                arguments,
                image=image,
                work=work,
                limit_s=self.restore_limit_s + size_bytes / SLOW_DISK_BYTES_S,
                inherit=(log_fd,),
                began=note,
            )
        except BaseException as error:
            foreign = isinstance(error, CriuFailed) and error.fault is CriuFault.PID_TAKEN
            if restorer is not None and not foreign:
                await end_session(root_pid, since=restorer.started)
            raise

    async def _call(
        self,
        arguments: Sequence[str],
        *,
        image: Path,
        work: Path,
        limit_s: float,
        inherit: Sequence[int],
        began: Callable[[int], None],
    ) -> None:
        log = f"{arguments[0]}.log"
        argv = [self.binary, *arguments, "--images-dir", str(image), "--work-dir", str(work)]
        argv += ["--log-file", log, "-v2", *CONTROL_GROUPS]
        if self.unprivileged:
            argv.append("--unprivileged")
        with await aside(lambda: (work / "criu.out").open("wb")) as output:
            status = await run_bounded(argv, output=output, inherit=inherit, limit_s=limit_s, began=began)
        if status == 0:
            return
        raise _failure(arguments[0], status, await aside(_said, work, log), limit_s)


async def run_bounded(
    argv: Sequence[str],
    *,
    output: IO[bytes],
    limit_s: float,
    env: Mapping[str, str] = MappingProxyType({"PATH": TOOL_PATH, "LC_ALL": "C"}),
    inherit: Sequence[int] = (),
    began: Callable[[int], None] = lambda pid: None,
) -> int | None:
    """Run a program in a session of its own and return its exit code, negative for a signal.

    What it leaves in that session is killed with it, or after it. Its output goes to a file, since a pipe
    would be held open by what it leaves elsewhere. None: it was killed at the limit. Cancelled: likewise
    killed. Raises OSError if it cannot be started.
    """
    pid = await aside(start_in_session, argv, output, env, inherit)
    pidfd, child = open_pidfd(pid), procfs.read_stat(pid)
    assert pidfd is not None and child is not None, "an unreaped child always has a pid"
    ended = False
    try:
        await aside(began, pid)
        ended = await process_end(pidfd, within_s=limit_s)
    finally:
        os.close(pidfd)
        if not ended:
            await end_session(pid)
    if not ended:
        return None
    code = _exit_code(pid)
    with suppress(ProcessLookupError):
        os.killpg(pid, 0)  # mostly nothing is left, and looking at all processes takes milliseconds
        await end_session(pid, started=child.started)
    return code


def start_in_session(
    argv: Sequence[str], output: IO[bytes], env: Mapping[str, str], inherit: Sequence[int]
) -> int:
    """Start a program in a session of its own and return its pid; the caller ends and reaps the session."""
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=env,
        start_new_session=True,
        pass_fds=inherit,
    )
    child.returncode = 0  # waited for by the caller, through its pidfd or its session
    return child.pid


def _exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _said(work: Path, log: str) -> str:
    return _error_lines(work / log) or _error_lines(work / "criu.out", whole=True)


def _error_lines(path: Path, *, whole: bool = False) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[-20_000:]
    except OSError:
        return ""
    if whole:
        return " | ".join(text.split("\n")[-4:]).strip(" |")
    errors = [
        error
        for error in re.findall(r"Error \([^)]*\): (.*)", text)
        if "RLIMIT_NOFILE" not in error  # without CAP_SYS_RESOURCE it always says so, and goes on
    ]
    return " | ".join(errors[:4])


def _failure(call: str, status: int | None, said: str, limit_s: float) -> CriuFailed:
    if status is None:
        return CriuFailed(
            f"criu {call} did not end within {limit_s:.0f} s and was killed", fault=CriuFault.LIMIT
        )
    if status < 0:
        return CriuFailed(f"criu {call} was killed by signal {-status}", fault=CriuFault.KILLED)
    for pattern, fault in SYMPTOMS:
        if re.search(pattern, said):
            return CriuFailed(f"criu {call}: {said}", fault=fault)
    return CriuFailed(f"criu {call} failed with status {status}: {said}", fault=CriuFault.FAILED)


def private_prefix(env: Mapping[str, str]) -> Path:
    """Return where poorwill keeps a CRIU of its own: $XDG_DATA_HOME/poorwill/criu."""
    data = env.get("XDG_DATA_HOME") or os.path.join(env.get("HOME", "/"), ".local/share")
    return Path(data) / "poorwill" / "criu"


async def find_criu(env: Mapping[str, str]) -> Criu | None:
    """Return the newest CRIU among the private prefix and PATH, or None. Being found proves nothing."""
    places = [
        str(private_prefix(env) / "criu"),
        shutil.which("criu", path=env.get("PATH", TOOL_PATH)),
    ]
    found = [criu for place in places if place and (criu := await inspect_criu(place)) is not None]
    return max(found, key=lambda criu: _version_key(criu.version), default=None)


async def inspect_criu(binary: str) -> Criu | None:
    """Return a binary with its version, or None if it does not run."""
    if not os.access(binary, os.X_OK):
        return None
    with tempfile.TemporaryFile() as output:
        try:
            await run_bounded([binary, "--version"], output=output, limit_s=VERSION_LIMIT_S)
        except OSError:
            return None
        output.seek(0)
        text = output.read(4096).decode("utf-8", "replace")
    version = re.search(r"Version: (\S+)", text)
    if version is None:
        return None
    root = os.geteuid() == 0
    return Criu(binary=binary, version=version[1], unprivileged=not root, fills=root and can_fill())


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
