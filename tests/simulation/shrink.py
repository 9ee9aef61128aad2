"""A failing history made short: events are left out while the history still breaks a law."""

import tempfile
from dataclasses import fields
from pathlib import Path

from .history import Event, History
from .laws import Broken
from .run import Result, Run


def run(history: History) -> Result:
    """Run a history in a fresh directory on a RAM disk where there is one. Raises Broken."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as directory:
        return Run(history, Path(directory)).go()


def why_broken(history: History) -> str:
    """Return the law that a history breaks, or nothing."""
    try:
        run(history)
    except Broken as broken:
        return str(broken)
    return ""


def shrink(history: History) -> History:
    """Return a shorter history that still breaks a law: delta debugging, from halves down to single events.

    See Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002.
    """
    size = max(len(history.events) // 2, 1)
    while True:
        shorter = _drop_one(history, size)
        if shorter is not None:
            history = shorter
        elif size == 1:
            return history
        else:
            size = max(size // 2, 1)


def _drop_one(history: History, size: int) -> History | None:
    for begin in range(0, len(history.events), size):
        candidate = history.without(begin, begin + size)
        if why_broken(candidate):
            return candidate
    return None


def as_test(history: History, why: str) -> str:
    """Return a history as the source of a test."""
    events = "\n".join(f"            {_event(event)}," for event in history.events)
    models = "\n".join(f"            {model!r}," for model in history.models)
    return f'''def test_seed_{history.seed}() -> None:
    """{why[:90]}"""
    run(
        History(
            seed={history.seed},
            memory_bytes={history.memory_bytes},
            reap_orphans={history.reap_orphans},
            calm={history.calm},
            models=(
{models}
            ),
            events=(
{events}
            ),
        )
    )
'''


def _event(event: Event) -> str:
    """Return an event as source, without what is as usual."""
    said = [f"at_us={event.at_us}", f"what=Happening.{event.what.name}"]
    for each in fields(event)[2:]:
        value = getattr(event, each.name)
        if value != each.default:
            said.append(f"{each.name}={value!r}")
    return f"Event({', '.join(said)})"
