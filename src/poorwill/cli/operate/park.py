"""`poorwill park MODEL`: park a model now instead of after its linger."""

from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import quote

from poorwill.cli.parsing.admin import ServedFleet, ask
from poorwill.cli.parsing.fleet import JsonOption, ModelArgument
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.core.words import Tier
from poorwill.telemetry.dashboard.documents import ParkedDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkOptions:
    """The options of `poorwill park`."""

    model: ModelArgument
    tier: Annotated[Tier | None, Option("how deep (default: the first tier of the model's ladder)")] = None
    where: ServedFleet = field(default_factory=ServedFleet)
    json: JsonOption = False


async def _run(options: ParkOptions, streams: Streams) -> int:
    streams.show_progress(f"parking {options.model} ...")
    query = f"?tier={options.tier}" if options.tier else ""
    path = f"/models/{quote(options.model, safe='/')}/park{query}"
    answer = await ask(options.where, streams.env, "POST", path, ParkedDocument, timeout_s=None)
    streams.show_progress("")
    if options.json:
        streams.say_json(answer)
        return 0
    streams.say(f"{options.model} is parked" + (f": {answer.tier}" if answer.tier else ""))
    if answer.why:
        streams.tell(f"  not {options.tier}: {answer.why}")
    return 0


VERB = new_verb(
    ParkOptions,
    _run,
    ParkedDocument,
    epilog="Requests in flight finish first, up to the model's drain_s. A request that arrives meanwhile\n"
    "cancels the park (exit 7). Interrupting this command does not stop the park.",
)
