"""A request and its wake: queued, granted, refused, or failed at its deadline. Inputs in, effects out."""

from dataclasses import replace

import pytest

from poorwill.core.entries import PhaseSpan, SpanOpened, WakeBegan, WakeEnded
from poorwill.core.errors import ErrorCode
from poorwill.core.launch import PhaseMark
from poorwill.core.machine.effects import AbortWake, Grant, Record, StartWake
from poorwill.core.machine.inputs import PhaseBegan, Returned, Tick, WakeFailed, WakeSucceeded, Withdrawn
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Load
from poorwill.core.settings import HoldSettings, WakeSettings
from poorwill.core.words import HoldId, ModelName, Phase, ReplicaId, Tier, WakeId

from .replicas import (
    T0,
    Life,
    S,
    causes,
    demand,
    doing,
    due_us,
    failed,
    granted,
    parked,
    ready,
    settings,
    wakes,
    waking,
)

M, ID, W1 = ModelName("m"), ReplicaId("m-0"), WakeId("m-0.1")


# requests


def test_a_wake_is_recorded_first():
    life = Life(parked(Tier.FROZEN))
    assert life.takes(demand(7)) == [
        Record(
            entry=WakeBegan(
                wake=W1,
                replica=ID,
                model=M,
                generation=1,
                at_us=T0,
                from_tier=Tier.FROZEN,
                asked_by="key",
                why="demand",
                budget_us=60 * S,
                held=1,
            )
        ),
        Record(entry=SpanOpened(replica=ID, at_us=T0, cause="wake.provision", tier=Tier.FROZEN, wake=W1)),
        StartWake(wake=W1, generation=1, from_tier=Tier.FROZEN),
    ]
    assert life.replica.budget_ends_us == T0 + 60 * S


def test_more_demand_joins_the_wake():
    life = Life(waking(holds=1)).after(10)
    assert life.takes(demand(8)) == []
    assert life.replica.budget_ends_us == T0 + 60 * S, "absolute, from the first"
    assert life.replica.wake is not None and life.replica.wake.served == ("r0", "r8")


def test_a_wake_grants_in_order_to_the_limit():
    life = Life(waking(holds=3)).after(5)
    leaf = PhaseSpan(phase=Phase.WEIGHTS, began_us=T0, ended_us=life.now - 3)
    assert life.takes(WakeSucceeded(generation=1, anatomy=(leaf,))) == [
        Record(
            entry=WakeEnded(
                wake=W1,
                replica=ID,
                at_us=life.now,
                ok=True,
                anatomy=(replace(leaf, ended_us=life.now),),
                served=("r0", "r1", "r2"),
            )
        ),
        Grant(hold=HoldId(0)),
        Grant(hold=HoldId(1)),
        Record(entry=SpanOpened(replica=ID, at_us=life.now, cause="serving")),
    ]
    assert life.replica.load.in_flight == 2 and life.replica.gate_open
    assert life.replica.budget_ends_us is None


def test_a_free_place_goes_to_the_oldest():
    life = Life(ready(in_flight=2, held=1))
    life.replica = replace(life.replica, load=replace(life.replica.load, in_flight=1))
    assert granted(life.takes(Returned())) == [2]
    assert life.replica.load.in_flight == 2


def test_without_limit_all_are_granted():
    life = Life(waking(holds=20, settings=settings(max_concurrency=0, hold=HoldSettings(count=20))))
    assert granted(life.takes(WakeSucceeded(generation=1))) == list(range(20))


def test_a_wake_outlives_its_clients():
    life = Life(waking(holds=2))
    assert life.takes(Withdrawn(hold=HoldId(0))) == []
    assert [hold.id for hold in life.replica.holds] == [1]
    assert life.takes(Withdrawn(hold=HoldId(1))) == []
    assert (life.replica.state, life.replica.budget_ends_us) == (State.WAKING, None)
    assert life.after(100).takes(Tick()) == []


@pytest.mark.parametrize(
    ("bounds", "size"), [(HoldSettings(count=1), 1), (HoldSettings(count=9, bytes=10), 10)]
)
def test_the_queue_is_bounded_by_count_and_bytes(bounds: HoldSettings, size: int):
    life = Life(waking(holds=1, settings=settings(hold=bounds)))
    assert failed(life.takes(demand(5, size=size))) == [(5, ErrorCode.HOLD_QUEUE_FULL)]
    assert len(life.replica.holds) == 1


def test_the_queue_bounds_only_those_who_wait():
    life = Life(ready(in_flight=1, settings=settings(hold=HoldSettings(count=9))))
    life.replica = replace(life.replica, settings=settings(hold=HoldSettings(count=0)))
    assert doing(life.takes(demand(5))) == [Grant(hold=HoldId(5))]


def test_a_late_claim_turns_it_busy():
    life = Life(ready())
    assert life.takes(demand(5)) == [
        Grant(hold=HoldId(5)),
        Record(entry=SpanOpened(replica=ID, at_us=T0, cause="serving")),
    ]


def test_a_cap_of_zero_wakes_but_holds_none():
    life = Life(parked(settings=settings(hold=HoldSettings(count=0))))
    effects = life.takes(demand(5))
    assert failed(effects) == [(5, ErrorCode.HOLD_QUEUE_FULL)] and wakes(effects) == [Tier.COLD]
    assert life.replica.budget_ends_us is None


def test_a_request_may_wait_too_long():
    life = Life(ready(in_flight=2, held=1)).after(399)
    assert due_us(life.replica, life.now) == T0 + 400 * S
    assert life.takes(Tick()) == []
    assert failed(life.after(1).takes(Tick())) == [(2, ErrorCode.HOLD_QUEUE_FULL)]


def test_only_those_who_are_too_old_are_failed():
    life = Life(ready(in_flight=2, held=1)).after(10)
    life.takes(demand(8))
    assert failed(life.after(390).takes(Tick())) == [(2, ErrorCode.HOLD_QUEUE_FULL)]
    assert [hold.id for hold in life.replica.holds] == [8]


# the budget and the cap


def test_the_budget_fails_all_not_the_wake():
    life = Life(waking(holds=2))
    assert due_us(life.replica, T0) == T0 + 60 * S
    assert life.after(59.999999).takes(Tick()) == []
    effects = life.after(0.000001).takes(Tick())
    assert failed(effects) == [(0, ErrorCode.WAKE_TIMEOUT), (1, ErrorCode.WAKE_TIMEOUT)]
    assert life.replica.state is State.WAKING
    assert due_us(life.replica, life.now) == T0 + 180 * S, "then the cap is next"


def test_a_later_request_has_its_own_budget():
    life = Life(waking(holds=1)).after(60)
    life.takes(Tick())
    life.after(10).takes(demand(8))
    assert life.replica.budget_ends_us == life.now + 60 * S


def test_the_cap_ends_the_wake_for_good():
    life = Life(waking(Tier.FROZEN, holds=0 + 1)).after(180)
    life.replica = replace(life.replica, holds=(), budget_ends_us=None)
    assert life.takes(Tick()) == [AbortWake(generation=1, why="not ready after 180 s")]
    assert life.takes(Tick()) == [] and due_us(life.replica, life.now) is None
    effects = life.takes(WakeFailed(generation=1, why="aborted"))
    assert wakes(effects) == [] and life.replica.state is State.PARKED
    assert life.replica.last_error == "not ready after 180 s"


def test_a_slow_phase_aborts_the_wake():
    limits = WakeSettings(budget_us=60 * S, cap_us=180 * S, phase_limits_us={Phase.WEIGHTS: 5 * S})
    life = Life(waking(Tier.FROZEN, settings=settings(wake=limits))).after(20)
    mark = PhaseMark(phase=Phase.WEIGHTS, at_us=life.now)
    assert causes(life.takes(PhaseBegan(generation=1, mark=mark))) == ["wake.weights"]
    assert life.takes(PhaseBegan(generation=1, mark=mark)) == [], "the same phase goes on"
    assert due_us(life.replica, life.now) == life.now + 5 * S
    assert life.after(4.9).takes(Tick()) == []
    (abort,) = life.after(0.1).takes(Tick())
    assert isinstance(abort, AbortWake) and "weights" in abort.why
    assert wakes(life.takes(WakeFailed(generation=1, why="aborted"))) == [Tier.COLD]


# Retry-After


def test_retry_after_is_the_rest_of_the_usual_wake():
    life = Life(parked())
    for took in (30, 20, 40):
        life.takes(demand())
        life.after(took).takes(WakeSucceeded(generation=life.replica.generation))
        life.replica = replace(life.replica, state=State.PARKED, load=Load(0, life.now), failures=0)
    assert life.replica.expected_wake_us(Tier.COLD) == 30 * S, "the median"
    assert life.replica.retry_after_s(life.now) == 30
    life.takes(demand())
    assert life.after(12.5).replica.retry_after_s(life.now) == 18, "rounded up"
    assert life.after(17).replica.retry_after_s(life.now) == 1, "never less than a second"
    assert life.after(30.5).replica.retry_after_s(life.now) == 30, "overdue: half as long again"
    assert life.after(90).replica.retry_after_s(life.now) == 30, "never beyond the wake's cap, 180 s"


def test_predictions_count_before_measurement():
    life = Life(parked(settings=settings(wake=WakeSettings(expected_us={Tier.COLD: 40 * S}))))
    assert life.replica.retry_after_s(life.now) == 40
    life.takes(demand())
    life.after(15)
    assert life.replica.ready_in_us(life.now) == 25 * S
    assert life.replica.retry_after_s(life.now) == 25
    life.takes(WakeSucceeded(generation=life.replica.generation))
    life.replica = replace(life.replica, state=State.PARKED, load=Load(0, life.now), failures=0)
    assert life.replica.retry_after_s(life.now) == 15, "what was measured goes before"


def test_an_unknown_wake_retries_after_10_s():
    life = Life(parked())
    assert life.replica.retry_after_s(T0) == 10
    assert life.replica.ready_in_us(T0) is None
    life.replica = replace(life.replica, retry_at_us=T0 + 33 * S)
    assert life.replica.retry_after_s(T0) == 33


def test_only_the_last_twenty_wakes_are_remembered():
    life = Life(parked())
    for took in range(1, 26):
        life.takes(demand())
        life.after(took).takes(WakeSucceeded(generation=life.replica.generation))
        life.replica = replace(life.replica, state=State.PARKED, load=Load(0, life.now))
    assert life.replica.recent_wakes_us[Tier.COLD] == tuple(n * S for n in range(6, 26))
