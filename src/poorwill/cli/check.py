"""`poorwill check`: everything that is wrong with a `fleet.toml`, and what it says where nothing is."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from poorwill.cli.target import add_fleet_option, add_json_option, fleet_path
from poorwill.cli.verb import EXIT_STATUS, Streams, Verb
from poorwill.config import (
    advice,
    document,
    load_fleet,
    public_without_keys,
    schema,
    taken_ports,
)
from poorwill.core.errors import ConfigFault, ErrorCode, Problem
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import SECOND_US


def _options(parser: argparse.ArgumentParser) -> None:
    add_fleet_option(parser, positional=True)
    parser.add_argument(
        "--ports", action="store_true", help="also try whether the configured ports are free now"
    )
    add_json_option(parser)
    parser.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON Schema of fleet.toml for editors, and stop",
    )
    parser.add_argument(
        "--manual", action="store_true", help="print the manual of every key (Markdown), and stop"
    )


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    if options.schema:
        streams.say_json(schema())
        return 0
    if options.manual:
        streams.stdout.write(document())
        return 0
    source = fleet_path(options)
    try:
        fleet = load_fleet(source, streams.env)
        problems: Sequence[Problem] = taken_ports(fleet) if options.ports else ()
    except ConfigFault as fault:
        fleet, problems = None, fault.problems
    if options.json:
        streams.say_json(_as_json(source, fleet, problems))
    else:
        _print(source, fleet, problems, streams)
    return EXIT_STATUS[ErrorCode.CONFIG_INVALID] if problems else 0


def _print(
    source: str, fleet: FleetSettings | None, problems: Sequence[Problem], streams: Streams
) -> None:
    for problem in problems:
        line = f"{source}:{problem.line}" if problem.line is not None else source
        streams.say(f"{line}: {problem.where}: {problem.what}")
        if problem.hint:
            streams.say(f"    hint: {problem.hint}")
    if problems or fleet is None:
        count = len(problems)
        streams.say(f"{source}: {count} problem{'s' if count != 1 else ''}")
        return
    gateway = fleet.gateway
    streams.say(f"{source}: OK")
    streams.say(f"  listen   {gateway.host}:{gateway.port}")
    streams.say(f"  admin    {gateway.admin_host}:{gateway.admin_port}")
    streams.say(f"  state    {fleet.directory}")
    for model in fleet.models:
        streams.say(f"  model    {_summary(model)}")
    for warning in _warnings(fleet):
        streams.say(f"  warning  {warning.where}: {warning.what}")
        if warning.hint:
            streams.say(f"           hint: {warning.hint}")


def _summary(model: ModelSettings) -> str:
    wake, policy = model.replica.wake, model.policy
    idle = f" {policy.idle_us / SECOND_US:g} s" if policy.idle_us is not None else ""
    ladder = " > ".join(model.replica.park.ladder)
    floor = ", floor" if model.floor.always or model.floor.windows else ""
    return (
        f"{model.name}: {model.engine.kind}, ladder {ladder}, policy {policy.name}{idle}{floor}, "
        f"wake budget {wake.budget_us / SECOND_US:g} s"
    )


def _warnings(fleet: FleetSettings) -> Sequence[Problem]:
    return [*public_without_keys(fleet, keys=0), *advice(fleet)]


def _as_json(
    source: str, fleet: FleetSettings | None, problems: Sequence[Problem]
) -> dict[str, object]:
    answer: dict[str, object] = {
        "ok": not problems,
        "file": source,
        "problems": [asdict(problem) for problem in problems],
    }
    if fleet is None:
        return answer
    gateway = fleet.gateway
    return answer | {
        "warnings": [asdict(warning) for warning in _warnings(fleet)],
        "directory": fleet.directory,
        "listen": f"{gateway.host}:{gateway.port}",
        "admin": f"{gateway.admin_host}:{gateway.admin_port}",
        "models": [
            {
                "name": model.name,
                "engine": model.engine.kind,
                "path": model.engine.path,
                "ladder": list(model.replica.park.ladder),
                "policy": model.policy.name,
                "wake_budget_s": model.replica.wake.budget_us / SECOND_US,
            }
            for model in fleet.models
        ],
    }


VERB = Verb(
    name="check",
    help="list everything that is wrong with a fleet.toml, with line and hint",
    options=_options,
    run=_run,
    epilog="""\
exit status: 0 nothing is wrong, 2 there are problems; warnings do not count.

Looks at the file, the model files, programs and variables it names; starts nothing. --ports also
binds each configured port for a moment. For completion in an editor:

  poorwill check --schema > fleet.schema.json
  and in the first line of fleet.toml:  #:schema ./fleet.schema.json""",
)
