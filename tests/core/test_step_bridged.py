"""Demand that a hosted API serves: it wakes the replica, but waits for nothing and nobody waits for it."""

from poorwill.core.entries import WakeBegan
from poorwill.core.machine.inputs import ParkAsked, ParkFailed, ParkSucceeded, WakeAsked, WakeFailed
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Blocked
from poorwill.core.words import Tier

from .replicas import T0, Life, S, demand, entries, parked, parking, parks, ready, wakes

ASKED = WakeAsked(asked_by="alice", why="demand", demand=True)


def test_a_bridged_wake_has_no_budget():
    life = Life(parked(Tier.FROZEN))
    effects = life.takes(ASKED)
    assert wakes(effects) == [Tier.FROZEN]
    (began,) = entries(effects, WakeBegan)
    assert (began.asked_by, began.why, began.budget_us, began.held) == ("alice", "demand", None, 0)
    assert life.replica.budget_ends_us is None
    assert life.takes(ASKED) == [], "one wake, however many ask"


def test_a_held_request_starts_the_budget():
    life = Life(parked())
    life.takes(ASKED)
    life.after(7).takes(demand())
    assert life.replica.budget_ends_us == T0 + 67 * S


def test_bridges_wait_for_the_back_off():
    life = Life(parked())
    life.takes(ASKED)
    life.takes(WakeFailed(generation=1, why="x"))
    assert life.takes(ASKED) == []
    assert life.after(4).takes(ASKED) == []
    assert wakes(Life(life.replica).takes(WakeAsked())) == [Tier.COLD]
    assert wakes(life.after(1).takes(ASKED)) == [Tier.COLD]


def test_a_park_under_way_is_followed_by_one_wake():
    life = Life(parking())
    assert life.takes(ASKED) == []
    assert wakes(life.takes(ParkSucceeded(generation=life.replica.generation))) == [Tier.FROZEN]
    assert life.replica.wanted_by == ""


def test_a_failed_park_is_followed_by_the_wake():
    life = Life(parking())
    life.takes(ASKED)
    failed = ParkFailed(generation=life.replica.generation, why="x", unharmed=False)
    assert wakes(life.takes(failed)) == [Tier.COLD]


def test_one_park_forgets_what_another_wanted():
    life = Life(parking(Tier.COLD))
    life.takes(ASKED)
    failed = ParkFailed(generation=life.replica.generation, why="x", unharmed=True)
    life.takes(failed)
    assert life.replica.state is State.READY
    assert parks(life.after(120).takes(ParkAsked(tier=Tier.FROZEN))) == [(None, Tier.FROZEN)]
    assert wakes(life.takes(ParkSucceeded(generation=life.replica.generation))) == []


def test_a_spend_limit_keeps_it_parked():
    life = Life(parking())
    life.takes(ASKED)
    life.replica = life.replica.changed(blocked=Blocked(until_us=T0 + 9000 * S, why="day"))
    assert wakes(life.takes(ParkSucceeded(generation=life.replica.generation))) == []
    assert life.replica.state is State.PARKED


def test_a_ready_replica_has_nothing_to_do():
    life = Life(ready())
    assert life.takes(ASKED) == []
    assert life.replica.state is State.READY
