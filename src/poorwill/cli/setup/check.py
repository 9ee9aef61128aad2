"""`poorwill check`: everything that is wrong with a `fleet.toml`, and what it says where nothing is."""

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Struct, structs

from poorwill.cli.parsing.exit_status import EXIT_STATUS
from poorwill.cli.parsing.failure import ProblemDocument, problem_documents
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetArgument, JsonOption, fleet_path
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.clock import SystemClock
from poorwill.compose.paths import ledger_path
from poorwill.config import lines_of
from poorwill.config.machine_checks import taken_ports
from poorwill.config.manual import document, schema
from poorwill.config.rules.advice import advice
from poorwill.config.rules.break_even import short_idles
from poorwill.core.errors import ConfigFault, ErrorCode, OperatorFault, Problem
from poorwill.core.format import counted, duration
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import SECOND_US, Tier
from poorwill.gateway.keys import listener_problems
from poorwill.ledger.history.recovery import Recovered, recovered
from poorwill.ledger.keys import list_keys
from poorwill.ledger.schema import reading
from poorwill.policies import TierCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What `poorwill check` is told."""

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
        problems, warnings = _judge(fleet, source, ports=options.ports)
        warnings = [*warnings, *_engines(fleet, streams.env)]
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
    on = f" on {model.cloud.named}" if model.cloud is not None else ""
    floor = ", floor" if model.floor.always or model.floor.windows else ""
    bridge = f", {model.hosted.bridge_words}" if model.hosted and model.hosted.bridge else ""
    return (
        f"{model.name}: {model.engine.kind}{on}, ladder {ladder}, policy {policy.name}{idle}{floor}, "
        f"wake budget {duration(wake.budget_us)}{bridge}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """What the fleet's ledger knows that a configuration can be judged by."""

    recovered: Recovered | None = None
    keys: tuple[str, ...] = ()
    trouble: tuple[Problem, ...] = ()


def _remembered(fleet: FleetSettings) -> _Remembered:
    path = ledger_path(fleet)
    if not os.path.exists(path):
        return _Remembered()
    try:
        with reading(path) as db:
            names = tuple(key.name for key in list_keys(db))
            return _Remembered(recovered=recovered(db), keys=names)
    except OperatorFault as fault:
        return _Remembered(trouble=(Problem(where=path, what=fault.message, hint=fault.hint or ""),))


def _judge(fleet: FleetSettings, source: str, *, ports: bool) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """Return what would keep a readable configuration from being served here, and warnings."""
    known = _remembered(fleet)
    lines = lines_of(source)
    problems = [
        replace(problem, line=lines.of(tuple(problem.where.split("."))))
        for problem in listener_problems(fleet.gateway, keys_configured=bool(known.keys))
    ]
    if ports:
        problems += taken_ports(fleet)
    warnings = [*known.trouble, *advice(fleet), *_unknown_keys(fleet, known.keys)]
    if known.recovered is not None and fleet.rates:
        problems += _short_idles(fleet, source, known.recovered)
    problems += _unpriced_bridges(fleet, source)
    return problems, warnings


def _engines(fleet: FleetSettings, env: Mapping[str, str]) -> Iterator[Problem]:
    """Return warnings of engines that are not installed here, and of rungs that theirs will not take."""
    from poorwill.engines.kinds import cannot_sleep, missing_program

    for model in fleet.models:
        if model.cloud is not None:
            continue
        missing = missing_program(model.engine, env)
        if missing is not None:
            yield Problem(
                where=f"models.{model.name}.engine",
                what=f"there is no program {missing!r} on PATH",
                hint="install it, or name where it is with command",
            )
        why = cannot_sleep(model.engine) if Tier.ASLEEP in model.replica.park.ladder else None
        if why is not None:
            what = f"asleep will be skipped: {why[0]}"
            yield Problem(where=f"models.{model.name}.ladder", what=what, hint=why[1])


def _short_idles(fleet: FleetSettings, source: str, known: Recovered) -> Sequence[Problem]:
    from poorwill.compose.plans import measured_costs  # loads the whole gateway

    now_us = SystemClock.started().now_us()

    def costs(model: ModelSettings, tier: Tier) -> TierCosts | None:
        return measured_costs(model, tier, fleet.rates, known, now_us=now_us)

    return short_idles(fleet, costs, lines_of(source))


def _unpriced_bridges(fleet: FleetSettings, source: str) -> Sequence[Problem]:
    if not any(model.hosted is not None and model.hosted.bridge for model in fleet.models):
        return ()
    from poorwill.compose.bridges import unpriced_bridges  # loads the gateway and the price list

    return unpriced_bridges(fleet, lines_of(source))


def _unknown_keys(fleet: FleetSettings, names: Sequence[str]) -> Sequence[Problem]:
    limits = {**fleet.spend.key_day_nusd, **fleet.spend.key_month_nusd}
    return [
        Problem(where="spend", what=f"there is no key named {name!r}", hint="see poorwill keys list")
        for name in limits
        if name not in names
    ]


def _document(
    source: str,
    fleet: FleetSettings | None,
    problems: Sequence[Problem],
    warnings: Sequence[Problem],
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
                machine=model.cloud.named if model.cloud is not None else "",
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
    epilog="""\
exit status: 0 nothing is wrong, 2 there are problems; warnings do not count.

Looks at the file, the model files, programs and variables it names, and at what the fleet's ledger has
measured; starts nothing. --ports also binds each configured port for a moment; not of use while the fleet
is being served. For completion in an editor:

  poorwill check --schema > fleet.schema.json
  and in the first line of fleet.toml:  #:schema ./fleet.schema.json""",
)
