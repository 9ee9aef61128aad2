"""One bounded run of a fuzzer: so many inputs, each within a bound of CPU time, and a finding made small."""

import random
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .mutate import mutated
from .targets import TARGETS, Check

CORPORA = Path(__file__).parents[1] / "corpora"
HANG_S = 5.0
"""CPU time for one input, which takes milliseconds at most."""
SMALLER_TRIES = 2000


class Hang(Exception):
    """An input took too long."""


@dataclass(kw_only=True)
class Found:
    """What one run found."""

    inputs: int = 0
    findings: dict[str, bytes] = field(default_factory=dict)
    """The smallest input of each kind of failure, by what it is."""


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPORA / name).iterdir())]


def failure(check: Check, data: bytes) -> str:
    """Return what is wrong with how an input is taken, as one line; nothing if it is taken well."""

    def late(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        check(data)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {place.name}, {Path(place.filename).name}:{place.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return ""


def smaller(check: Check, data: bytes, kind: str) -> bytes:
    """Return a short input that fails in the same way."""
    size, tries = max(1, len(data) // 2), 0
    while size and tries < SMALLER_TRIES:
        at = 0
        while at < len(data) and tries < SMALLER_TRIES:
            tries += 1
            shorter = data[:at] + data[at + size :]
            if failure(check, shorter) == kind:
                data = shorter
            else:
                at += size
        size //= 2
    return data


@contextmanager
def checking(name: str, scratch: Path) -> Iterator[Callable[[bytes], str]]:
    """Yield what takes one input and says what was wrong."""
    with TARGETS[name].check(scratch) as check:
        yield lambda data: failure(check, data)


def fuzz(name: str, scratch: Path, *, seed: int, more: Callable[[int], bool]) -> Found:
    """Feed a target the corpus, then inputs made from it, while `more` of the count says so."""
    chance, seeds, found = random.Random(seed), corpus(name), Found()
    with TARGETS[name].check(scratch) as check:
        for data in _inputs(chance, seeds, TARGETS[name].words):
            if not more(found.inputs):
                return found
            found.inputs += 1
            kind = failure(check, data)
            if kind and kind not in found.findings:
                found.findings[kind] = smaller(check, data, kind)
    return found


def _inputs(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> Iterator[bytes]:
    yield from seeds
    while True:
        yield mutated(chance, seeds, words)
