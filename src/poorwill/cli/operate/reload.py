"""`poorwill reload`: have a fleet that is being served follow its changed configuration."""

from dataclasses import dataclass, field

from poorwill.cli.parsing.admin import ServedFleetArgument, ask
from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.telemetry.dashboard.documents import ConfigurationNow


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadOptions:
    """The options of `poorwill reload`."""

    where: ServedFleetArgument = field(default_factory=ServedFleetArgument)
    json: JsonOption = False


async def _run(options: ReloadOptions, streams: Streams) -> int:
    answer = await ask(options.where, streams.env, "POST", "/reload", ConfigurationNow, timeout_s=None)
    if options.json:
        streams.say_json(answer)
        return 0
    streams.say(*answer.changes or ["nothing changed"])
    streams.say(*(f"{key}: needs a restart" for key in answer.needs_restart))
    return 0


VERB = new_verb(
    ReloadOptions,
    _run,
    ConfigurationNow,
    epilog="Models that did not change notice nothing. One whose engine is configured otherwise drains and\n"
    "starts anew with its next wake. A faulty file changes nothing (exit 2); 4: no poorwill serves the\n"
    "fleet. SIGHUP does the same; so does a change of the file with reload_on_change = true in [fleet].",
)
