"""`poorwill completion SHELL`: a script that completes command lines by asking the program itself.

The shell asks `poorwill completion words -- WORD...` at each TAB; so what it offers is what there is: verbs
and options of this version, models of this fleet, keys and months of its ledger.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import NoOptions, new_verb, verb_family
from poorwill.cli.parsing.words import FILES, offered

SCRIPTS: Mapping[str, str] = MappingProxyType(
    {
        "bash": f"""\
# bash completion for poorwill; made by: poorwill completion bash
_poorwill() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} word rest
    COMPREPLY=()
    while IFS=$'\\t' read -r word rest; do
        if [[ $word == {FILES} ]]; then
            mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -f -- "$cur")
        elif [[ $word != -* || $cur == -* ]]; then
            COMPREPLY+=("$word")
        fi
    done < <("${{COMP_WORDS[0]}}" completion words -- "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null)
    return 0
}}
complete -o filenames -F _poorwill poorwill
""",
        "zsh": f"""\
#compdef poorwill
# zsh completion for poorwill; made by: poorwill completion zsh
_poorwill() {{
    local word text files=
    local -a known
    while IFS=$'\\t' read -r word text; do
        if [[ $word == {FILES} ]]; then files=yes; else known+=("${{word//:/\\\\:}}:$text"); fi
    done < <("${{words[1]}}" completion words -- "${{(@)words[2,CURRENT]}}" 2>/dev/null)
    (( $#known )) && _describe -t words poorwill known
    [[ -n $files ]] && _files
    return 0
}}
if [[ $funcstack[1] == _poorwill ]]; then _poorwill "$@"; else compdef _poorwill poorwill; fi
""",
        "fish": f"""\
# fish completion for poorwill; made by: poorwill completion fish
function __poorwill_words
    set -l line (commandline -opc) (commandline -ct)
    for offered in ($line[1] completion words -- $line[2..] 2>/dev/null)
        if test "$offered" = "{FILES}"
            __fish_complete_path (commandline -ct)
        else
            echo $offered
        end
    end
end
complete -c poorwill -f -a '(__poorwill_words)'
""",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsOptions:
    """What `poorwill completion words` is told: the command line so far, after `--`."""

    words: Annotated[
        tuple[str, ...], Option("the words so far; the last may be empty", argument=True, nargs="*")
    ] = ()


async def _words(options: WordsOptions, streams: Streams) -> int:
    streams.say(*(f"{word}\t{text}".rstrip() for word, text in offered(options.words, streams.env)))
    return 0


def _prints(script: str) -> Callable[[NoOptions, Streams], Awaitable[int]]:
    async def run(_: NoOptions, streams: Streams) -> int:
        streams.stdout.write(script)
        return 0

    return run


VERB = verb_family(
    {
        **{
            shell: (f"print the script for {shell}", new_verb(NoOptions, _prints(script)))
            for shell, script in SCRIPTS.items()
        },
        "words": ("print what may come next; the scripts ask this", new_verb(WordsOptions, _words)),
    },
    epilog="""\
to use it:
  bash   source <(poorwill completion bash)       in ~/.bashrc
  zsh    source <(poorwill completion zsh)        in ~/.zshrc, after compinit
  fish   poorwill completion fish > ~/.config/fish/completions/poorwill.fish""",
)
