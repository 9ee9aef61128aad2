"""`poorwill host`: this machine as a host of a fleet that is served elsewhere, or Ray's head beside it."""

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated

from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.hosting import hosting
from poorwill.config.values.written import address
from poorwill.core.settings import Address
from poorwill.telemetry.log import StreamLog


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """The options of `poorwill host`."""

    join: Annotated[Address | None, Option("where Ray's head is", metavar="AT", read=address)] = None
    head: Annotated[Address | None, Option("keep Ray's head there", metavar="AT", read=address)] = None
    name: Annotated[str, Option("what [hosts] calls this machine")] = ""
    relay: Annotated[Address | None, Option("where it is reached", metavar="AT", read=address)] = None
    key: Annotated[str, Option("the fleet's key (default: hosts.pem)", metavar="FILE")] = "hosts.pem"
    directory: Annotated[str, Option("of logs and snapshots (default: .)", metavar="DIR")] = "."
    gpus: Annotated[int | None, Option("devices to give out (default: all by NVML)", metavar="N")] = None


async def _run(options: HostOptions, streams: Streams) -> int:
    log = StreamLog(stream=streams.stderr, level="info", clock=SystemClock.started())
    with suppress(asyncio.CancelledError):
        async with hosting(**asdict(options), env=streams.env, log=log):
            streams.say(f"keeps Ray's head at {options.head}" if options.head else f"{options.name} serves")
            streams.stdout.flush()
            await asyncio.get_running_loop().create_future()
    return 0


VERB = new_verb(HostOptions, _run, epilog="SIGTERM ends the service; its engines run on. docs/hosts.md.")
