"""The process's own edge: hands the process's arguments, environment and streams to `run`."""

import asyncio
import os
import pwd
import signal
import sys
from collections.abc import Mapping

import uvloop

from poorwill.cli.run import run
from poorwill.hosts.processes.hangup import hear_hangups
from poorwill.telemetry.background_stream import written_in_background


async def _main() -> int:
    task = asyncio.current_task()
    assert task is not None
    # These cancel `run`, and so does a closed terminal; who serves takes that as "shut down gracefully".
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    hear_hangups(end=task.cancel)
    try:
        return await run(sys.argv[1:], environment(), sys.stdin, sys.stdout, sys.stderr)
    except asyncio.CancelledError:
        return 130


def environment() -> Mapping[str, str]:
    """Return the environment, with the home directory also where nobody set it: a service of root's, cron."""
    if os.environ.get("HOME"):
        return os.environ
    try:
        return {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir}
    except KeyError:  # a user without an entry, as in a container
        return os.environ


def _reopen_closed_streams() -> None:
    """Put /dev/null where a standard stream was closed: otherwise a socket or a file would get its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            assert os.open(os.devnull, os.O_RDWR) == number
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


def main() -> int:
    """Run poorwill and return its exit status.

    Nobody who stops reading stderr (Ctrl-S, a stalled log shipper) stops poorwill: not its log, its progress,
    nor what Python's own libraries say there.
    """
    _reopen_closed_streams()
    stderr = sys.stderr
    with written_in_background(stderr) as background:
        sys.stderr = background
        try:
            return uvloop.run(_main())
        finally:
            sys.stderr = stderr
            try:
                sys.stdout.flush()
            except OSError:
                # `run` has told; at the end of the process Python would try, and complain, again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
