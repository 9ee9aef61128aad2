import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from poorwill.main import run


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    status: int
    out: str
    err: str


Plan = Callable[..., Awaitable[Ran]]


@pytest.fixture
def plan() -> Plan:
    """Runs `poorwill plan` with these words, as a user would."""

    async def run_line(*args: str) -> Ran:
        stdout, stderr = io.StringIO(), io.StringIO()
        status = await run(("plan", *args), {}, io.StringIO(), stdout, stderr)
        return Ran(status=status, out=stdout.getvalue(), err=stderr.getvalue())

    return run_line
