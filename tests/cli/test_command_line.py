"""The command line as a whole: help, versions, mistakes, exit statuses."""

import argparse
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.cli.parsing.verb import EXIT_STATUS
from poorwill.cli.parsing.verbs import VERBS, load_verb
from poorwill.core.errors import ErrorCode


async def test_help_lists_every_verb_with_a_sentence(poorwill: Poorwill) -> None:
    ran = await poorwill("--help")
    assert (ran.status, ran.err) == (0, "")
    for name in VERBS:
        line = next(line for line in ran.out.splitlines() if line.startswith(f"  {name} "))
        assert len(line.removeprefix(f"  {name}").strip()) > 15, line


async def test_no_verb_at_all_prints_the_help_and_fails(poorwill: Poorwill) -> None:
    ran = await poorwill()
    assert ran.status == 2
    assert "usage: poorwill VERB" in ran.out


async def test_the_version_is_printed(poorwill: Poorwill) -> None:
    assert (await poorwill("--version")).out.startswith("poorwill 0.")


async def test_a_mistyped_verb_gets_the_nearest_one(poorwill: Poorwill) -> None:
    ran = await poorwill("chek")
    assert (ran.status, ran.out) == (2, "")
    assert "did you mean 'check'?" in ran.err


async def test_an_option_may_stand_between_the_words_of_a_verb(poorwill: Poorwill, tmp_path: Path) -> None:
    file = tmp_path / "poorwill"
    file.touch()
    rest = ("--file", str(file), "--dry-run")
    ran = await poorwill("deploy", "push", "--user", "box", *rest)
    assert ran.status == 0
    assert ran == await poorwill("deploy", "push", "box", "--user", *rest)


async def test_an_unknown_option_fails_and_points_to_the_help(poorwill: Poorwill) -> None:
    ran = await poorwill("check", "--nonsense")
    assert (ran.status, ran.out) == (2, "")
    assert "poorwill check --help" in ran.err and len(ran.err.splitlines()) == 2
    assert "--nonsense" in ran.err


@pytest.mark.parametrize("name", list(VERBS))
async def test_the_help_of_every_verb_is_worth_reading(poorwill: Poorwill, name: str) -> None:
    ran = await poorwill(name, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: poorwill {name}")
    verb = load_verb(name)
    assert verb.name == name
    assert verb.help[0].islower() and not verb.help.endswith("."), "a clause, as in a list"
    assert verb.epilog, "an example, or what the exit status means"
    parser = argparse.ArgumentParser(prog=name)
    verb.options(parser)
    for action in parser._actions:
        assert action.help, f"{name} {action.dest} says nothing of itself"


NOT_REPORTING = {"serve", "completion"}
"""What these print is no report: one runs until it is stopped, the other prints a script."""


@pytest.mark.parametrize("name", sorted(set(VERBS) - NOT_REPORTING))
def test_every_verb_that_reports_takes_json(name: str) -> None:
    parser = argparse.ArgumentParser(prog=name)
    load_verb(name).options(parser)
    assert "--json" in {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("line", [["status"], ["wake", "a"], ["park", "a"]])
async def test_asking_a_fleet_that_nobody_serves_says_how_to_serve_it(
    poorwill: Poorwill, tmp_path: Path, line: list[str]
) -> None:
    (tmp_path / "fleet.toml").write_text('[models.a]\nengine = "toy"\n')
    ran = await poorwill(*line, "--fleet", str(tmp_path))
    assert (ran.status, ran.out) == (EXIT_STATUS[ErrorCode.NOT_RUNNING], "")
    assert "poorwill serve" in ran.err


def test_serving_on_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "fleet.toml").write_text(
            f'[models.a]\nengine = "toy"\n[gateway]\nlisten = "127.0.0.1:{port}"\nadmin = "127.0.0.1:0"\n'
        )
        ran = subprocess.run(
            [sys.executable, "-m", "poorwill", "serve", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ran.returncode == EXIT_STATUS[ErrorCode.IN_USE]
    assert f"poorwill: cannot listen on 127.0.0.1:{port}" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_error_code_has_an_exit_status() -> None:
    assert set(EXIT_STATUS) == set(ErrorCode)
    assert all(0 < status < 256 for status in EXIT_STATUS.values())


def _program(*words: str, shell: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a shell that ends its command line with `shell`, buffered as usual."""
    command = f'"{sys.executable}" -m poorwill {" ".join(words)} {shell}'
    clean = {"PATH": os.defpath}
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env=clean, timeout=60)


def test_a_reader_that_leaves_early_is_no_error_worth_words() -> None:
    ran = _program("--version", shell="| true")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("--version",), ("check", "--manual")])
def test_output_that_cannot_be_written_is_an_error_in_one_line(words: tuple[str, ...]) -> None:
    ran = _program(*words, shell=">/dev/full")
    assert ran.returncode == EXIT_STATUS[ErrorCode.INTERNAL]
    assert ran.stderr == "poorwill: cannot write: No space left on device\n"


async def test_what_the_machine_refuses_is_told_without_a_traceback(
    poorwill: Poorwill, tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text('[models.x]\nengine = "toy"\n')
    lock = tmp_path / "poorwill.lock"
    lock.symlink_to(lock)
    ran = await poorwill("status", str(tmp_path))
    assert ran.status == EXIT_STATUS[ErrorCode.INTERNAL]
    assert ran.err == f"poorwill: {lock}: Too many levels of symbolic links\n"


def test_closed_standard_streams_do_no_harm(tmp_path: Path) -> None:
    assert _program("--version", shell="<&- >&- 2>&-").returncode == 0
    assert _program("check", str(tmp_path), shell="<&- >&- 2>&-").returncode == 2


def test_without_home_the_users_own_directory_is_looked_up() -> None:
    said = 'import poorwill.__main__ as edge; print(edge._environment()["HOME"])'
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, env={}, timeout=60)
    assert ran.stdout.strip() == pwd.getpwuid(os.getuid()).pw_dir
