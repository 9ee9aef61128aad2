"""`poorwill demo`: the whole product in a minute, on a model it makes itself.

A fleet on loopback serves a compressed slice of real traffic twice at once, by two models of one engine.
One is frozen while idle, the other parked cold. Both wake for the next request, several times, so what
freezing gains is measured. What it leaves is an ordinary fleet directory.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal

from poorwill.cli.parsing.exit_status import FINDING
from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.demo.drive import drive
from poorwill.compose.demo.fleet import ENGINES, demo_fleet
from poorwill.compose.demo.progress import Show
from poorwill.compose.demo.replay import fixed_prompt
from poorwill.compose.demo.report import DemoDocument, facts_of, report, report_document
from poorwill.compose.paths import ledger_path
from poorwill.compose.serving import serving_fleet
from poorwill.config.values.written import from_to
from poorwill.remote.ray.here import hosts_here
from poorwill.telemetry.log import StreamLog


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The options of `poorwill demo`."""

    directory: Annotated[
        str,
        Option("the fleet directory to leave (default: poorwill-demo)", flag="--dir", values=Values.FILES),
    ] = "poorwill-demo"
    size: Annotated[Literal["5m", "100m"], Option("parameters of the model (default: 5m)")] = "5m"
    engine: Annotated[
        str,
        Option(
            "transformers must be on PATH (default: llama.cpp, built in)",
            choices=tuple(ENGINES),
        ),
    ] = "llama.cpp"
    seconds: Annotated[float, Option("length of the traffic (default: 60)", read=from_to(5, 3_600))] = 60.0
    hosts: Annotated[int, Option("serve from so many hosts, on this machine, through Ray", metavar="N")] = 0
    json: JsonOption = False


async def _run(options: DemoOptions, streams: Streams) -> int:
    show = Show(write=streams.tell, quiet=options.json)
    settings = await asyncio.to_thread(
        demo_fleet,
        options.directory,
        engine=options.engine,
        size=options.size,
        seconds=options.seconds,
        hosts=options.hosts,
        env=streams.env,
        tell=show.line,
    )
    log = StreamLog(stream=streams.stderr, level="error")  # warnings are shown or reported
    here = hosts_here(settings, env=streams.env)
    async with here, serving_fleet(settings, env=streams.env, log=log) as serving:
        since_us = serving.clock.now_us()
        prompt = fixed_prompt(engine=options.engine, size=options.size, seconds=options.seconds)
        answers = await drive(serving, options.seconds, prompt, show)
    facts = facts_of(ledger_path(settings), answers, since_us=since_us)
    if options.json:
        streams.say_json(report_document(facts, answers, serving.fallbacks))
    else:
        streams.say(*report(settings, facts, serving.fallbacks, prompt=prompt))
    return FINDING if any(answer.error for answer in answers) else 0


VERB = new_verb(
    DemoOptions,
    _run,
    DemoDocument,
    epilog="It ends by itself. The directory it leaves is an ordinary fleet: point bill, anatomy, plan\n"
    "and serve at it with --fleet DIR. Exit 1 if a request failed.",
)
