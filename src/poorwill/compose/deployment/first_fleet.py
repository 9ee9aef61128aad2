"""Writes the first `fleet.toml` of a fleet: the commented example, with a model in it."""

import os
from importlib.resources import files
from pathlib import Path

from poorwill.config.moving.carried import file_name
from poorwill.config.moving.ollama import name_of_blob
from poorwill.core.errors import ErrorCode, OperatorFault

RANDOM_NAME = "random-5m"
_RANDOM_CONTEXT = 2048
_OWN_CONTEXT = 4096


def write_first(target: Path, own: Path | None, name: str) -> Path:
    """Write the file, and a random model if there is no other; return the model's path; or OperatorFault."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        model = own or _random_model(target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    write_fleet(target, example(name=name, path=_as_written(model, target.parent), own=bool(own)))
    return model


def write_fleet(target: Path, text: str) -> None:
    """Write the file for its owner alone: an engine's variables may hold secrets."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(
            os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> OperatorFault:
    what = f"cannot write {target}: {error.strerror}"
    return OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="try another DIR")


def example(*, name: str, path: str, own: bool) -> str:
    """Return the example file for one model."""
    text = files("poorwill.config").joinpath("example.toml").read_text(encoding="utf-8")
    context = _OWN_CONTEXT if own else _RANDOM_CONTEXT
    for mark, value in (("@NAME@", name), ("@PATH@", path), ("@CONTEXT@", str(context))):
        text = text.replace(mark, value.replace("\\", "\\\\").replace('"', '\\"'))
    return text


def own_model(text: str) -> Path:
    """Return the path of a GGUF file. Raises OperatorFault if it is none."""
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
        hint="the embedded engine reads GGUF files; --engine vllm and others take directories",
    )


def _random_model(directory: Path) -> Path:
    from poorwill.engines.weights.gguf_model import make_model

    path = directory / f"{RANDOM_NAME}.gguf"
    return path if path.exists() else make_model(path)


def name_of_file(path: Path) -> str:
    """Return a name for a model by its file, or as Ollama calls it."""
    return name_of_blob(str(path)) or file_name(path.name)


def _as_written(model: Path, directory: Path) -> str:
    """Return the path as the file should have it: relative if it is below the file."""
    whole, base = os.path.abspath(model), os.path.abspath(directory)
    relative = os.path.relpath(whole, base)
    return whole if relative.startswith("..") else relative
