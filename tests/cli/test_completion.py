"""The completion is tried in a real bash."""

import shutil
import subprocess

import pytest
from tests.conftest import Poorwill

from poorwill.cli.completion import SCRIPTS
from poorwill.cli.parsing.command_tree import command_tree
from poorwill.cli.parsing.verbs import VERBS


def complete(script: str, line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    program = f"{script}\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\n_poorwill\n"
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stderr == ""
    return [offered for offered in done.stdout.split("\n") if offered]


@pytest.fixture(scope="module")
def bash() -> str:
    return SCRIPTS["bash"](command_tree())


def test_bash_offers_the_verbs(bash: str) -> None:
    assert set(complete(bash, "poorwill ")) >= {*VERBS, "--help", "--version"}
    assert complete(bash, "poorwill ch") == ["check"]


def test_bash_offers_a_verbs_options_and_files(
    bash: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    with open("my-fleet.toml", "w"):
        pass
    assert complete(bash, "poorwill check --s") == ["--schema"]
    assert complete(bash, "poorwill check my") == ["my-fleet.toml"]


def test_bash_offers_the_words_an_option_or_argument_takes(bash: str) -> None:
    assert complete(bash, "poorwill completion ") == ["bash", "zsh", "fish", "--help"]
    assert complete(bash, "poorwill park --tier f") == ["frozen"]
    assert complete(bash, "poorwill serve --log-level w") == ["warning"]
    assert complete(bash, "poorwill serve --port ") == []


def test_every_command_and_option_is_in_every_script() -> None:
    tree = command_tree()
    for shell, make in SCRIPTS.items():
        script = make(tree)
        for command in tree.walk():
            for word in command.path:
                assert word in script, (shell, word)
            for option in command.options:
                name = option.names[0].removeprefix("--") if shell == "fish" else option.names[0]
                assert name in script, (shell, command.path, option.names)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_the_script(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = SCRIPTS[shell](command_tree())
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=20)


async def test_an_unknown_shell_is_refused_with_the_ones_there_are(poorwill: Poorwill) -> None:
    ran = await poorwill("completion", "csh")
    assert ran.status == 2
    assert "bash" in ran.err
