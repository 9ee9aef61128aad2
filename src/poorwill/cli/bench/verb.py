"""`poorwill bench`: a warm model under rising concurrency, through the gateway and directly."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from poorwill.cli.bench.client import BenchError, Caller, Target, shoot
from poorwill.cli.bench.load import Load, kv_capacity, measure_overhead, run_level, stay_awake
from poorwill.cli.bench.report import BenchResult, bench_json, bench_lines
from poorwill.cli.parsing.target import add_fleet_option, add_json_option, ask, read_fleet, serving
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.coldstart.starts import StartSummary, compare
from poorwill.coldstart.steady_state import Level
from poorwill.compose.paths import ledger_path
from poorwill.compose.serving import serving_fleet
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError
from poorwill.core.settings import Address, FleetSettings, ModelSettings
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.telemetry.log import StreamLog

MOST_CONCURRENCY = 1024


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="default: the fleet's only model")
    add_fleet_option(parser)
    add_json_option(parser)
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="up to (default 16)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        metavar="S",
        help="each concurrency and way (default 4)",
    )
    parser.add_argument("--tokens", type=int, default=32, help="asked of each request (default 32)")
    parser.add_argument("--prompt-words", type=int, default=32, help="of each prompt (default 32)")
    parser.add_argument("--pairs", type=int, default=100, help="to measure the gateway (default 100)")
    parser.add_argument("--key-env", metavar="NAME", help="environment variable that holds an API key")


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    _check(options)
    fleet = read_fleet(options, streams, machine=True)
    model = _model(fleet, options.model)
    load = Load(seconds=options.seconds, tokens=options.tokens, prompt_words=options.prompt_words)
    headers = _headers(options, streams)
    failure = ""
    async with _served(fleet, streams) as address:
        # Errors leave this block as text: the fleet's task groups would wrap an exception in groups.
        try:
            result = await _bench(fleet, model, address, load, options, streams, headers)
        except* (BenchError, OSError, PoorwillError) as errors:
            failure = _first(errors)
    if failure:
        raise OperatorFault(
            ErrorCode.UPSTREAM_PROTOCOL,
            f"the benchmark of {model.name} failed: {failure}",
            hint="poorwill status, and the engine's log in the fleet directory; "
            "where the fleet has API keys, --key-env",
        )
    if options.json:
        streams.say_json(bench_json(result))
    else:
        for line in bench_lines(result):
            streams.say(line)
    return 0


async def _bench(
    fleet: FleetSettings,
    model: ModelSettings,
    address: str,
    load: Load,
    options: argparse.Namespace,
    streams: Streams,
    headers: Mapping[str, str],
) -> BenchResult:
    host, _, port = address.rpartition(":")
    gateway = Target(
        route="gateway", host=host.strip("[]"), port=int(port), model=model.name, headers=headers
    )
    _tell(streams, f"waking {model.name}")
    await _warm(gateway, load)
    direct = await _direct(fleet, model)
    levels: list[Level] = []
    async with asyncio.TaskGroup() as tasks:
        awake = tasks.create_task(stay_awake(gateway, load))
        found = await measure_overhead(direct, gateway, load, pairs=options.pairs) if direct else None
        number = 0
        for concurrency in _concurrencies(options.concurrency):
            for target in (direct, gateway) if direct else (gateway,):
                _tell(streams, f"{concurrency} at once, {target.route}")
                number += 1_000_000
                levels.append(await run_level(target, load, concurrency=concurrency, first=number))
        capacity = await kv_capacity(direct) if direct else {}
        awake.cancel()
    wakes = await asyncio.to_thread(_wakes, fleet, model)
    return BenchResult(model=model.name, levels=levels, overhead=found, capacity=capacity, wakes=wakes)


@asynccontextmanager
async def _served(fleet: FleetSettings, streams: Streams) -> AsyncIterator[str]:
    """Yield the gateway's address: of the poorwill that serves the fleet, else of one for this run only."""
    holder = serving(fleet)
    if holder is not None and "address" in holder:
        yield str(holder["address"])
        return
    streams.tell("no poorwill serves this fleet; serving it for the length of the benchmark")
    free = Address("127.0.0.1", 0)
    gateway = replace(fleet.gateway, listen=free, admin=free)
    log = StreamLog(stream=streams.stderr, level="error")
    async with serving_fleet(replace(fleet, gateway=gateway), env=streams.env, log=log) as served:
        yield served.address


async def _warm(gateway: Target, load: Load) -> None:
    """Wake the model as a client does, and let a few requests warm it up."""
    for number in range(3):
        caller = Caller(target=gateway)
        try:
            await shoot(caller, load.prompt(700_000 + number), tokens=load.tokens)
        finally:
            caller.close()


async def _direct(fleet: FleetSettings, model: ModelSettings) -> Target | None:
    """Return the engine's own address, None where it listens somewhere this process cannot know."""
    answer = await ask(fleet, "GET", "/status")
    mine = [r for r in answer["replicas"] if r["model"] == model.name and r.get("port")]
    if not mine or not mine[0].get("pid"):
        return None
    name = model.engine.engine_model or model.name
    return Target(route="direct", host="127.0.0.1", port=int(mine[0]["port"]), model=name)


def _wakes(fleet: FleetSettings, model: ModelSettings) -> list[StartSummary]:
    with reading(ledger_path(fleet)) as db:
        return compare(finished_wakes(db, model=model.name, last=50))


def _concurrencies(most: int) -> list[int]:
    found = [1]
    while found[-1] * 2 <= most:
        found.append(found[-1] * 2)
    return found if found[-1] == most else [*found, most]


def _model(fleet: FleetSettings, name: str | None) -> ModelSettings:
    names = ", ".join(model.name for model in fleet.models)
    if name is None and len(fleet.models) == 1:
        return fleet.models[0]
    for model in fleet.models:
        if model.name == name:
            return model
    what = f"no model is named {name!r}" if name else "the fleet has several models; name one"
    raise OperatorFault(ErrorCode.MODEL_NOT_FOUND, what, hint=f"models: {names}")


def _check(options: argparse.Namespace) -> None:
    bounds = {
        "concurrency": (1, MOST_CONCURRENCY),
        "seconds": (0.1, 600),
        "tokens": (1, 100_000),
        "prompt_words": (1, 100_000),
        "pairs": (0, 100_000),
    }
    for name, (least, most) in bounds.items():
        if not least <= getattr(options, name) <= most:
            flag = f"--{name.replace('_', '-')}"
            raise OperatorFault(
                ErrorCode.CONFIG_INVALID, f"{flag} is out of range", hint=f"from {least} to {most}"
            )


def _headers(options: argparse.Namespace, streams: Streams) -> Mapping[str, str]:
    if options.key_env is None:
        return {}
    key = streams.env.get(options.key_env, "")
    if not key:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, f"${options.key_env} is not set")
    return {"Authorization": f"Bearer {key}"}


def _tell(streams: Streams, text: str) -> None:
    if streams.progress:
        streams.tell(text)


def _first(errors: BaseExceptionGroup[BaseException]) -> str:
    inner: BaseException = errors
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return str(inner) or repr(inner)


VERB = Verb(
    name="bench",
    help="measure a warm model under rising concurrency, through the gateway and directly",
    options=_options,
    run=_run,
    epilog="Uses the poorwill that serves the fleet, else serves it for the length of the run. It asks the\n"
    "model for real tokens, and nobody else.",
)
