"""`poorwill logs MODEL`: what a model's engine logged, also after it has failed and while nobody serves."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from poorwill.cli.parsing.admin import ServedFleet, ask
from poorwill.cli.parsing.fleet import ModelArgument, fleet_directory
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.history import log_piece
from poorwill.core.errors import ErrorCode, PoorwillError, unknown_model
from poorwill.core.words import ModelName, replica_id
from poorwill.ledger.history.views import LogPiece
from poorwill.telemetry.dashboard.documents import StatusDocument

LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsOptions:
    """The options of `poorwill logs`."""

    model: ModelArgument
    follow: Annotated[bool, Option("go on with what is logged from now on", short="-f")] = False
    where: ServedFleet = field(default_factory=ServedFleet)


async def _run(options: LogsOptions, streams: Streams) -> int:
    replica = await _replica(options, streams)
    start = None
    while True:
        piece = await _piece(options, streams, replica, start)
        streams.write(piece.text)
        streams.stdout.flush()
        start = piece.next
        if not piece.text:
            if not options.follow:
                return 0
            await asyncio.sleep(LOOK_S)


async def _replica(options: LogsOptions, streams: Streams) -> str:
    """Return the replica that is meant: by its own name, or a model's first. Raises RequestFault."""
    try:
        status = await ask(options.where, streams.env, "GET", "/status", StatusDocument)
    except PoorwillError as fault:
        if fault.code is not ErrorCode.NOT_RUNNING or options.where.url:
            raise
        return replica_id(ModelName(options.model))
    meant = [one.replica for one in status.replicas if options.model in (one.replica, one.model)]
    if not meant:
        raise unknown_model(options.model, list(dict.fromkeys(one.model for one in status.replicas)))
    if len(meant) > 1:
        streams.tell(f"the log of {meant[0]}; there are {', '.join(meant[1:])} as well")
    return meant[0]


async def _piece(options: LogsOptions, streams: Streams, replica: str, start: int | None) -> LogPiece:
    begin = "" if start is None else f"&start={start}"
    try:
        path = f"/history/log?replica={quote(replica)}{begin}"
        return await ask(options.where, streams.env, "GET", path, LogPiece)
    except PoorwillError as fault:
        directory = fleet_directory(options.where.fleet, streams.env)
        if fault.code is not ErrorCode.NOT_RUNNING or options.where.url or directory is None:
            raise
        return await asyncio.to_thread(log_piece, Path(directory, "logs"), replica, start)


VERB = new_verb(
    LogsOptions,
    _run,
    epilog="Prints the last 64 KiB. Control characters and escape sequences are left out: an engine logs\n"
    "what clients send. NAME-1 is the second replica of a model.",
)
