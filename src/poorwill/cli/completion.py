"""`poorwill completion SHELL`: a completion script, made from the verbs and their options as they are."""

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from poorwill.cli.parsing.command_tree import Command, Option, command_tree
from poorwill.cli.parsing.verb import Streams, Verb

_BASH = """\
# bash completion for poorwill; made by: poorwill completion bash
_poorwill() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at= word words= files= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case "$at/$word" in
@PATHS@) at+=/$word ;;
        esac
    done
    COMPREPLY=()
    case "$at $prev" in
@VALUES@
    esac
    case "$at" in
@WORDS@
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    [[ $files && $cur != -* ]] && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
    return 0
}
complete -o filenames -F _poorwill poorwill
"""


def bash_script(tree: Command) -> str:
    """Return the script for bash: `source <(poorwill completion bash)`."""
    commands = list(tree.walk())
    paths = " | ".join("/" + "/".join(command.path) for command in commands if command.path)
    values, words = [], []
    for command in commands:
        at = "".join(f"/{word}" for word in command.path)
        for option in command.options:
            if option.takes_value:
                cases = " | ".join(f'"{at} {name}"' for name in option.names)
                given = f'-W "{" ".join(option.choices)}"'
                if not option.choices and not option.number:
                    given = "-f"
                values.append(
                    f'        {cases}) mapfile -t COMPREPLY < <(compgen {given} -- "$cur"); return ;;'
                )
        files = " files=yes" if command.takes_files else ""
        words.append(f'        "{at}") words="{" ".join(_words(command))}"{files} ;;')
    return (
        _BASH.replace("@PATHS@", "            " + paths)
        .replace("@VALUES@", "\n".join(values) or "        *) ;;")
        .replace("@WORDS@", "\n".join(words))
    )


def _words(command: Command) -> Sequence[str]:
    names = [option.names[0] for option in command.options]
    return [*(below.path[-1] for below in command.below), *command.words, *names]


_ZSH = """\
#compdef poorwill
# zsh completion for poorwill; made by: poorwill completion zsh
_poorwill() {
    local at= word files= prev=${words[CURRENT-1]} i
    local -a known
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        case "$at/$word" in
@PATHS@) at+=/$word ;;
        esac
    done
    case "$at $prev" in
@VALUES@
    esac
    case "$at" in
@WORDS@
    esac
    _describe -t commands poorwill known
    [[ -n $files && ${words[CURRENT]} != -* ]] && _files
    return 0
}
if [[ $funcstack[1] == _poorwill ]]; then _poorwill "$@"; else compdef _poorwill poorwill; fi
"""


def zsh_script(tree: Command) -> str:
    """Return the script for zsh: `source <(poorwill completion zsh)`, or a file `_poorwill` in $fpath."""
    commands = list(tree.walk())
    paths = " | ".join("/" + "/".join(command.path) for command in commands if command.path)
    values, words = [], []
    for command in commands:
        at = "".join(f"/{word}" for word in command.path)
        for option in command.options:
            if option.takes_value:
                cases = " | ".join(f'"{at} {name}"' for name in option.names)
                given = f"compadd -- {' '.join(option.choices)}"
                if not option.choices and not option.number:
                    given = "_files"
                values.append(f"        {cases}) {given}; return ;;")
        known = " ".join(shlex.quote(f"{word}:{text}") for word, text in _described(command))
        files = " files=yes" if command.takes_files else ""
        words.append(f'        "{at}") known=({known}){files} ;;')
    return (
        _ZSH.replace("@PATHS@", "            " + paths)
        .replace("@VALUES@", "\n".join(values) or "        *) ;;")
        .replace("@WORDS@", "\n".join(words))
    )


def _described(command: Command) -> Sequence[tuple[str, str]]:
    below = [(one.path[-1], one.help) for one in command.below]
    options = [(one.names[0], one.help) for one in command.options]
    return [*below, *((word, "") for word in command.words), *options]


def fish_script(tree: Command) -> str:
    """Return the script for fish: a file `poorwill.fish` in its completions directory."""
    lines = ["# fish completion for poorwill; made by: poorwill completion fish"]
    for command in tree.walk():
        here = _fish_condition(command)
        lines += [
            f"complete -c poorwill -n {here} -f -a {below.path[-1]} -d {_q(below.help)}"
            for below in command.below
        ]
        if command.words:
            lines.append(f"complete -c poorwill -n {here} -f -a {_q(' '.join(command.words))}")
        lines += [f"complete -c poorwill -n {here} {_fish_option(one)}" for one in command.options]
    return "\n".join(lines) + "\n"


def _fish_condition(command: Command) -> str:
    if not command.path:
        return "__fish_use_subcommand"
    seen = [f"__fish_seen_subcommand_from {word}" for word in command.path]
    below = " ".join(one.path[-1] for one in command.below)
    return _q("; and ".join([*seen, *([f"not __fish_seen_subcommand_from {below}"] if below else [])]))


def _fish_option(option: Option) -> str:
    flags = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.choices or option.number:
        flags.append(f"-x -a {_q(' '.join(option.choices))}")
    elif option.takes_value:
        flags.append("-r")
    return " ".join([*flags, f"-d {_q(option.help)}"])


def _q(text: str) -> str:
    return "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"


SCRIPTS: Mapping[str, Callable[[Command], str]] = MappingProxyType(
    {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=list(SCRIPTS), help="which shell's script to print")


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    streams.stdout.write(SCRIPTS[options.shell](command_tree()))
    return 0


VERB = Verb(
    name="completion",
    help="print a completion script for bash, zsh or fish",
    options=_options,
    run=_run,
    epilog="""\
to use it:
  bash   source <(poorwill completion bash)       in ~/.bashrc
  zsh    source <(poorwill completion zsh)        in ~/.zshrc, after compinit
  fish   poorwill completion fish > ~/.config/fish/completions/poorwill.fish""",
)
