"""`poorwill wake MODEL`: have a model ready before anybody asks for it."""

from dataclasses import dataclass
from urllib.parse import quote

from poorwill.cli.parsing.admin import ask
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetOption, JsonOption, ModelArgument
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.telemetry.dashboard.documents import WokenDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeOptions:
    """The options of `poorwill wake`."""

    model: ModelArgument
    fleet: FleetOption = DEFAULT_FILE
    json: JsonOption = False


async def _run(options: WakeOptions, streams: Streams) -> int:
    streams.show_progress(f"waking {options.model} ...")
    path = f"/models/{quote(options.model, safe='/')}/wake"
    answer = await ask(options.fleet, streams.env, "POST", path, WokenDocument, timeout_s=None)
    streams.show_progress("")
    if options.json:
        streams.say_json(answer)
    else:
        streams.say(f"{options.model} is ready")
    return 0


VERB = new_verb(
    WakeOptions,
    _run,
    WokenDocument,
    epilog="The wake counts against the spend limits; the ledger records that an operator asked for it.\n"
    "Interrupting this command does not stop the wake. Exit 0: ready; 7: it failed; 4: not serving.",
)
