"""Whole fleets in simulated weather: no law is broken, and planted defects are found."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .history import draw_history
from .mutants import MUTANTS, stale
from .shrink import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _cleared() -> Iterator[None]:
    """What killed lives leave is cleared away here, not in the middle of another test."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore")  # a killed life leaves coroutines that never ran
@pytest.mark.parametrize("first", range(1, 13, 3))
def test_histories_break_no_law(first: int) -> None:
    """Some 1,000 wakes; `./dev simulate` lives through as many as asked for."""
    wakes = sum(run(draw_history(seed)).wakes for seed in range(first, first + 3))
    assert wakes > 50


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [29, 151])
def test_what_was_found_stays_mended(seed: int) -> None:
    """29: a snapshot bound to a busy device; 151: a removed model whose replicas leave one by one."""
    run(draw_history(seed))


@pytest.mark.filterwarnings("ignore")
def test_a_seed_decides_everything() -> None:
    one, other = run(draw_history(7)), run(draw_history(7))
    assert (one.wakes, one.ended, one.met) == (other.wakes, other.ended, other.met)


def test_no_planted_defect_is_stale() -> None:
    """What is planted are changes of the source, which moves on."""
    assert stale() == []


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_fresh_seeds_break_no_law() -> None:
    """Other histories every night; what fails says from which seed on."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--fresh", "--wakes", "20000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.nightly
def test_every_step_is_reached_or_explained() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--coverage", "--wakes", "4000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert "never:" not in done.stdout and "not met:" not in done.stdout, done.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("mutant", [each.name for each in MUTANTS])
def test_a_planted_defect_is_found(mutant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--mutant", mutant, "--wakes", "100000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("seed "), done.stderr
