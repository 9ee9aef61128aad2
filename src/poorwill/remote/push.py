"""Copies the one file to a server, restarts the unit and waits until it serves: four commands, all shown.

It knows ssh and scp as programs and nothing of their keys, and asks nothing of the server but
a login that may write the file and restart the unit, systemd, and python3 to ask /healthz with.
"""

import asyncio
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from subprocess import DEVNULL
from typing import IO, Any, TextIO

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.hosts.processes.blocking import process_end
from poorwill.remote.systemd import MARGIN_S, Manager

SSH_OPTIONS = ("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
"""A server that does not answer, or stops answering (three times), ends the command."""

LOOK_EVERY_S = 1.0
MOST_SAID_BYTES = 4096
ASK_LIMIT_S = 30.0
"""For one question to /healthz, the connection included."""

_ASK = (
    'import http.client as h; c = h.HTTPConnection("{host}", {port}, timeout=5); '
    'c.request("GET", "/healthz"); print(c.getresponse().read().decode())'
)
"""http.client, because it follows no proxy variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One push."""

    host: str
    file: str
    """Here."""
    binary: str
    """There."""
    unit: str
    manager: Manager
    admin_host: str
    admin_port: int
    exit_s: int
    within_s: int
    """How long the new one may take to serve, after the restart."""

    def commands(self) -> Sequence[tuple[str, ...]]:
        """Return all four, in their order; the last is asked until it answers well."""
        return (self.copy(), self.replace(), self.restart(), self.ask())

    def copy(self) -> tuple[str, ...]:
        """Return the command that copies the file next to its final name, mode included."""
        return ("scp", *SSH_OPTIONS, "-p", "--", self.file, f"{self.host}:{self.binary}.new")

    def replace(self) -> tuple[str, ...]:
        """Return the command that gives it its final name, at once; what runs keeps the old file."""
        return self._there("mv", "-f", f"{self.binary}.new", self.binary)

    def restart(self) -> tuple[str, ...]:
        """Return the command that restarts the unit; it returns when the old one has ended."""
        user = ("--user",) if self.manager is Manager.USER else ()
        return self._there("systemctl", *user, "restart", self.unit)

    def ask(self) -> tuple[str, ...]:
        """Return the command that asks /healthz on the server's own loopback."""
        return self._there("python3", "-c", _ASK.format(host=self.admin_host, port=self.admin_port))

    def _there(self, *words: str) -> tuple[str, ...]:
        return ("ssh", *SSH_OPTIONS, "--", self.host, shlex.join(words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """Where commands run from: their environment, who is told of each, and a terminal for their progress."""

    env: Mapping[str, str]
    tell: Callable[[str], None]
    terminal: TextIO | None = None


async def carry_out_push(push: Push, shell: Shell) -> Mapping[str, object]:
    """Carry the push out, each command shown on stderr before it runs, and return what /healthz says then.

    Raises OperatorFault if a command fails (UPSTREAM_CONNECT) or the new one does not serve in time
    (NOT_RUNNING). Cancelled: the command under way is ended; what was done before it stays done.
    """
    before = "nothing has changed there, and what runs there runs on"
    await _step(push.copy(), shell, limit_s=None, hint=before, progress=True)
    await _step(push.replace(), shell, limit_s=ASK_LIMIT_S, hint=before)
    hint = f"the new file is in place; on the server: journalctl -u {push.unit}"
    await _step(push.restart(), shell, limit_s=push.exit_s + 2 * MARGIN_S, hint=hint)
    return await _until_it_serves(push, shell)


async def _step(
    command: Sequence[str], shell: Shell, *, limit_s: float | None, hint: str, progress: bool = False
) -> None:
    shell.tell(shown(command))
    status, said = await _run(command, shell, limit_s=limit_s, progress=progress)
    if status != 0:
        what = "took too long" if status is None else f"failed with status {status}"
        told = f"{command[0]} {what}" + (f": {said}" if said else "")
        raise OperatorFault(ErrorCode.UPSTREAM_CONNECT, told, hint=hint)


async def _until_it_serves(push: Push, shell: Shell) -> Mapping[str, object]:
    """Ask every second until the answer is `ok`, at most for `within_s`."""
    command = push.ask()
    shell.tell(shown(command))
    said = "no answer"
    try:
        async with asyncio.timeout(push.within_s):
            while True:
                status, said = await _run(command, shell, limit_s=ASK_LIMIT_S)
                health = _health(said) if status == 0 else {}
                if health.get("status") == "ok":
                    return health
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        last = said.splitlines()[-1] if said else "no answer"
        raise OperatorFault(
            ErrorCode.NOT_RUNNING,
            f"{push.host} does not serve after {push.within_s} s: {last}",
            hint=f"on the server: journalctl -u {push.unit}; to go back, push the file you had before",
        ) from None


def _health(answer: str) -> Mapping[str, object]:
    try:
        health = json.loads(answer)
    except ValueError:
        return {}
    return health if isinstance(health, dict) else {}


def shown(command: Sequence[str]) -> str:
    """Return a command as one could type it."""
    return f"$ {shlex.join(command)}"


async def _run(
    command: Sequence[str], shell: Shell, *, limit_s: float | None, progress: bool = False
) -> tuple[int | None, str]:
    """Run a command; return its exit status, None if it took too long, and what it said.

    `progress` gives it the terminal, to show its own. Raises OperatorFault if there is no such program.
    Cancelled: it is killed and reaped.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # Files, because a pipe ends only with its last holder: an ssh that stays as a master
        # (ControlPersist) would keep us waiting for as long as it lives.
        out_to, err_to = (shell.terminal, shell.terminal) if progress and shell.terminal else (out, err)
        with _started(command, shell, out_to, err_to) as child:
            if not await _ended(child, within_s=limit_s):
                return None, ""
        status = child.returncode
        return status, _text(out if status == 0 else err) or _text(out)


def _started(command: Sequence[str], shell: Shell, out: IO[Any], err: IO[Any]) -> subprocess.Popen[bytes]:
    """Start a command; synchronous, so that no cancellation can lose a process just made."""
    try:
        return subprocess.Popen(command, stdin=DEVNULL, stdout=out, stderr=err, env=dict(shell.env))
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot run {command[0]}: {error.strerror}",
            hint="it is in the package openssh-client",
        ) from error


async def _ended(child: subprocess.Popen[bytes], *, within_s: float | None) -> bool:
    """Wait for a child's end; if it does not come, or nobody waits any more, it is killed."""
    pidfd = os.pidfd_open(child.pid)
    try:
        return await process_end(pidfd, within_s=within_s)
    finally:
        os.close(pidfd)
        child.kill()  # no signal is sent to one that has ended


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_SAID_BYTES).decode(errors="replace").strip()


def odd_word(text: str) -> bool:
    """Return whether a text could mean more than itself to scp, a shell or systemd on its way."""
    return re.fullmatch(r"[A-Za-z0-9_./+][A-Za-z0-9_./+@:-]*", text) is None
