"""Every arrow of the table happens, and nothing that is not in the table."""

from dataclasses import FrozenInstanceError, replace

import pytest

from poorwill.core.launch import PhaseMark
from poorwill.core.machine.inputs import (
    Close,
    EngineLost,
    ImageLost,
    Input,
    ParkAsked,
    ParkFailed,
    ParkSucceeded,
    PhaseBegan,
    Returned,
    SpendChanged,
    Tick,
    WakeAsked,
    WakeFailed,
    WakeSucceeded,
    Withdrawn,
)
from poorwill.core.machine.lifecycle import TRANSITIONS, Kind, State
from poorwill.core.machine.replica import Blocked, Replica
from poorwill.core.machine.step import step
from poorwill.core.words import HoldId, Phase, Tier
from poorwill.policies import fixed_idle

from .replicas import (
    T0,
    Ahead,
    Always,
    S,
    demand,
    draining,
    due_us,
    parked,
    parking,
    ready,
    rested,
    settings,
    waking,
)

STATES = {
    State.PARKED: parked,
    State.WAKING: waking,
    State.READY: lambda: ready(in_flight=1),
    State.DRAINING: draining,
    State.PARKING: parking,
}


def plain(kind: Kind, generation: int) -> Input:
    """The plainest input of a kind."""
    mark = PhaseMark(phase=Phase.WEIGHTS, at_us=T0)
    inputs: tuple[Input, ...] = (
        demand(),
        Withdrawn(hold=HoldId(77)),
        Returned(),
        Tick(),
        PhaseBegan(generation=generation, mark=mark),
        WakeSucceeded(generation=generation),
        WakeFailed(generation=generation, why="x"),
        ParkSucceeded(generation=generation),
        ParkFailed(generation=generation, why="x", unharmed=True),
        EngineLost(generation=generation, why="x"),
        ImageLost(generation=generation, why="x"),
        WakeAsked(),
        ParkAsked(),
        SpendChanged(blocked=None),
        Close(action="leave"),
    )
    return next(what for what in inputs if what.kind is kind)


def idle(replica: Replica) -> Replica:
    return replace(replica, load=replace(replica.load, in_flight=0, idle_since_us=T0))


BLOCKED = Blocked(until_us=T0 + 9000 * S, why="day")
FAILED = {"why": "x", "unharmed": True}
GOING = ready().generation + 1
"""The generation of a park from ready."""

EXAMPLES: list[tuple[Replica, Input, int, State]] = [
    # parked
    (parked(), demand(), 0, State.WAKING),
    (parked(retry_at_us=T0 + S), demand(), 0, State.PARKED),
    (parked(floor=Always()), Tick(), 0, State.WAKING),
    (rested(Tier.ASLEEP), Tick(), 300, State.PARKING),
    (parked(), WakeAsked(), 0, State.WAKING),
    (parked(blocked=BLOCKED), WakeAsked(), 0, State.PARKED),
    (parked(Tier.ASLEEP), ParkAsked(tier=Tier.COLD), 0, State.PARKING),
    (parked(Tier.ASLEEP), Close(action="stop"), 0, State.PARKING),
    # waking
    (waking(Tier.FROZEN), WakeFailed(generation=1, why="x"), 0, State.WAKING),
    (waking(Tier.COLD), WakeFailed(generation=1, why="x"), 0, State.PARKED),
    (waking(), WakeSucceeded(generation=1), 0, State.READY),
    (replace(waking(), closing="park", holds=()), WakeSucceeded(generation=1), 0, State.PARKING),
    # ready
    (ready(), Tick(), 30, State.PARKING),
    (idle(replace(ready(in_flight=1), blocked=BLOCKED)), Returned(), 0, State.PARKING),
    (ready(in_flight=1), EngineLost(generation=1, why="x"), 0, State.PARKED),
    (ready(in_flight=2, held=1), EngineLost(generation=1, why="x"), 90, State.WAKING),
    (ready(in_flight=1), ParkAsked(), 0, State.DRAINING),
    (ready(), ParkAsked(), 0, State.PARKING),
    (ready(in_flight=2, held=1), ParkAsked(), 0, State.READY),
    (ready(), SpendChanged(blocked=Blocked(until_us=T0 + S, why="day")), 0, State.PARKING),
    (ready(in_flight=1), SpendChanged(blocked=Blocked(until_us=T0 + S, why="day")), 0, State.READY),
    (ready(in_flight=1), Close(action="park"), 0, State.DRAINING),
    (ready(), Close(action="park"), 0, State.PARKING),
    # draining
    (draining(), demand(), 0, State.READY),
    (replace(draining(), blocked=BLOCKED), demand(), 0, State.DRAINING),
    (idle(draining()), Returned(), 0, State.PARKING),
    (draining(), Tick(), 20, State.PARKING),
    (draining(), EngineLost(generation=1, why="x"), 0, State.PARKED),
    (draining(), WakeAsked(), 0, State.READY),
    (replace(draining(), closing="park"), WakeAsked(), 0, State.DRAINING),
    # parking
    (parking(), ParkSucceeded(generation=GOING), 0, State.PARKED),
    (step(parking(), demand(), T0)[0], ParkSucceeded(generation=GOING), 0, State.WAKING),
    (replace(parking(Tier.ASLEEP), closing="stop"), ParkSucceeded(generation=GOING), 0, State.PARKING),
    (parking(), ParkFailed(generation=GOING, **FAILED), 0, State.PARKING),
    (parking(Tier.COLD), ParkFailed(generation=GOING, **FAILED), 0, State.READY),
    (parking(), ParkFailed(generation=GOING, why="x", unharmed=False), 0, State.PARKED),
    (
        step(parking(), demand(), T0)[0],
        ParkFailed(generation=GOING, why="x", unharmed=False),
        0,
        State.WAKING,
    ),
]


@pytest.mark.parametrize(
    ("before", "what", "seconds", "after"),
    EXAMPLES,
    ids=[f"{b.state}-{w.kind}-{a}" for b, w, _, a in EXAMPLES],
)
def test_an_example_of_an_arrow_leads_where_it_says(before, what, seconds, after):
    assert step(before, what, T0 + seconds * S)[0].state is after


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("state", list(State))
def test_every_input_is_taken_in_every_state(state: State, kind: Kind):
    before = STATES[state]()
    after, _ = step(before, plain(kind, before.generation), T0 + S)
    assert after.state in TRANSITIONS[state, kind]


def test_every_arrow_of_the_table_has_an_example():
    shown = {(b.state, w.kind, after) for b, w, _, after in EXAMPLES}
    for state in State:
        for kind in Kind:
            before = STATES[state]()
            after, _ = step(before, plain(kind, before.generation), T0 + S)
            shown.add((state, kind, after.state))
    drawn = {(s, k, after) for (s, k), row in TRANSITIONS.items() for after in row}
    assert drawn - shown == set(), "drawn but never seen"
    assert shown - drawn == set()


def test_the_table_decides_every_pair():
    assert set(TRANSITIONS) == {(state, kind) for state in State for kind in Kind}


def test_a_step_that_would_leave_the_table_raises(monkeypatch: pytest.MonkeyPatch):
    narrower = {**TRANSITIONS, (State.PARKED, Kind.DEMAND): frozenset({State.PARKED})}
    monkeypatch.setattr("poorwill.core.machine.step.TRANSITIONS", narrower)
    with pytest.raises(AssertionError, match="is not in the table"):
        step(parked(), demand(), T0)


def test_a_stale_report_changes_no_state():
    for make in STATES.values():
        before = make()
        for kind in Kind:
            what = plain(kind, before.generation - 1)
            if what.generation is not None:
                assert step(before, what, T0 + S) == (before, [])


@pytest.mark.parametrize(
    ("woken_ahead_s", "rungs_s"), [(0, [10, 90]), (10, [90]), (11, [90]), (90, [17, 97]), (91, [17, 97])]
)
def test_a_wake_ahead_stays_for_what_it_woke_for(woken_ahead_s, rungs_s):
    """Rungs that were due by the predicted demand are over; with none left the descent begins at the wake."""
    replica = parked(policy=Ahead(), woken_ahead_us=T0 + woken_ahead_s * S, ready_since_us=T0 + 7 * S)
    plan = replica.descent()
    assert [(rung.at_us - T0) // S for rung in plan.rungs] == rungs_s
    assert plan.why == f"idle since {T0}" + (", woken ahead" if woken_ahead_s else "")


@pytest.mark.parametrize(("parked_at_s", "tick"), [(59, 60), (60, 60), (61, None)])
def test_a_wake_ahead_is_due_after_its_park(parked_at_s, tick):
    replica = parked(policy=Ahead(), park_began_us=T0 + parked_at_s * S)
    assert due_us(replace(replica, tier=Tier.COLD), T0) == (tick and T0 + tick * S)


def test_never_parking_keeps_it_ready():
    before = ready(policy=fixed_idle(()), settings=settings())
    assert step(before, Tick(), T0 + 10**6 * S)[0].state is State.READY


def test_changed_copies_all_other_fields():
    before = parked()
    after = before.changed(state=State.READY, failures=3)
    assert after == replace(before, state=State.READY, failures=3)
    assert (before.state, before.failures) == (State.PARKED, 0)
    with pytest.raises(AssertionError, match="no such field"):
        before.changed(stat=State.READY)
    with pytest.raises(FrozenInstanceError):
        after.failures = 4
