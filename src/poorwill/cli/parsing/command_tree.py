"""The whole command line as a tree of plain data, read off the verb table and each verb's own options."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from poorwill.cli.parsing.verbs import VERBS, load_verb


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a command."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...] = ()
    number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A verb, or a word below a verb (`keys add`)."""

    path: tuple[str, ...]
    help: str = ""
    options: tuple[Option, ...] = ()
    words: tuple[str, ...] = ()
    """What its arguments may be, where they are words out of a list."""
    below: tuple["Command", ...] = ()

    @property
    def takes_files(self) -> bool:
        """Return whether an argument may be a file's name, as far as its declaration tells."""
        return bool(self.path) and not self.words and not self.below

    def walk(self) -> Iterator["Command"]:
        """Return this command and all below it."""
        yield self
        for command in self.below:
            yield from command.walk()


def command_tree() -> Command:
    """Return the command `poorwill` with all verbs below it. Imports every verb's module."""
    verbs = []
    for name in VERBS:
        verb = load_verb(name)
        parser = argparse.ArgumentParser(prog=name)
        verb.options(parser)
        verbs.append(_command((name,), verb.help, parser))
    top = (
        Option(names=("--help", "-h"), help="list the verbs", takes_value=False),
        Option(names=("--version", "-V"), help="print the version", takes_value=False),
    )
    return Command(path=(), options=top, below=tuple(verbs))


def _command(path: tuple[str, ...], help_text: str, parser: argparse.ArgumentParser) -> Command:
    options: list[Option] = []
    words: list[str] = []
    below: list[Command] = []
    # argparse has no public way to list a parser's arguments; these names have been stable since 2.7.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            below += [
                _command((*path, name), helps.get(name, ""), inner) for name, inner in action.choices.items()
            ]
        elif action.option_strings:
            options.append(_option(action))
        elif action.choices:
            words += [str(choice) for choice in action.choices]
    return Command(
        path=path,
        help=help_text,
        options=tuple(options),
        words=tuple(words),
        below=tuple(below),
    )


def _option(action: argparse.Action) -> Option:
    return Option(
        # The long name first.
        names=tuple(sorted(action.option_strings, key=len, reverse=True)),
        help=(action.help or "").replace("%%", "%"),
        takes_value=action.nargs != 0,
        choices=tuple(str(choice) for choice in action.choices or ()),
        number=action.type in (int, float),
    )
