"""`poorwill serve`: the gateway and the controller in one process, until a signal stops it."""

import asyncio
import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from poorwill.cli.parsing.exit_status import FINDING
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetArgument, fleet_path
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.clock import SystemClock
from poorwill.compose.served.reload import Source, file_mark
from poorwill.compose.serving import serving_fleet
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings
from poorwill.fleet.reshaping import Hangups
from poorwill.hosts.processes.hangup import hear_hangups
from poorwill.telemetry.background_stream import written_in_background
from poorwill.telemetry.log import StreamLog


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of `poorwill serve`."""

    fleet: FleetArgument = DEFAULT_FILE
    host: Annotated[str | None, Option("bind the inference listener here instead")] = None
    port: Annotated[int | None, Option("the inference listener's port; 0 takes a free one")] = None
    admin_port: Annotated[int | None, Option("the admin listener's port; 0 likewise")] = None
    log_level: Annotated[Literal["info", "warning", "error"], Option("what to log (default: info)")] = "info"


async def _run(options: ServeOptions, streams: Streams) -> int:
    def read() -> FleetSettings:
        settings = read_fleet(options.fleet, streams.env, machine=True)
        return settings.listening(options.host, options.port, options.admin_port)

    hangups = Hangups()
    task = asyncio.current_task()
    assert task is not None
    hear_hangups(end=task.cancel, reload=hangups.one)
    path = Path(fleet_path(options.fleet))
    source = Source(read=read, path=path, seen=file_mark(path))
    settings = read()
    log = StreamLog(stream=streams.stderr, level=options.log_level, clock=SystemClock.started())
    left: list[object] = []
    with written_in_background(streams.stdout) as stdout:
        try:
            await _serve(settings, replace(streams, stdout=stdout), log, left, source, hangups)
        except asyncio.CancelledError:
            log.info("stopped")
    return FINDING if any(left) else 0


async def _serve(
    settings: FleetSettings, streams: Streams, log: Log, left: list[object], source: Source, hangups: Hangups
) -> None:
    async with serving_fleet(settings, env=streams.env, log=log, source=source) as serving:
        left.append(serving.left)
        hangups.pass_on(serving.reload)
        streams.say(*serving.told(settings))
        streams.stdout.flush()
        # What was made by now lives as long as the process: no collection need look at it again.
        gc.collect()
        gc.freeze()
        await asyncio.get_running_loop().create_future()


VERB = new_verb(
    ServeOptions,
    _run,
    epilog="SIGHUP and `poorwill reload` have it read fleet.toml again; models that did not change notice\n"
    "nothing. SIGTERM, Ctrl-C and a closed terminal stop it gracefully: new requests are refused,\n"
    "held ones fail with a clear error, running ones finish; then replicas are parked, left or stopped\n"
    "as [fleet] on_exit says, within exit_s. A second signal ends the waiting. Exit status 1: an engine\n"
    "runs on although on_exit says otherwise, or the ledger lacks its last entries; poorwill.lock names it.",
)
