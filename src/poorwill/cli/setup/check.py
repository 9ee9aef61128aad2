"""`poorwill check`: everything that is wrong with a `fleet.toml`, or, if nothing is, what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Struct, structs

from poorwill.cli.parsing.exit_status import EXIT_STATUS
from poorwill.cli.parsing.failure import ProblemDocument, problem_documents
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetArgument, JsonOption, fleet_path
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.checks import check_here
from poorwill.config.manual import document, schema
from poorwill.core.errors import ErrorCode
from poorwill.core.format import counted, duration
from poorwill.core.problems import ConfigFault, Problem
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import SECOND_US, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """The options of `poorwill check`."""

    fleet: FleetArgument = DEFAULT_FILE
    ports: Annotated[bool, Option("also try whether the configured ports are free now")] = False
    json: JsonOption = False
    schema: Annotated[bool, Option("print the JSON Schema of fleet.toml for editors, and stop")] = False
    manual: Annotated[bool, Option("print the manual of every key (Markdown), and stop")] = False


class CheckedModel(Struct, frozen=True, kw_only=True):
    """A model of the fleet."""

    name: str
    engine: str
    path: str
    machine: str
    ladder: tuple[Tier, ...]
    policy: str
    wake_budget_s: float
    bridge: str | None


class CheckDocument(Struct, frozen=True, kw_only=True):
    """What is wrong with a configuration, and what it says as far as it can be read."""

    ok: bool
    file: str
    problems: tuple[ProblemDocument, ...]
    warnings: tuple[ProblemDocument, ...] = ()
    directory: str | None = None
    listen: str | None = None
    admin: str | None = None
    models: tuple[CheckedModel, ...] = ()


async def _run(options: CheckOptions, streams: Streams) -> int:
    if options.schema:
        streams.say_json(schema())
        return 0
    if options.manual:
        streams.write(document())
        return 0
    source = fleet_path(options.fleet)
    try:
        fleet = read_fleet(options.fleet, streams.env, machine=True)
        problems, warnings = check_here(fleet, source, streams.env, ports=options.ports)
    except ConfigFault as fault:
        fleet, problems, warnings = None, fault.problems, ()
    if options.json:
        streams.say_json(_document(source, fleet, problems, warnings))
    else:
        _print_problems(source, problems, streams)
        if fleet is not None and not problems:
            _print_fleet(source, fleet, warnings, streams)
    return EXIT_STATUS[ErrorCode.CONFIG_INVALID] if problems else 0


def _print_problems(source: str, problems: Sequence[Problem], streams: Streams) -> None:
    for problem in problems:
        line = f"{source}:{problem.line}" if problem.line is not None else source
        streams.say(f"{line}: {problem.where}: {problem.what}")
        if problem.hint:
            streams.say(f"    hint: {problem.hint}")
    if problems:
        streams.say(f"{source}: {counted(len(problems), 'problem')}")


def _print_fleet(source: str, fleet: FleetSettings, warnings: Sequence[Problem], streams: Streams) -> None:
    gateway = fleet.gateway
    streams.say(f"{source}: OK")
    streams.say(f"  listen   {gateway.listen}")
    streams.say(f"  admin    {gateway.admin}")
    streams.say(f"  state    {fleet.directory}")
    for model in fleet.models:
        streams.say(f"  model    {_summary(model)}")
    for warning in warnings:
        streams.say(f"  warning  {warning.where}: {warning.what}")
        if warning.hint:
            streams.say(f"           hint: {warning.hint}")


def _summary(model: ModelSettings) -> str:
    wake, policy = model.replica.wake, model.policy
    idle = f" {duration(policy.idle_us)}" if policy.idle_us is not None else ""
    ladder = " > ".join(model.replica.park.ladder)
    on = f" on {model.away.named}" if model.away is not None else ""
    floor = ", floor" if model.floor.always or model.floor.windows else ""
    bridge = f", {model.hosted.bridge_words}" if model.hosted and model.hosted.bridge else ""
    parks = f"{model.engine.kind}{on}, ladder {ladder}, policy {policy.name}{idle}{floor}"
    how = f"at {model.elsewhere.named}, always ready" if model.elsewhere.engine else parks
    return f"{model.name}: {how}, wake budget {duration(wake.budget_us)}{bridge}"


def _document(
    source: str, fleet: FleetSettings | None, problems: Sequence[Problem], warnings: Sequence[Problem]
) -> CheckDocument:
    found = CheckDocument(ok=not problems, file=source, problems=problem_documents(problems))
    if fleet is None:
        return found
    gateway = fleet.gateway
    return structs.replace(
        found,
        warnings=problem_documents(warnings),
        directory=fleet.directory,
        listen=str(gateway.listen),
        admin=str(gateway.admin),
        models=tuple(
            CheckedModel(
                name=model.name,
                engine=model.engine.kind,
                path=model.engine.path,
                machine=model.away.named if model.away is not None else "",
                ladder=model.replica.park.ladder,
                policy=model.policy.name,
                wake_budget_s=model.replica.wake.budget_us / SECOND_US,
                bridge=model.hosted.name if model.hosted and model.hosted.bridge else None,
            )
            for model in fleet.models
        ),
    )


VERB = new_verb(
    CheckOptions,
    _run,
    CheckDocument,
    epilog="""\
exit status: 0 nothing is wrong, 2 there are problems; warnings do not count.

Looks at the file, the model files, programs and variables it names, and at what the fleet's ledger has
measured; starts nothing. --ports also binds each configured port for a moment; not of use while the fleet
is being served. For completion in an editor:

  poorwill check --schema > fleet.schema.json
  and in the first line of fleet.toml:  #:schema ./fleet.schema.json""",
)
