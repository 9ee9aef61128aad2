"""`poorwill park MODEL`: send a model to rest now instead of after its linger."""

import argparse
from urllib.parse import quote

from poorwill.cli.parsing.target import add_fleet_option, add_json_option, ask, read_fleet
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.core.words import Tier


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the model to park, as clients name it")
    parser.add_argument(
        "--tier",
        choices=[tier.value for tier in Tier],
        help="how deep (default: the first tier of the model's ladder)",
    )
    add_fleet_option(parser)
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    settings = read_fleet(options, streams)
    if streams.progress:
        streams.tell(f"parking {options.model} ...")
    query = f"?tier={options.tier}" if options.tier else ""
    path = f"/models/{quote(options.model, safe='/')}/park{query}"
    answer = await ask(settings, "POST", path, timeout_s=None)
    if options.json:
        streams.say_json(answer)
    else:
        tier = answer.get("tier")
        streams.say(f"{options.model} is parked" + (f": {tier}" if tier else ""))
        if "why" in answer:
            streams.tell(f"  not {options.tier}: {answer['why']}")
    return 0


VERB = Verb(
    name="park",
    help="drain a model and park it",
    options=_options,
    run=_run,
    epilog="Requests in flight finish first, up to the model's drain_s. A request that arrives meanwhile\n"
    "cancels the park (exit 7). Interrupting this command does not stop the park.",
)
