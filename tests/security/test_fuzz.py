"""Readers of what others write, against inputs made from small corpora.

`python -m tests.security.fuzz` goes on for as long as asked.
"""

import random
import time
from pathlib import Path

import pytest

from .fuzz.run import checking, corpus, fuzz
from .fuzz.targets import TARGETS

FEW = {"fleet": 60, "engine": 150, "admin": 60, "edge": 400, "logs": 200}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_taken_well(name: str, tmp_path: Path) -> None:
    """Every past finding is in it."""
    with checking(name, tmp_path) as wrong:
        assert [(data, why) for data in corpus(name) if (why := wrong(data))] == []


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs_of_each(name: str, tmp_path: Path) -> None:
    found = fuzz(name, tmp_path, seed=1, more=lambda count: count < FEW.get(name, 500))
    assert found.findings == {}


@pytest.mark.nightly
@pytest.mark.parametrize("name", TARGETS)
def test_ten_minutes_of_each(name: str, tmp_path: Path) -> None:
    until, seed = time.monotonic() + 600, random.SystemRandom().randrange(2**32)  # noqa: TID251
    found = fuzz(name, tmp_path, seed=seed, more=lambda count: time.monotonic() < until)  # noqa: TID251
    assert found.findings == {}, f"seed {seed}"
