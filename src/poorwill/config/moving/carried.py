"""What was read of another server's configuration, and its text as a `fleet.toml`."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from msgspec import Struct

from poorwill.config.values.scalars import MODEL_NAME
from poorwill.core.errors import ErrorCode, OperatorFault

_LINE = 108


class Left(Struct, frozen=True):
    """Something that was not carried over as it was: where it stood, and what there is instead."""

    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedModel:
    """One model: its name, its keys as `fleet.toml` has them, and where it comes from."""

    name: str
    keys: Mapping[str, object]
    origin: str
    left: tuple[Left, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A whole configuration."""

    source: str
    """What it was; empty: the model is a new one."""
    models: tuple[CarriedModel, ...]
    left: tuple[Left, ...] = ()
    fleet: Mapping[str, object] = field(default_factory=dict)
    port: int = 0
    """Where clients asked until now; 0 if that is not known."""

    @property
    def everything_left(self) -> tuple[Left, ...]:
        """What was not carried over, of all models."""
        of_models = (Left(f"{one.name}: {left.where}", left.what) for one in self.models for left in one.left)
        return (*self.left, *of_models)


def carried_model(
    called: str, *, keys: Mapping[str, object], origin: str, left: Iterable[Left] = ()
) -> CarriedModel:
    """Return a model by what clients called it, and list that name if it may not be one here."""
    name = model_name(called)
    renamed = [Left("name", f"clients write {name}: {called!r} is no name here")] if name != called else []
    return CarriedModel(name=name, keys=keys, origin=origin, left=(*renamed, *left))


def refuse(what: str, hint: str) -> OperatorFault:
    """Return the fault of a source that cannot be read."""
    return OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=hint)


def table_of(value: object) -> dict[str, object]:
    """Return a table of a parsed file, empty if it is none."""
    return {str(key): one for key, one in value.items()} if isinstance(value, Mapping) else {}


def list_of(value: object) -> list[object]:
    """Return a list of a parsed file, empty if it is none."""
    return list(value) if isinstance(value, list) else []


def model_name(text: str) -> str:
    """Return a text as a name for a model: as it is, if it may be one."""
    if re.fullmatch(MODEL_NAME, text) and not {"", ".", ".."} & set(text.split("/")):
        return text
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:128] or "model"


def file_name(path: str) -> str:
    """Return a name for a model by its file: without directory, suffix and the number of its part."""
    stem = re.sub(r"\.gguf$", "", path.rstrip("/").rpartition("/")[2])
    return model_name(re.sub(r"-\d{5}-of-\d{5}$", "", stem))


def toml(value: object) -> str:
    """Return a value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case Mapping():
            inner = ", ".join(f"{_key(str(name))} = {toml(one)}" for name, one in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            whole = f"[{', '.join(map(toml, value))}]"
            return whole if len(whole) < _LINE or not value else _by_flags([str(one) for one in value])
        case _:
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml(name)


def _by_flags(words: Sequence[str]) -> str:
    """Return a long command with each flag on a line of its own, its value beside it."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-") and lines[-1]:
            lines.append([])
        lines[-1].append(toml(word))
    return "".join(["[\n", *(f"  {', '.join(line)},\n" for line in lines), "]"])


def model_table(name: str, keys: Mapping[str, object], comments: Iterable[str]) -> str:
    """Return the table of a model, with comments above it."""
    head = [f"# {' '.join(comment.split())}" for comment in comments]
    return "\n".join([*head, f"[models.{toml(name)}]", *(f"{key} = {toml(it)}" for key, it in keys.items())])


def fleet_text(carried: Carried) -> str:
    """Return the file: the example's comments with the models that were carried over."""
    example = files("poorwill.config").joinpath("example.toml").read_text(encoding="utf-8")
    head, _, rest = example.partition("# The embedded engine")
    tail = rest[rest.index("# What a replica's time costs") :]
    if carried.port:
        head = head.replace('"127.0.0.1:8080" ', f'"127.0.0.1:{carried.port}" ')
    fleet = "".join(f"{key} = {toml(value)}\n" for key, value in carried.fleet.items())
    head = head.replace("[fleet]\n", f"[fleet]\n{fleet}")
    left = carried.everything_left
    notes = [f"# Written from {carried.source} by poorwill init --from."] if carried.source else []
    notes += ["# Not carried over, or not as it was:"] if left else []
    notes += [f"#   {' '.join(f'{one.where}: {one.what}'.split())}" for one in left]
    tables = [model_table(one.name, one.keys, [one.origin]) for one in carried.models]
    tail = tail.replace("@NAME@", carried.models[0].name)
    notes += [""] if notes else []
    return "\n".join([*notes, head, *(f"{table}\n" for table in tables), tail])
