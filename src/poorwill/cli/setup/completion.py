"""`poorwill completion SHELL`: a script that completes command lines by asking the program itself.

The shell asks `poorwill completion words -- WORD...` at each TAB; so what it offers is what there is: verbs
and options of this version, models of this fleet, keys and months of its ledger.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import NoOptions, new_verb, verb_family
from poorwill.cli.parsing.words import offered

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """Return the completion script for a shell."""
    return files("poorwill.cli.setup").joinpath("scripts", f"poorwill.{shell}").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsOptions:
    """What `poorwill completion words` is told: the command line so far, after `--`."""

    words: Annotated[
        tuple[str, ...], Option("the words so far; the last may be empty", argument=True, nargs="*")
    ] = ()


async def _words(options: WordsOptions, streams: Streams) -> int:
    streams.say(*(f"{word}\t{text}".rstrip() for word, text in offered(options.words, streams.env)))
    return 0


def _prints(shell: str) -> Callable[[NoOptions, Streams], Awaitable[int]]:
    async def run(_: NoOptions, streams: Streams) -> int:
        streams.stdout.write(script(shell))
        return 0

    return run


VERB = verb_family(
    {
        **{shell: (f"print the script for {shell}", new_verb(NoOptions, _prints(shell))) for shell in SHELLS},
        "words": ("print what may come next; the scripts ask this", new_verb(WordsOptions, _words)),
    },
    epilog="""\
to use it:
  bash   source <(poorwill completion bash)       in ~/.bashrc
  zsh    source <(poorwill completion zsh)        in ~/.zshrc, after compinit
  fish   poorwill completion fish > ~/.config/fish/completions/poorwill.fish""",
)
