"""`poorwill init`: writes a commented example `fleet.toml` that can be served as it is.

Writes into one directory, never over a file that exists.
"""

import os
import re
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from msgspec import Struct

from poorwill.cli.parsing.fleet import DEFAULT_FILE, JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.config import MODEL_NAME
from poorwill.core.errors import ErrorCode, OperatorFault

RANDOM_NAME = "random-5m"
_RANDOM_CONTEXT = 2048
_OWN_CONTEXT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """The options of `poorwill init`."""

    directory: Annotated[
        str, Option("where to write it (default: here)", metavar="DIR", argument=True, values=Values.FILES)
    ] = "."
    model: Annotated[
        str | None,
        Option(
            "your own GGUF file; without it a small random model is made, which talks nonsense but "
            "serves, parks and wakes like any other",
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


async def _run(options: InitOptions, streams: Streams) -> int:
    directory = Path(options.directory)
    target = directory / DEFAULT_FILE
    if target.exists():
        raise OperatorFault(
            ErrorCode.IN_USE,
            f"{target} exists already; nothing was written",
            hint=f"poorwill check {shlex.quote(str(target))} looks it over; remove it, or name "
            "another directory",
        )
    own = _own_model(options.model) if options.model else None
    name = options.name or (_name_of(own) if own else RANDOM_NAME)
    if not re.fullmatch(MODEL_NAME, name):
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"{name!r} is not a name for a model", hint="e.g. llama-8b"
        )
    model = _write(target, own, name)
    if options.json:
        streams.say_json(InitDocument(file=str(target), name=name, model=str(model), made=not own))
        return 0
    streams.say(f"wrote {target}")
    if not own:
        streams.say(f"made {model}, a random model to try things with; --model PATH takes your own")
    streams.say(f"next: poorwill serve {shlex.quote(options.directory)}")
    return 0


def _write(target: Path, own: Path | None, name: str) -> Path:
    """Write the file, and a random model if there is no other; return the model's path."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        model = own or _random_model(target.parent)
        text = example(name=name, path=_as_written(model, target.parent), own=bool(own))
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        what = f"cannot write {target}: {error.strerror}"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="try another DIR") from error
    return model


def example(*, name: str, path: str, own: bool) -> str:
    """Return the example file for one model."""
    text = files("poorwill.config").joinpath("example.toml").read_text(encoding="utf-8")
    context = _OWN_CONTEXT if own else _RANDOM_CONTEXT
    for mark, value in (("@NAME@", name), ("@PATH@", path), ("@CONTEXT@", str(context))):
        text = text.replace(mark, value.replace("\\", "\\\\").replace('"', '\\"'))
    return text


def _own_model(text: str) -> Path:
    path = Path(text)
    try:
        with path.open("rb") as file:
            if file.read(4) == b"GGUF":
                return path
        what = f"{path} is no GGUF file"
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
    raise OperatorFault(
        ErrorCode.CONFIG_INVALID,
        what,
        hint="the embedded engine reads GGUF files; for vLLM and others see the example's comments",
    )


def _random_model(directory: Path) -> Path:
    from poorwill.engines.weights.gguf_model import make_model

    path = directory / f"{RANDOM_NAME}.gguf"
    return path if path.exists() else make_model(path)


def _name_of(path: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")
    return stem[:128] or "model"


def _as_written(model: Path, directory: Path) -> str:
    """Return the path as the file should have it: relative if it is below the file."""
    whole, base = os.path.abspath(model), os.path.abspath(directory)
    relative = os.path.relpath(whole, base)
    return whole if relative.startswith("..") else relative


VERB = new_verb(
    InitOptions,
    _run,
    InitDocument,
    epilog="""\
examples:
  poorwill init                                  a fleet here, with a small random model
  poorwill init ~/fleet --model llama-3.gguf     a fleet in ~/fleet for your own model file

An existing fleet.toml is never overwritten (exit status 3).""",
)
