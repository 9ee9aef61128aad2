"""`poorwill wake MODEL`: have a model ready before anybody asks for it."""

import argparse
from urllib.parse import quote

from poorwill.cli.parsing.target import add_fleet_option, add_json_option, ask, read_fleet
from poorwill.cli.parsing.verb import Streams, Verb


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the model to wake, as clients name it")
    add_fleet_option(parser)
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    settings = read_fleet(options, streams)
    if streams.progress:
        streams.tell(f"waking {options.model} ...")
    answer = await ask(settings, "POST", f"/models/{quote(options.model, safe='/')}/wake", timeout_s=None)
    if options.json:
        streams.say_json(answer)
    else:
        streams.say(f"{options.model} is ready")
    return 0


VERB = Verb(
    name="wake",
    help="wake a model and wait until it is ready",
    options=_options,
    run=_run,
    epilog="The wake counts against the spend limits and is written down as asked for by the operator.\n"
    "Interrupting this command does not stop the wake. Exit 0: ready; 7: it failed; 4: not serving.",
)
