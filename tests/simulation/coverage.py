"""What the histories reach: pairs of (state, input) with the state they led to, and faults by place."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import Effect
from poorwill.core.machine.inputs import Input
from poorwill.core.machine.lifecycle import TRANSITIONS, Kind, State

from .weather import KILL_ODDS, ODDS, Fault

Step = tuple[State, Kind, State]
PLACES = {
    "connect": (Fault.NONE, Fault.SLOW, Fault.FAILS, Fault.HANGS),
    "answer": (Fault.NONE, Fault.FAILS, Fault.FAILS_LATE, Fault.HANGS),
    "kill": tuple(fault for fault, _ in KILL_ODDS),
    **{
        place: tuple(fault for fault, _ in ODDS)
        for place in (
            "ready",
            "probe",
            "cold wake",
            "cold park",
            "frozen wake",
            "frozen park",
            "asleep wake",
            "asleep park",
        )
    },
}
"""Where calls may fail, and how."""


def watch_steps() -> Counter[Step]:
    """Count every step of every cell in this process from now on; reports about what is over do not count."""
    steps: Counter[Step] = Counter()
    feed = Cell.feed

    def counting(cell: Cell, what: Input, now_us: int) -> Sequence[Effect]:
        before, over = cell.replica.state, what.generation not in (None, cell.generation)
        effects = feed(cell, what, now_us)
        if not over:
            steps[before, what.kind, cell.replica.state] += 1
        return effects

    Cell.feed = counting  # type: ignore[method-assign]
    return steps


def not_reached(steps: Counter[Step]) -> list[Step]:
    """Return the steps that the table allows and that never were made."""
    return [
        (state, kind, after)
        for (state, kind), row in TRANSITIONS.items()
        for after in row
        if not steps[state, kind, after]
    ]


def faults_not_met(met: Iterable[object]) -> list[tuple[str, Fault]]:
    """Return the faults that no call met."""
    known = set(met)
    return [
        (place, fault) for place, faults in PLACES.items() for fault in faults if (place, fault) not in known
    ]


_STALE = "a report carries the generation of its wake or park; another state has another generation"
_MOMENT = "a shutdown or a limit at that very moment: tests/core"
_NO_LOOK = "drivers here are not asked whether an image is still good: tests/core/test_step_parks.py"
_REFUSED = "operators and shutdowns meet this in tests/core and tests/property alone"
REASONS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.ENGINE_LOST: "while it drains or parks it is the park that finds out",
        Kind.IMAGE_LOST: _NO_LOOK,
        Kind.DEMAND: "a firm drain lasts a moment: tests/property has it",
        Kind.WITHDRAWN: "a drain lasts a moment: tests/property has it",
        Kind.TICK: "a drain lasts a moment: tests/property has it",
        Kind.WAKE_ASKED: _REFUSED,
        Kind.PARK_ASKED: _REFUSED,
        Kind.CLOSE: _REFUSED,
    }
)
"""Why a step of this kind may not be reached by thousands of wakes."""
_REPORTS = {
    State.WAKING: (Kind.PHASE_BEGAN, Kind.WAKE_SUCCEEDED, Kind.WAKE_FAILED),
    State.PARKING: (Kind.PARK_SUCCEEDED, Kind.PARK_FAILED),
}


def why_not(state: State, kind: Kind) -> str | None:
    """Return why a step may not be reached here; None if it should be."""
    for reporting, kinds in _REPORTS.items():
        if kind in kinds:
            return (
                _STALE if state is not reporting else "a shutdown or a limit at that very moment: tests/core"
            )
    return REASONS.get(kind)


def report(steps: Counter[Step], met: Iterable[object]) -> Iterator[str]:
    """Yield the lines of `--coverage`."""
    missing, faults = not_reached(steps), faults_not_met(met)
    allowed = sum(len(row) for row in TRANSITIONS.values())
    pairs = len({(state, kind) for state, kind, _ in steps})
    yield f"{pairs} of {len(TRANSITIONS)} pairs of state and input"
    yield f"{allowed - len(missing)} of {allowed} steps that the table allows"
    for state, kind, after in missing:
        why = why_not(state, kind)
        yield f"  {'not here' if why else 'never'}: {state} --{kind}--> {after}{f' ({why})' if why else ''}"
    every = sum(map(len, PLACES.values()))
    yield f"{every - len(faults)} of {every} faults"
    for place, fault in faults:
        yield f"  not met: {place}: {fault}"
