"""`poorwill top`: the fleet's status, again and again, until it is interrupted."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from poorwill.cli.operate.status import told
from poorwill.cli.parsing.admin import ServedFleetArgument
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.config.values.written import some_time_us
from poorwill.core.words import SECOND_US

CLEAR = "\x1b[H\x1b[2J"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopOptions:
    """The options of `poorwill top`."""

    where: ServedFleetArgument = field(default_factory=ServedFleetArgument)
    every: Annotated[int, Option("between two looks (default: 2s)", metavar="TIME", read=some_time_us)] = (
        2 * SECOND_US
    )


async def _run(options: TopOptions, streams: Streams) -> int:
    """Show until interrupted; in a pipe once."""
    while True:
        lines = await told(options.where, streams.env)
        if streams.stdout.isatty():
            streams.stdout.write(CLEAR)
        streams.say(*lines)
        streams.stdout.flush()
        if not streams.stdout.isatty():
            return 0
        await asyncio.sleep(options.every / SECOND_US)


VERB = new_verb(
    TopOptions, _run, epilog="What `poorwill status` prints, on a terminal again and again until Ctrl-C."
)
