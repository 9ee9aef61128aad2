"""What a verb of the command line is."""

import argparse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from poorwill.cli.parsing.options import Parser, parse
from poorwill.cli.parsing.streams import Streams
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import table

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a verb that is nothing without a word below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: its options and what it does. Made by `new_verb` and `verb_family`."""

    run: Callable[[Sequence[str], str, str, Streams], Awaitable[int]]
    """Parses words under a name such as `poorwill keys add`, described by a clause, and does what they say.

    Returns the exit status."""
    options: type[object] = NoOptions
    epilog: str = ""
    prints: Sequence[type[object]] = ()
    """The documents of `--json`; docs/json.md has them."""
    below: Mapping[str, tuple[str, "Verb"]] = field(default_factory=dict)
    """The words that complete it, each with a clause for the help."""


def new_verb(
    options: type[T],
    do: Callable[[T, Streams], Awaitable[int]],
    *prints: type[object],
    epilog: str = "",
    usage: str = "",
) -> Verb:
    """Return a verb that parses its words into `options` and does something with them.

    `prints` are the documents of `--json`; `usage` says what follows its name, if all options are too many.
    """

    async def run(words: Sequence[str], name: str, about: str, streams: Streams) -> int:
        parser = Parser(
            prog=name,
            usage=f"{name} {usage}" if usage else None,
            description=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.streams = streams
        return await do(parse(options, words, parser), streams)

    return Verb(run=run, options=options, epilog=epilog, prints=prints)


def verb_family(below: Mapping[str, tuple[str, Verb]], *, epilog: str = "") -> Verb:
    """Return a verb that another word completes, such as `keys add`."""

    async def run(words: Sequence[str], name: str, about: str, streams: Streams) -> int:
        word = words[0] if words else ""
        if word in below:
            text, verb = below[word]
            return await verb.run(words[1:], f"{name} {word}", text, streams)
        if word in ("-h", "--help"):
            streams.say(f"usage: {name} {{{','.join(below)}}} [OPTION...]", "", about, "")
            streams.say(*table([(word, text) for word, (text, _) in below.items()], indent="  "))
            streams.say(*(["", epilog] if epilog else []), "", f"{name} WORD --help explains each.")
            return 0
        what = f"{name} has no {word!r}" if word else f"{name} does what?"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=f"one of {', '.join(below)}")

    return Verb(run=run, epilog=epilog, below=below)
