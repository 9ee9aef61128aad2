"""`poorwill pull`: download the models that a fleet names, before a request has to wait for one."""

import asyncio
import os
from dataclasses import dataclass
from typing import Annotated

from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetOption, JsonOption, fleet_path
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.hub.fetch import Fetcher, PullDocument, PulledModel, wanted
from poorwill.core.format import percent, size


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """The options of `poorwill pull`."""

    models: Annotated[
        tuple[str, ...],
        Option(
            "models of the fleet, or hf:ORG/NAME[:QUANT][@REVISION] (default: all that the fleet names so)",
            argument=True,
            metavar="MODEL",
            nargs="*",
            values=Values.MODELS,
        ),
    ] = ()
    fleet: FleetOption = DEFAULT_FILE
    json: JsonOption = False


async def _run(options: PullOptions, streams: Streams) -> int:
    needed = not options.models or any(not model.startswith("hf:") for model in options.models)
    known = needed or await asyncio.to_thread(os.path.exists, fleet_path(options.fleet))
    settings = read_fleet(options.fleet, streams.env) if known else None
    pulled = []
    for name, engine in wanted(options.models, settings.models if settings else ()):

        def progress(done: int, need: int, name: object = name) -> None:
            streams.show_progress(f"{name}: {size(done)} of {size(need)} ({percent(done / need)})")

        try:
            path = await Fetcher(env=streams.env).fetch(name, engine, progress=progress)
        finally:
            streams.show_progress("")
        pulled.append(PulledModel(name=str(name), path=path))
        if not options.json:
            streams.say(f"{name}: {path}")
    if options.json:
        streams.say_json(PullDocument(models=tuple(pulled)))
    elif not pulled:
        streams.say('no model of the fleet is given by name: path = "hf:ORG/NAME"')
    return 0


VERB = new_verb(
    PullOptions,
    _run,
    PullDocument,
    epilog="HF_TOKEN, HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE are heeded. A download that ends early\n"
    "is continued by the next one. docs/models.md has the rest.",
)
