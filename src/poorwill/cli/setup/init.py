"""`poorwill init`: writes a commented example `fleet.toml` that can be served as it is.

Writes into one directory, never over a file that exists.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct

from poorwill.cli.parsing.failure import ProblemDocument, problem_documents
from poorwill.cli.parsing.fleet import DEFAULT_FILE, JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.checks import engine_cautions
from poorwill.compose.deployment.first_fleet import (
    RANDOM_NAME,
    name_of_file,
    own_model,
    write_first,
    write_fleet,
)
from poorwill.config import MODEL_NAME
from poorwill.config.moving.carried import Carried, Left, fleet_text
from poorwill.config.moving.installed import installed
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.problems import ConfigFault, Problem

Engine = Literal["llama.cpp", "vllm", "sglang", "transformers", "ollama"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """The options of `poorwill init`."""

    directory: Annotated[
        str, Option("where to write it (default: here)", metavar="DIR", argument=True, values=Values.FILES)
    ] = "."
    source: Annotated[
        str | None,
        Option(
            "carry over what you have: a llama-swap or LiteLLM YAML file, `ollama` or the directory of its "
            "models, or a line of `vllm serve`, `llama-server`, `docker run ...` in quotes",
            flag="--from",
            metavar="SOURCE",
            values=Values.FILES,
        ),
    ] = None
    engine: Annotated[Engine, Option("what serves the model (default: llama.cpp, embedded)")] = "llama.cpp"
    model: Annotated[
        str | None,
        Option(
            "your own GGUF file, or what the engine calls its model; without it a small random model is "
            "made, which talks nonsense but serves, parks and wakes like any other",
            metavar="PATH",
            values=Values.FILES,
        ),
    ] = None
    name: Annotated[str | None, Option("what clients write in model= (default: from the file's name)")] = None
    json: JsonOption = False


class InitDocument(Struct, frozen=True, kw_only=True):
    """A fleet that was written; `made`: its model is a random one that was made for it."""

    file: str
    name: str
    model: str
    made: bool
    models: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    problems: tuple[ProblemDocument, ...] = ()


async def _run(options: InitOptions, streams: Streams) -> int:
    target = Path(options.directory) / DEFAULT_FILE
    if target.exists():
        raise OperatorFault(
            ErrorCode.IN_USE,
            f"{target} exists already; nothing was written",
            hint=f"poorwill check {shlex.quote(str(target))} looks it over; remove it, or name "
            "another directory",
        )
    carried = _carried(options, streams)
    if carried is not None:
        return _carry_over(carried, target, options, streams)
    own = own_model(options.model) if options.model else None
    name = _checked(options.name or (name_of_file(own) if own else RANDOM_NAME))
    model = write_first(target, own, name)
    if options.json:
        shown = InitDocument(file=str(target), name=name, model=str(model), made=not own, models=(name,))
        streams.say_json(shown)
        return 0
    streams.say(f"wrote {target}")
    if not own:
        streams.say(f"made {model}, a random model to try things with; --model PATH takes your own")
    streams.say(f"next: poorwill serve {shlex.quote(options.directory)}")
    return 0


def _checked(name: str) -> str:
    if not re.fullmatch(MODEL_NAME, name):
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"{name!r} is not a name for a model", hint="e.g. llama-8b"
        )
    return name


def _carried(options: InitOptions, streams: Streams) -> Carried | None:
    """Return what is to be written; None: the example, for the embedded engine."""
    name = _checked(options.name) if options.name else ""
    if options.source is not None:
        if options.model or options.engine != "llama.cpp":
            hint = "--engine and --model are for a fleet from nothing"
            raise RequestFault(ErrorCode.INVALID_REQUEST, "--from tells engine and model", hint=hint)
        from poorwill.config.moving.source import carry  # YAML is slow to import

        return carry(options.source, streams.env, name=name)
    if options.engine == "llama.cpp":
        return None
    if not options.model:
        hint = "a directory, a model id such as Qwen/Qwen3-8B, or the name that ollama list shows"
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"--engine {options.engine} needs --model", hint=hint)
    return installed(options.engine, options.model, name=name)


def _carry_over(carried: Carried, target: Path, options: InitOptions, streams: Streams) -> int:
    """Write the file, and say what was left out and what `check` finds missing here."""
    write_fleet(target, fleet_text(carried))
    problems: Sequence[Problem] = ()
    try:
        problems = list(engine_cautions(read_fleet(str(target), streams.env, machine=True), streams.env))
    except ConfigFault as fault:
        problems = fault.problems
    names = tuple(model.name for model in carried.models)
    left = carried.everything_left
    if options.json:
        shown = InitDocument(
            file=str(target),
            name=names[0],
            model=str(carried.models[0].keys.get("path", "")),
            made=False,
            models=names,
            left=left,
            problems=problem_documents(problems),
        )
        streams.say_json(shown)
        return 0
    streams.say(f"wrote {target}: {', '.join(names)}")
    if left:
        streams.say("not carried over, or not as it was:", *(f"  {one.where}: {one.what}" for one in left))
    if problems:
        streams.say("to mend before it is served:", *(f"  {problem}" for problem in problems))
    streams.say(f"next: poorwill {'check' if problems else 'serve'} {shlex.quote(options.directory)}")
    return 0


VERB = new_verb(
    InitOptions,
    _run,
    InitDocument,
    epilog="""\
examples:
  poorwill init                                  a fleet here, with a small random model
  poorwill init ~/fleet --model llama-3.gguf     a fleet in ~/fleet for your own model file
  poorwill init --engine vllm --model Qwen/Qwen3-8B    for vLLM, which you have installed
  poorwill init --from llama-swap.yaml           the models of llama-swap; what was left out is listed
  poorwill init --from ollama                    the models that Ollama has here
  poorwill init --from 'vllm serve Qwen/Qwen3-8B --max-model-len 8192'

An existing fleet.toml is never overwritten (exit status 3). docs/moving.md says what becomes of what.""",
)
