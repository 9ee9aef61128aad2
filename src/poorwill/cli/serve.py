"""`poorwill serve`: the gateway and the controller in one process, until it is told to stop."""

import argparse
import asyncio
import gc
from dataclasses import replace

from poorwill.cli.parsing.target import add_fleet_option, read_fleet
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.compose.clock import SystemClock
from poorwill.compose.serving import serving_fleet
from poorwill.core.settings import Address, FleetSettings
from poorwill.telemetry.log import StreamLog


def _options(parser: argparse.ArgumentParser) -> None:
    add_fleet_option(parser, positional=True)
    parser.add_argument("--host", help="bind the inference listener here instead")
    parser.add_argument(
        "--port", type=int, help="the inference listener's port; 0 takes a free one and prints it"
    )
    parser.add_argument("--admin-port", type=int, help="the admin listener's port; 0 likewise")
    parser.add_argument(
        "--log-level", choices=["info", "warning", "error"], default="info", help="what to log"
    )


def _overridden(settings: FleetSettings, options: argparse.Namespace) -> FleetSettings:
    (host, port), admin = settings.gateway.listen, settings.gateway.admin
    if options.host is not None:
        host = options.host
    if options.port is not None:
        port = options.port
    if options.admin_port is not None or options.port == 0:
        admin = Address(admin.host, options.admin_port or 0)
    return replace(settings, gateway=replace(settings.gateway, listen=Address(host, port), admin=admin))


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    settings = _overridden(read_fleet(options, streams, machine=True), options)
    log = StreamLog(stream=streams.stderr, level=options.log_level, clock=SystemClock.started())
    try:
        async with serving_fleet(settings, env=streams.env, log=log) as serving:
            streams.say(f"serving http://{serving.address} (admin http://{serving.admin_address})")
            for model in settings.models:
                ladder = " > ".join(serving.ladders[model.name])
                bridge = f", {model.hosted.bridge_words}" if model.hosted and model.hosted.bridge else ""
                on = f" on {model.cloud.named}" if model.cloud is not None else ""
                streams.say(f"  {model.name}: {model.engine.kind}{on}, parks {ladder}{bridge}")
            streams.stdout.flush()
            # What was made by now lives as long as the process: no collection need look at it again.
            gc.collect()
            gc.freeze()
            await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        log.info("stopped")
    return 0


VERB = Verb(
    name="serve",
    help="serve a fleet: the gateway and the controller in one process",
    options=_options,
    run=_run,
    epilog="SIGTERM and Ctrl-C stop it gracefully: no new requests, what is held fails with a clear error,\n"
    "what runs finishes, then replicas are parked, left or stopped as [fleet] on_exit says, within\n"
    "exit_s. A second signal ends it at once; the next start picks up what is there.",
)
