"""`poorwill models`: what lies on this machine, how large it is, when it was last read; and its removal."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetOption, JsonOption, fleet_path
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.hub.on_disk import ModelsDocument, models_on_disk, remove
from poorwill.core.format import moment, size, table


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsOptions:
    """The options of `poorwill models`."""

    fleet: FleetOption = DEFAULT_FILE
    remove: Annotated[str | None, Option("remove this one, as the list names it", metavar="NAME")] = None
    json: JsonOption = False


async def _run(options: ModelsOptions, streams: Streams) -> int:
    path = Path(fleet_path(options.fleet))
    models = read_fleet(options.fleet, streams.env).models if await asyncio.to_thread(path.exists) else ()
    found = {one.name: one for one in models_on_disk(models, streams.env)}
    if options.remove is not None:
        gone = remove(found.get(options.remove), named=options.remove)
        found = {gone.name: gone}
    if options.json:
        streams.say_json(ModelsDocument(models=tuple(found.values())))
    elif options.remove is not None:
        streams.say(f"removed {gone.name}, {size(gone.size_bytes)}")
    elif not found:
        streams.say("no models in the caches of this machine; poorwill pull hf:ORG/NAME downloads one")
    else:
        rows = [
            (one.name, one.cache, size(one.size_bytes), moment(one.used_us), ", ".join(one.models))
            for one in found.values()
        ]
        streams.say(*table([("model", "cache", "size", "last read", "used by"), *rows], "<<><<"))
    return 0


VERB = new_verb(
    ModelsOptions,
    _run,
    ModelsDocument,
    epilog="The caches of the Hugging Face hub, of llama.cpp and of Ollama. What the fleet names is not\n"
    "removed, and Ollama removes its own: ollama rm NAME.",
)
