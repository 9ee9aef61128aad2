"""What every room's tests share: the event loop that `serve` runs on, and the command line in process."""

import io
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import hypothesis
import pytest

from poorwill.cli.run import run

# An example's time is the machine's business: on a loaded one it says nothing about the code.
hypothesis.settings.register_profile("poorwill", deadline=None)
hypothesis.settings.load_profile("poorwill")


def pytest_configure() -> None:
    """Programs hear of SIGHUP and SIGINT, also if the tests run under nohup or in a shell's background."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    status: int
    out: str
    err: str


Poorwill = Callable[..., Awaitable[Ran]]


@pytest.fixture
def poorwill() -> Poorwill:
    """Runs a command line in process, as `__main__` would."""

    async def run_line(*args: str, **env: str) -> Ran:
        stdout, stderr = io.StringIO(), io.StringIO()
        status = await run(args, env, io.StringIO(), stdout, stderr)
        return Ran(status=status, out=stdout.getvalue(), err=stderr.getvalue())

    return run_line
