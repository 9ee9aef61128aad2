"""Options as frozen dataclasses: the annotation of a field says how it is written on the command line.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ParkOptions:
        model: Annotated[str, Option("the model to park", argument=True)]
        tier: Annotated[Tier | None, Option("how deep")] = None

`parse` turns words into one of these; nothing beyond it sees argparse. A field without a default is required.
A field whose type is such a dataclass adds that one's options; a `Group` gives them a heading in the help.
Cyclopts does the same and was tried: its import alone costs 60 ms of CPU, argparse 7 ms.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Annotated, Literal, NoReturn, TypeVar, get_args, get_origin

from poorwill.cli.parsing.streams import Streams
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import meant

T = TypeVar("T")


class Values(StrEnum):
    """What a shell offers to complete a value with."""

    NOTHING = "nothing"
    FILES = "files"
    MODELS = "models"
    KEYS = "keys"
    PERIODS = "periods"


@dataclass(frozen=True, slots=True)
class Option:
    """One option, or one argument, of a verb."""

    help: str
    _: KW_ONLY
    metavar: str = ""
    short: str = ""
    """A letter that means the same: `-f`."""
    flag: str = ""
    """How it is written; `--name-of-the-field` if empty."""
    argument: bool = False
    """It is written without a flag."""
    either: bool = False
    """It is written with or without its flag."""
    read: Callable[[str], object] | None = None
    """Reads the value, or raises ValueError with what is wrong; by default the field's type does."""
    choices: Sequence[str] = ()
    nargs: int | str | None = None
    repeats: bool = False
    """It may be given several times; the field is a tuple."""
    values: Values = Values.NOTHING


@dataclass(frozen=True, slots=True)
class Group:
    """The heading over a nested dataclass of options."""

    title: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """An option with what its field's name and type add."""

    name: str
    """Of the field; dotted in a nested dataclass."""
    option: Option
    kind: type
    choices: Sequence[str]
    """The only words it takes; empty if there are others."""
    required: bool
    group: Group | None

    @property
    def flag(self) -> str:
        """Return how the option is written; empty if it is an argument only."""
        if self.option.argument:
            return ""
        return self.option.flag or "--" + self.name.rpartition(".")[2].replace("_", "-")

    @property
    def takes_value(self) -> bool:
        """Return whether a word follows the flag."""
        return self.kind is not bool


def declared(options: type[object], *, within: str = "", group: Group | None = None) -> Iterator[Declared]:
    """Return the options that a dataclass declares, in order."""
    for field in _fields(options):
        annotation, spec = _annotated(field)
        name = within + field.name
        if is_dataclass(annotation):
            assert isinstance(annotation, type)
            inner = spec if isinstance(spec, Group) else group
            yield from declared(annotation, within=f"{name}.", group=inner)
            continue
        assert isinstance(spec, Option), f"{options.__name__}.{field.name} says nothing of itself"
        required = field.default is MISSING and field.default_factory is MISSING
        kind, words = _kind(annotation)
        yield Declared(
            name=name, option=spec, kind=kind, choices=spec.choices or words, required=required, group=group
        )


def _fields(options: object) -> tuple["Field[object]", ...]:
    assert is_dataclass(options), options
    return fields(options)


def _annotated(field: "Field[object]") -> tuple[object, object]:
    annotation = field.type
    if get_origin(annotation) is not Annotated:
        return annotation, None
    kind, spec, *_ = get_args(annotation)
    return kind, spec


def _kind(annotation: object) -> tuple[type, Sequence[str]]:
    """Return the type of one value (of `int | None` and `tuple[int, ...]`: int) and the words it may be."""
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    inner = [part for part in get_args(annotation) if part not in (type(None), Ellipsis)]
    if inner:
        return _kind(inner[0])
    assert isinstance(annotation, type), annotation
    return annotation, [str(word) for word in annotation] if issubclass(annotation, StrEnum) else ()


class Done(Exception):
    """Help was printed, and nothing else is to be done. Carries the exit status."""

    def __init__(self, status: int) -> None:
        self.status = status


class Parser(argparse.ArgumentParser):
    """argparse writing to the given streams and raising, instead of ending the process."""

    streams: Streams
    flags: Sequence[str] = ()

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise Done."""
        raise Done(status)

    def error(self, message: str) -> NoReturn:
        """Raise RequestFault for a mistake in the options."""
        hint = f"{self.prog} --help lists every option"
        word = message.removeprefix("unrecognized arguments: ").split(" ")[0].split("=")[0]
        if word == "--url":
            hint = "it works on files and programs of its own machine: run it where the fleet is served"
        raise RequestFault(ErrorCode.INVALID_REQUEST, message + meant(word, self.flags), hint=hint)

    def print_help(self, file: object = None) -> None:
        """Print the help as a result."""
        self.streams.stdout.write(self.format_help())


def parse(options: type[T], words: Sequence[str], parser: Parser) -> T:
    """Return the options that the words say. Raises RequestFault for a mistake, Done after help."""
    groups: dict[str, argparse._ActionsContainer] = {}
    known = list(declared(options))
    parser.flags = [one.flag for one in known if one.flag]
    for one in known:
        where: argparse._ActionsContainer = parser
        if one.group is not None:
            title = one.group.title
            where = groups.get(title) or parser.add_argument_group(title, one.group.text or None)
            groups[title] = where
        _add(where, one)
    # Options may stand between arguments; after `--` nothing is one, which only the plain parser heeds.
    find = parser.parse_args if "--" in words else parser.parse_intermixed_args
    found = vars(find(list(words)))
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if value is not argparse.SUPPRESS
    }
    for one in known:
        if one.required and one.name not in given:
            parser.error(f"{one.option.metavar or one.flag or one.name.upper()} is missing")
    return _built(options, given, "")


def _built(options: Callable[..., T], given: dict[str, object], within: str) -> T:
    values: dict[str, object] = {}
    for field in _fields(options):
        annotation, _ = _annotated(field)
        name = within + field.name
        if is_dataclass(annotation):
            assert isinstance(annotation, type)
            values[field.name] = _built(annotation, given, f"{name}.")
        elif name in given:
            values[field.name] = given[name]
    return options(**values)


def _add(where: argparse._ActionsContainer, one: Declared) -> None:
    option = one.option
    if not one.takes_value:
        flags = [one.flag, option.short] if option.short else [one.flag]
        where.add_argument(
            *flags, dest=one.name, action="store_true", default=argparse.SUPPRESS, help=option.help
        )
        return
    names, named = [one.flag] if one.flag else [], one.name.rpartition(".")[2].upper()
    named = "N" if one.kind is int else named.removesuffix("S") if option.repeats else named
    for flags in [[]] if not names else [names, []] if option.either else [names]:
        placed = "?" if not flags and not one.required and option.nargs is None else option.nargs
        action = where.add_argument(
            *(flags or [one.name]),
            action=_Repeats if option.repeats else _Once,
            default=argparse.SUPPRESS,
            type=_reader(one),
            choices=one.choices or None,
            nargs=placed,
            metavar=option.metavar or (None if one.choices else named),
            help=option.help,
        )
        action.dest = one.name


def _reader(one: Declared) -> Callable[[str], object]:
    read = one.option.read or one.kind

    def reads(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            why = str(error) if one.option.read else f"{text!r} is not a number"
            if one.choices:
                return text  # argparse says what there is to choose from
            raise argparse.ArgumentTypeError(why) from None

    return reads


class _Once(argparse.Action):
    """Keeps one value; one that was written both with and without its flag must be the same."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, values)
        places = [action for action in parser._actions if action.dest == self.dest]
        if before != values and len(places) > 1 and values is not argparse.SUPPRESS:
            parser.error(f"two {self.dest.rpartition('.')[2]}s are named, {before} and {values}")
        setattr(namespace, self.dest, values)


class _Repeats(argparse.Action):
    """Collects the values of every time the option is given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        more = values if isinstance(values, list) else [values]
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, ()), *more])
