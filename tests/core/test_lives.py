"""Lives of replicas go as `lives.txt` has them: every record, reason and field, step by step."""

from pathlib import Path

import pytest

from .lives import LIVES
from .telling import book, told

WRITTEN = Path(__file__).with_name("lives.txt").read_text("utf-8")


@pytest.mark.parametrize("name", LIVES)
def test_a_life_goes_as_written(name):
    begins, steps = LIVES[name]
    lines = list(told(begins(), steps))
    start = WRITTEN.splitlines().index(name) + 1
    assert WRITTEN.splitlines()[start : start + len(lines)] == lines, "see telling.py on how to write it anew"


def test_nothing_else_is_written():
    assert book() == WRITTEN
