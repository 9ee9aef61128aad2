"""What `--from` names: a file, a directory, a word or a command line; and who reads it."""

import os
import shlex
from collections.abc import Iterable, Mapping

import yaml

from poorwill.config.moving.carried import Carried, Left, refuse
from poorwill.config.moving.command_lines import carry_line, left_of_script, lines_of_script
from poorwill.config.moving.litellm import carry_litellm
from poorwill.config.moving.llama_swap import carry_llama_swap
from poorwill.config.moving.ollama import carry_ollama, ollama_home
from poorwill.hosts.files.opening import read_whole

_MOST = 4 * 2**20
_NEITHER = "is neither llama-swap's nor LiteLLM's, and starts no engine"
_HINT = "a llama-swap or LiteLLM YAML, ollama or its models' directory, or a line of vllm serve or docker run"


def carry(source: str, env: Mapping[str, str], *, name: str = "") -> Carried:
    """Return the fleet that a source configures. `name` is for a command line that names no model.

    Raises OperatorFault if it cannot be read or holds nothing that poorwill could serve.
    """
    if source == "ollama":
        return carry_ollama(ollama_home(env))
    if os.path.isdir(source):
        return carry_ollama(source)
    if os.path.exists(source):
        return _carry_file(source, env, name)
    try:
        words = shlex.split(source.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise refuse(f"cannot read {source!r}: {error}", "look at its quotes") from error
    if len(words) > 1:
        return _carry_lines([words], env, name)
    raise refuse(f"no such file: {source}", _HINT)


def _carry_lines(
    lines: list[list[str]], env: Mapping[str, str], name: str, left: Iterable[Left] = ()
) -> Carried:
    found = [carry_line(words, env, name=name) for words in lines]
    models = {model.name: model for model, _ in found}
    port = next((port for _, port in found if port), 0) if len(found) == 1 else 0
    return Carried(source="a command line", models=tuple(models.values()), left=tuple(left), port=port)


def _carry_file(path: str, env: Mapping[str, str], name: str) -> Carried:
    try:
        text = read_whole(path, most_bytes=_MOST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise refuse(f"cannot read {path}: {why}", _HINT) from error
    document, fault = _yaml(text)
    if isinstance(document, dict) and "model_list" in document:
        return carry_litellm(document, env)
    if isinstance(document, dict) and "models" in document:
        return carry_llama_swap(document, env)
    if lines := list(lines_of_script(text)):
        return _carry_lines(lines, env, name, left_of_script(text))
    raise refuse(f"{path} {fault or _NEITHER}", _HINT)


def _yaml(text: str) -> tuple[object, str]:
    """Return the document, or what is wrong with it."""
    try:
        return yaml.safe_load(text), ""
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        return None, f"is no YAML: {line}{error.problem}"
    except yaml.YAMLError as error:
        return None, f"is no YAML: {error}"
    except RecursionError:
        return None, "is nested too deeply"
