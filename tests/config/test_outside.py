"""Run lines of containers and stop commands: what `check` says of them."""

import os
from pathlib import Path

import pytest

from poorwill.config.rules.advice import advice

from .conftest import Write, problems_of, read


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where programs are looked for: with one that calls itself docker."""
    os.symlink("/bin/true", tmp_path / "docker")
    return f"{tmp_path}:/bin"


LINE = '"docker", "run", "-p", "127.0.0.1:{port}:8000"'
MODEL = f'[models.m]\nengine = "command"\ncommand = [{LINE}, "image"]\nladder = ["cold"]\n'


def test_a_run_line_needs_nothing_more(write: Write, path: str) -> None:
    (model,) = read(write(MODEL), PATH=path).models
    assert model.engine.stop_command == ()


BAD = [
    (MODEL.replace('"run"', '"run", "-d"'), "models.m.command", "detaches"),
    (MODEL.replace('"run"', '"run", "-it"'), "models.m.command", "asks for a terminal"),
    (MODEL.replace('"run"', '"run", "--name", "mine"'), "models.m.command", "has a --name"),
    (MODEL.replace('["cold"]', '["frozen", "cold"]'), "models.m.ladder", "frozen would keep the process"),
    (
        f'[models.m]\nengine = "vllm"\npath = "a/b"\ncommand = [{LINE}]\nladder = ["suspended", "cold"]\n',
        "models.m.ladder",
        "suspended would keep the process",
    ),
    (
        '[models.m]\nengine = "command"\ncommand = ["true", "{port}"]\nstop_command = ["y"]\n'
        'ladder = ["frozen", "cold"]\n',
        "models.m.ladder",
        "frozen would keep the process",
    ),
    (
        '[models.m]\nengine = "toy"\nstop_command = ["y"]\n',
        "models.m.stop_command",
        "is not for the engine toy",
    ),
]


@pytest.mark.parametrize(("text", "where", "what"), BAD)
def test_what_cannot_be_followed_or_ended(write: Write, path: str, text: str, where: str, what: str) -> None:
    (problem,) = problems_of(write(text), PATH=path)
    assert where in problem and what in problem


def test_a_name_of_ones_own_with_a_stop_command(write: Write, path: str) -> None:
    text = MODEL.replace('"run"', '"run", "--name", "mine"') + 'stop_command = ["docker", "stop", "mine"]\n'
    assert read(write(text), PATH=path).models[0].engine.stop_command == ("docker", "stop", "mine")


@pytest.mark.parametrize(
    ("published", "warned"),
    [
        ("127.0.0.1:{port}:80", False),
        ("{port}:80", True),
        ("0.0.0.0:{port}:80", True),
        ("[::]:{port}:80", True),
    ],
)
def test_ports_open_to_everybody_are_warned_of(write: Write, path: str, published: str, warned: bool) -> None:
    fleet = read(write(MODEL.replace("127.0.0.1:{port}:8000", published)), PATH=path)
    assert any("past the gateway" in each.what for each in advice(fleet)) is warned
