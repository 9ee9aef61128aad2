"""Fixtures: a fleet directory with a toy engine, and poorwill run as a user runs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .program import Program, marked_processes


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Path]:
    """A fleet directory. Whatever a test left running in it is ended, and counts as a failure."""
    yield tmp_path
    left = marked_processes(tmp_path)
    for pid in left:
        Program.kill_group(pid)
    assert not left, f"engines left behind: {left}"
