"""`poorwill bench`: a warm model under rising concurrency, through the gateway and directly."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated

from poorwill.cli.parsing.admin import ServedFleet, ask, holder_of_fleet
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetOption, JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.paths import ledger_path
from poorwill.compose.serving import serving_fleet
from poorwill.config.values.written import from_to, whole_from_to
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError
from poorwill.core.settings import Address, FleetSettings, ModelSettings
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.policies.coldstart.starts import StartSummary, compare
from poorwill.telemetry.dashboard.documents import StatusDocument
from poorwill.telemetry.loadtest.benchmark import measure, warm_up
from poorwill.telemetry.loadtest.client import BenchError, Target
from poorwill.telemetry.loadtest.load import ClientLoad
from poorwill.telemetry.loadtest.report import BenchDocument, BenchResult, bench_document, bench_lines
from poorwill.telemetry.log import StreamLog

MOST_CONCURRENCY = 1024
MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """The options of `poorwill bench`."""

    model: Annotated[
        str | None,
        Option("default: the fleet's only model", argument=True, metavar="MODEL", values=Values.MODELS),
    ] = None
    fleet: FleetOption = DEFAULT_FILE
    json: JsonOption = False
    concurrency: Annotated[
        int, Option("up to (default: 16)", metavar="N", read=whole_from_to(1, MOST_CONCURRENCY))
    ] = 16
    seconds: Annotated[
        float, Option("for each concurrency and way (default: 4)", metavar="S", read=from_to(0.1, 600))
    ] = 4.0
    tokens: Annotated[
        int, Option("asked of each request (default: 32)", metavar="N", read=whole_from_to(1, MOST))
    ] = 32
    prompt_words: Annotated[
        int, Option("of each prompt (default: 32)", metavar="N", read=whole_from_to(1, MOST))
    ] = 32
    pairs: Annotated[
        int, Option("to measure the gateway (default: 100)", metavar="N", read=whole_from_to(0, MOST))
    ] = 100
    key_env: Annotated[str | None, Option("environment variable that holds an API key", metavar="NAME")] = (
        None
    )


async def _run(options: BenchOptions, streams: Streams) -> int:
    fleet = read_fleet(options.fleet, streams.env, machine=True)
    model = fleet.model_named(options.model)
    load = ClientLoad(seconds=options.seconds, tokens=options.tokens, prompt_words=options.prompt_words)
    headers = _headers(options, streams)
    failure = ""
    async with _served(options.fleet, fleet, streams) as address:
        # Errors leave this block as text: the fleet's task groups would wrap an exception in groups.
        try:
            result = await _bench(fleet, model, address, load, options, streams, headers)
        except* (BenchError, OSError, PoorwillError) as errors:
            failure = _first(errors)
    if failure:
        raise OperatorFault(
            ErrorCode.UPSTREAM_PROTOCOL,
            f"the benchmark of {model.name} failed: {failure}",
            hint="see poorwill status and the engine's log in the fleet directory; "
            "if the fleet has API keys, give --key-env",
        )
    if options.json:
        streams.say_json(bench_document(result))
    else:
        streams.say(*bench_lines(result))
    return 0


async def _bench(
    fleet: FleetSettings,
    model: ModelSettings,
    address: str,
    load: ClientLoad,
    options: BenchOptions,
    streams: Streams,
    headers: Mapping[str, str],
) -> BenchResult:
    host, _, port = address.rpartition(":")
    gateway = Target(
        route="gateway", host=host.strip("[]"), port=int(port), model=model.name, headers=headers
    )
    streams.show_progress(f"waking {model.name}")
    await warm_up(gateway, load)
    found = await measure(
        gateway,
        await _direct(options.fleet, model, streams),
        load,
        most=options.concurrency,
        pairs=options.pairs,
        progress=streams.show_progress,
    )
    return replace(found, wakes=await asyncio.to_thread(_wakes, fleet, model))


@asynccontextmanager
async def _served(named: str, fleet: FleetSettings, streams: Streams) -> AsyncIterator[str]:
    """Yield the gateway's address: of the poorwill that serves the fleet, else of one for this run only."""
    holder = holder_of_fleet(named, streams.env)
    if holder is not None and "address" in holder:
        yield str(holder["address"])
        return
    streams.tell("no poorwill serves this fleet; serving it for the length of the benchmark")
    free = Address("127.0.0.1", 0)
    gateway = replace(fleet.gateway, listen=free, admin=free)
    log = StreamLog(stream=streams.stderr, level="error")
    # Left running, its engines would be nobody's.
    on_exit = "park" if fleet.on_exit == "leave" else fleet.on_exit
    settings = replace(fleet, gateway=gateway, on_exit=on_exit)
    async with serving_fleet(settings, env=streams.env, log=log) as served:
        yield served.address


async def _direct(fleet: str, model: ModelSettings, streams: Streams) -> Target | None:
    """Return the engine's own address, None if this process cannot know it."""
    answer = await ask(ServedFleet(fleet=fleet), streams.env, "GET", "/status", StatusDocument)
    port = next((one.port for one in answer.replicas if one.model == model.name and one.pid), None)
    if not port:
        return None
    name = model.engine.engine_model or model.name
    return Target(route="direct", host="127.0.0.1", port=port, model=name)


def _wakes(fleet: FleetSettings, model: ModelSettings) -> list[StartSummary]:
    with reading(ledger_path(fleet)) as db:
        return compare(finished_wakes(db, model=model.name, last=50))


def _headers(options: BenchOptions, streams: Streams) -> Mapping[str, str]:
    if options.key_env is None:
        return {}
    key = streams.env.get(options.key_env, "")
    if not key:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, f"${options.key_env} is not set")
    return {"Authorization": f"Bearer {key}"}


def _first(errors: BaseExceptionGroup[BaseException]) -> str:
    inner: BaseException = errors
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return str(inner) or repr(inner)


VERB = new_verb(
    BenchOptions,
    _run,
    BenchDocument,
    epilog="Uses the poorwill that serves the fleet, or serves it for the length of the run. It asks the\n"
    "model for real tokens, and nobody else.",
)
