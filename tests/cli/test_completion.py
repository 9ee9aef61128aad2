"""Completion asks the program what may come next; tried in real shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.cli.parsing.options import declared
from poorwill.cli.parsing.verbs import VERBS, every_verb
from poorwill.cli.parsing.words import FILES, offered
from poorwill.cli.setup.completion import script


def words(line: str) -> set[str]:
    """Return what may come at the end of a line."""
    return {word for word, _ in offered(line.split(" "), {})}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A `poorwill` to type, in a directory of its own."""
    path = tmp_path / "bin" / "poorwill"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m poorwill "$@"\n')
    path.chmod(0o755)
    return path


def in_bash(program: Path, line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    typed = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in typed)
    text = f"{script('bash')}\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(typed) - 1}\n_poorwill\n"
    text += 'printf "%s\\n" "${COMPREPLY[@]}"'
    env = {"PATH": f"{program.parent}:{os.defpath}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", text],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=env,
        cwd=program.parents[1],
    )
    assert done.stderr == ""
    return [word for word in done.stdout.split("\n") if word]


def test_verbs_are_offered() -> None:
    assert words("") >= {*VERBS, "--help", "--version"}
    assert words("ch") == {"check"}
    assert words("keys ") == {"add", "limit", "list", "revoke", "rotate", "forget", "--help"}


def test_options_of_a_verb_are_offered_once() -> None:
    assert words("check --s") == {"--schema"}
    assert words("check --schema --s") == set()
    assert words("keys add --l") == {"--ledger"}


def test_values_of_an_option_are_offered() -> None:
    assert words("park --tier f") == {"frozen"}
    assert words("serve --log-level w") == {"warning"}
    assert words("serve --port ") == set()
    assert words("serve --fleet ") == {FILES}


def test_models_of_the_fleet_are_offered(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("[models.bird]\n[models.fish]\n")
    assert words(f"wake --fleet {tmp_path} b") == {"bird"}
    assert words("wake --fleet /nowhere b") == set()


async def test_keys_and_months_are_offered(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[models.bird]\nengine = "toy"\n')
    await poorwill("keys", "add", "ann", "--fleet", str(tmp_path))
    assert words(f"keys revoke --fleet {tmp_path} a") == {"ann"}
    assert words(f"bill --fleet {tmp_path} --period ") == set()  # nothing happened yet


@pytest.mark.parametrize(
    ("path", "verb"), [*every_verb()], ids=lambda one: "-".join(one) if isinstance(one, tuple) else ""
)
def test_every_option_is_offered(path, verb) -> None:
    for option in declared(verb.options):
        if option.flag:
            assert option.flag in words(f"{' '.join(path)} {option.flag}")


def test_bash_completes(program: Path) -> None:
    (program.parents[1] / "my-fleet.toml").touch()
    assert in_bash(program, "poorwill ch") == ["check"]
    assert in_bash(program, "poorwill check --s") == ["--schema"]
    assert in_bash(program, "poorwill check my") == ["my-fleet.toml"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_the_script(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n"], input=script(shell), text=True, check=True, timeout=20)


async def test_an_unknown_shell_is_refused(poorwill: Poorwill) -> None:
    ran = await poorwill("completion", "csh")
    assert ran.status == 2
    assert "bash" in ran.err
