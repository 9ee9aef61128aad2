"""The command line as a whole: help, versions, mistakes, exit statuses."""

import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.cli.parsing.exit_status import EXIT_STATUS
from poorwill.cli.parsing.options import declared
from poorwill.cli.parsing.verb import Verb
from poorwill.cli.parsing.verbs import VERBS, every_verb
from poorwill.core.errors import ErrorCode


async def test_help_lists_every_verb(poorwill: Poorwill) -> None:
    ran = await poorwill("--help")
    assert (ran.status, ran.err) == (0, "")
    for name in VERBS:
        line = next(line for line in ran.out.splitlines() if line.startswith(f"  {name} "))
        assert len(line.removeprefix(f"  {name}").strip()) > 15, line


def test_the_help_of_dev_runs_nothing() -> None:
    shown = subprocess.run(
        [Path(__file__).parents[2] / "dev", "help"], capture_output=True, text=True, check=True
    )
    assert shown.stderr == "" and "put poorwill on your PATH" in shown.stdout


async def test_no_verb_prints_the_help_and_fails(poorwill: Poorwill) -> None:
    ran = await poorwill()
    assert ran.status == 2
    assert "usage: poorwill VERB" in ran.out


async def test_the_version_is_printed(poorwill: Poorwill) -> None:
    assert (await poorwill("--version")).out.startswith("poorwill 0.")


async def test_a_mistyped_verb_gets_the_nearest(poorwill: Poorwill) -> None:
    ran = await poorwill("chek")
    assert (ran.status, ran.out) == (2, "")
    assert "did you mean 'check'?" in ran.err
    assert "did you mean '--period'?" in (await poorwill("bill", "--perod", "today")).err
    assert "did you mean" not in (await poorwill("bill", "--whatever")).err


async def test_options_may_stand_between_words(poorwill: Poorwill, tmp_path: Path) -> None:
    file = tmp_path / "poorwill"
    file.touch()
    rest = ("--file", str(file), "--dry-run")
    ran = await poorwill("deploy", "push", "--user", "box", *rest)
    assert ran.status == 0
    assert ran == await poorwill("deploy", "push", "box", "--user", *rest)


async def test_an_unknown_option_points_to_the_help(poorwill: Poorwill) -> None:
    ran = await poorwill("check", "--nonsense")
    assert (ran.status, ran.out) == (2, "")
    assert "poorwill check --help" in ran.err and len(ran.err.splitlines()) == 2
    assert "--nonsense" in ran.err


@pytest.mark.parametrize(
    ("path", "verb"), [*every_verb()], ids=lambda one: "-".join(one) if isinstance(one, tuple) else ""
)
async def test_every_verb_explains_itself(poorwill: Poorwill, path: tuple[str, ...], verb: Verb) -> None:
    ran = await poorwill(*path, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: poorwill {' '.join(path)}")
    for option in declared(verb.options):
        assert option.option.help, f"{option.name} says nothing of itself"
        assert (option.flag or option.option.metavar or option.name.upper()) in ran.out
        assert "." not in option.name or option.name.upper() not in ran.out


def test_one_line_of_help_is_a_clause() -> None:
    for _, text in VERBS.values():
        assert text[0].islower() and not text.endswith("."), text


NOT_REPORTING = {"serve", "host", "completion", "top", "logs"}
"""What these print is no report: a script, an engine's own text, or what goes on until it is stopped."""


@pytest.mark.parametrize(
    ("path", "verb"), [*every_verb()], ids=lambda one: "-".join(one) if isinstance(one, tuple) else ""
)
def test_every_report_takes_json(path: tuple[str, ...], verb: Verb) -> None:
    if path[0] not in NOT_REPORTING and not verb.below:
        assert "--json" in {option.flag for option in declared(verb.options)}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["status", "--fleet", "/nowhere"], ErrorCode.CONFIG_INVALID),
        (["bill", "--focus", "--invoice", "ann"], ErrorCode.INVALID_REQUEST),
        (["bill", "--nonsense"], ErrorCode.INVALID_REQUEST),
        (["chek"], ErrorCode.INVALID_REQUEST),
    ],
)
async def test_a_failure_under_json_is_json(poorwill: Poorwill, line: list[str], code: ErrorCode) -> None:
    ran = await poorwill(*line, "--json")
    error = json.loads(ran.out)["error"]
    assert (error["code"], error["exit_status"], ran.err) == (code, ran.status, "")
    assert ran.status == EXIT_STATUS[code]


@pytest.mark.parametrize("line", [["status"], ["wake", "a"], ["park", "a"]])
async def test_a_fleet_that_nobody_serves(poorwill: Poorwill, tmp_path: Path, line: list[str]) -> None:
    (tmp_path / "fleet.toml").write_text('[models.a]\nengine = "toy"\n')
    ran = await poorwill(*line, "--fleet", str(tmp_path))
    assert (ran.status, ran.out) == (EXIT_STATUS[ErrorCode.NOT_RUNNING], "")
    assert "poorwill serve" in ran.err


def test_a_port_that_is_taken(tmp_path: Path) -> None:
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


def test_a_reader_may_leave_early() -> None:
    ran = _program("--version", shell="| true")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("--version",), ("check", "--manual")])
def test_output_that_cannot_be_written(words: tuple[str, ...]) -> None:
    ran = _program(*words, shell=">/dev/full")
    assert ran.returncode == EXIT_STATUS[ErrorCode.INTERNAL]
    assert ran.stderr == "poorwill: cannot write: No space left on device\n"


async def test_system_errors_have_no_traceback(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[models.x]\nengine = "toy"\n')
    lock = tmp_path / "poorwill.lock"
    lock.symlink_to(lock)
    ran = await poorwill("status", str(tmp_path))
    assert ran.status == EXIT_STATUS[ErrorCode.INTERNAL]
    assert ran.err == f"poorwill: {lock}: Too many levels of symbolic links\n"


def test_closed_standard_streams_do_no_harm(tmp_path: Path) -> None:
    assert _program("--version", shell="<&- >&- 2>&-").returncode == 0
    assert _program("check", str(tmp_path), shell="<&- >&- 2>&-").returncode == 2


def test_home_is_looked_up_if_not_set() -> None:
    said = 'import poorwill.__main__ as edge; print(edge.environment()["HOME"])'
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, env={}, timeout=60)
    assert ran.stdout.strip() == pwd.getpwuid(os.getuid()).pw_dir
