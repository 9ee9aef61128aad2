"""All hosts of a fleet on this one machine, each a program of its own: to see what several would do."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import FleetSettings


@asynccontextmanager
async def hosts_here(settings: FleetSettings, *, env: Mapping[str, str]) -> AsyncIterator[None]:
    """Run Ray's head and the services of a fleet's hosts meanwhile; nothing if it has none.

    Raises OperatorFault if one of them does not start. Engines that are left running run on.
    """
    named, children = settings.hosts, list[Process]()
    try:
        if named is not None:
            start = ("-m", "poorwill", "host", "--key", named.key)
            children.append(await _started([*start, "--head", str(named.head)], settings.directory, env))
            for name, relay in named.relays.items():
                directory = os.path.join(settings.directory, name)
                os.makedirs(directory, mode=0o700, exist_ok=True)
                line = [*start, "--join", str(named.head), "--name", name, "--relay", str(relay)]
                children.append(await _started(line, directory, env))
        yield
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                child.terminate()
        for child in children:
            await child.wait()


async def _started(line: list[str], directory: str, env: Mapping[str, str]) -> Process:
    """Start a service and return once it says that it serves."""
    path = os.path.join(directory, "host.log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, *line, "--directory", directory),
            stdout=PIPE,
            stderr=log,
            env=dict(env),
            start_new_session=True,
        )
    finally:
        os.close(log)
    assert child.stdout is not None
    if not await child.stdout.readline():
        await child.wait()
        raise OperatorFault(ErrorCode.CONFIG_INVALID, "a host did not start", hint=f"see {path}")
    return child
