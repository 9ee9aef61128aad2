"""`poorwill demo`: the whole product in a minute, on a model it makes itself.

A fleet on loopback serves a compressed slice of real traffic; its one replica falls idle, is parked,
wakes for the next request, several times. What it leaves is an ordinary fleet directory.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from poorwill.cli.demo.progress import Show
from poorwill.cli.demo.replay import TRACE_S, Answer, bundled_slice, replay
from poorwill.cli.demo.report import DemoDocument, facts_of, report, report_document
from poorwill.cli.parsing.exit_status import FINDING
from poorwill.cli.parsing.fleet import DEFAULT_FILE, JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.values import from_to
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.paths import ledger_path
from poorwill.compose.serving import Serving, serving_fleet
from poorwill.config import load_fleet
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import Address, FleetSettings
from poorwill.core.words import Tier
from poorwill.engines.weights.gguf_model import make_model
from poorwill.engines.weights.transformers_model import make_transformers_model
from poorwill.hosts.files.opening import own_directory
from poorwill.telemetry.log import StreamLog

IDLE_SHARE = 1 / 30
"""The linger as a part of the whole: four minutes of the trace's two hours, however compressed."""

OURS = "# The fleet of `poorwill demo`."

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "llama.cpp": """\
engine = "llama.cpp"
path = "{model_file}"
context = 2048
options = {{ threads = 1 }}""",
        "transformers": """\
engine = "transformers"
path = "{model_file}"
env = {{ HF_HUB_OFFLINE = "1", OMP_NUM_THREADS = "1" }}
options = {{ continuous_batching = true, cb_num_blocks = 64, cb_block_size = 32 }}""",
    }
)
"""The engines the demo can run. By default transformers would take 9.5 GB of memory for its KV cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The options of `poorwill demo`."""

    directory: Annotated[
        str,
        Option("the fleet directory to leave (default: poorwill-demo)", flag="--dir", values=Values.FILES),
    ] = "poorwill-demo"
    size: Annotated[Literal["5m", "100m"], Option("parameters of the model (default: 5m)")] = "5m"
    engine: Annotated[
        str,
        Option(
            "transformers starts slowly, so that parking gains most; it must be on PATH "
            "(default: llama.cpp, which is built in)",
            choices=tuple(ENGINES),
        ),
    ] = "llama.cpp"
    seconds: Annotated[
        float,
        Option("what the two hours of the trace are compressed to (default: 60)", read=from_to(5, 3_600)),
    ] = 60.0
    json: JsonOption = False


async def _run(options: DemoOptions, streams: Streams) -> int:
    show = Show(streams=streams, quiet=options.json)
    settings = await asyncio.to_thread(_prepare, options, streams.env, show)
    log = StreamLog(stream=streams.stderr, level="error")  # warnings are shown or reported
    async with serving_fleet(settings, env=streams.env, log=log) as serving:
        since_us = serving.clock.now_us()
        answers = await _drive(serving, options.seconds, show)
    facts = facts_of(settings, ledger_path(settings), since_us=since_us)
    if options.json:
        streams.say_json(report_document(facts, answers, serving.fallbacks))
    else:
        streams.say(*report(settings, facts, serving.fallbacks, directory=options.directory))
    return FINDING if any(answer.error for answer in answers) else 0


async def _drive(serving: Serving, seconds: float, show: Show) -> Sequence[Answer]:
    """Replay the slice, showing what happens, and wait for the last park."""
    for line in serving.explained():
        show.line(line)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(show.follow(serving.view.events()))
        arrivals = bundled_slice(seconds=seconds)
        send = partial(replay, base_url=f"http://{serving.address}/v1", model="demo", tell=show.answered)
        answers = await send(arrivals)
        (model,) = serving.view.models()
        await serving.view.park(model, None)
        if not show.woken - {Tier.COLD} and serving.ladders[model][0] is not Tier.COLD:
            # Too short a run for its gaps to be parks: a demo without a wake shows nothing.
            show.line("one more request, which finds it parked")
            answers += await send(arrivals[-1:], first_number=len(answers) + 1)
            await serving.view.park(model, None)
        watching.cancel()
    show.done()
    return answers


def _prepare(options: DemoOptions, env: Mapping[str, str], show: Show) -> FleetSettings:
    """Make the model and the fleet's configuration, or take those of an earlier demo.

    Raises OperatorFault if the directory holds something else.
    """
    directory = Path(options.directory)
    configuration = directory / DEFAULT_FILE
    try:
        own_directory(directory)
        written = configuration.read_text(encoding="utf-8") if configuration.is_file() else ""
    except OSError as error:
        what = f"{directory} cannot be used: {error.strerror}"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="choose another with --dir") from error
    ours = written.startswith(OURS)
    if not ours and any(directory.iterdir()):
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{directory} exists and is no demo of ours; nothing was written",
            hint="choose another with --dir",
        )
    model_file = _model_file(directory, options, env, show)
    engine = ENGINES[options.engine].format(model_file=model_file)
    seconds = options.seconds
    text = _template().format(engine=engine, idle_s=seconds * IDLE_SHARE, scale=TRACE_S / seconds)
    configuration.write_text(text, encoding="utf-8")
    settings = load_fleet(str(configuration), env, machine=True)
    # A free port each: the demo must not fail for a server that somebody runs already.
    free = Address("127.0.0.1", 0)
    return replace(settings, gateway=replace(settings.gateway, listen=free, admin=free))


def _template() -> str:
    return files("poorwill.cli.demo").joinpath("fleet.toml").read_text(encoding="utf-8")


def _model_file(directory: Path, options: DemoOptions, env: Mapping[str, str], show: Show) -> str:
    """Make the model, unless an earlier demo has; return its name in the directory."""
    own = options.engine == "llama.cpp"
    name = f"demo-{options.size}" + (".gguf" if own else "-transformers")
    target = directory / name
    if not target.exists():
        show.line(f"making a random Llama model, {options.size} parameters: {target}")
        if own:
            make_model(target, size=options.size)
        else:
            make_transformers_model(target, env=env, size=options.size)
    return name


VERB = new_verb(
    DemoOptions,
    _run,
    DemoDocument,
    epilog="It ends by itself. The directory it leaves is an ordinary fleet: point bill, anatomy, plan\n"
    "and serve at it with --fleet DIR. Exit 1 if a request failed.",
)
