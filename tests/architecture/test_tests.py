"""The tests themselves: none sleeps in the hope that something has happened, none uses private fields."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PROGRAMS = (
    "tests/waiting.py",
    "tests/sleeping_engines/",
    "tests/tiers/tiny_engine.py",
    "tests/simulation/",
    "tests/containers/fake_docker.py",
)
"""What waits on purpose: the one place that polls, engines that are slow because engines are, and what
runs on virtual time, where a sleep takes none."""
OWN = {"self", "cls", "mcs"}
PUBLIC = {"_exit", "_request_id"}
"""Public in spite of their names: os._exit, and the request id of OpenAI's client."""


def sleeps(tree: ast.AST) -> Iterator[int]:
    """The lines of calls of a sleep of more than nothing; one of nothing lets other tasks run."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        callee = node.func
        name = callee.attr if isinstance(callee, ast.Attribute) else getattr(callee, "id", "")
        nothing = node.args and isinstance(node.args[0], ast.Constant) and not node.args[0].value
        if name == "sleep" and not nothing:
            yield node.lineno


def private(tree: ast.AST) -> Iterator[int]:
    """The lines where something's private field is read, set or called from outside."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and node.attr not in PUBLIC
            and not (isinstance(node.value, ast.Name) and node.value.id in OWN)
        ):
            yield node.lineno


def found(rule, paths: list[Path] = TESTS) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        for line in rule(ast.parse(path.read_text()))
        if not (rule is sleeps and str(path.relative_to(ROOT)).startswith(PROGRAMS))
    ]


def test_no_test_sleeps_to_synchronise() -> None:
    assert found(sleeps) == []


def test_no_test_looks_into_private_fields() -> None:
    assert found(private) == []


@pytest.mark.parametrize(
    ("rule", "code", "count"),
    [
        (sleeps, "await asyncio.sleep(0.1)", 1),
        (sleeps, "time.sleep(delay)", 1),
        (sleeps, "await asyncio.sleep(0)", 0),
        (private, "site.server._policy.fail()", 1),
        (private, "pool._addresses", 1),
        (private, "self._x = other._x", 1),
        (private, "x.__class__", 0),
    ],
)
def test_the_rules_find_what_they_are_for(rule, code: str, count: int) -> None:
    assert len(list(rule(ast.parse(code)))) == count
