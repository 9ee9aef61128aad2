"""The process's own edge: hands the process's arguments, environment and streams to `run`."""

import asyncio
import os
import signal
import sys

import uvloop

from poorwill.main import run


async def _main() -> int:
    task = asyncio.current_task()
    assert task is not None
    # SIGTERM and SIGINT both cancel `run`; a verb that serves takes that as "shut down gracefully".
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await run(sys.argv[1:], os.environ, sys.stdin, sys.stdout, sys.stderr)
    except asyncio.CancelledError:
        return 130


def main() -> int:
    """Run poorwill and return its exit status."""
    return uvloop.run(_main())


if __name__ == "__main__":
    sys.exit(main())
