"""Inputs in, effects out: each decision about a replica, as a comparison of lists."""

from dataclasses import replace

import pytest

from poorwill.core.effects import AbortWake, CutLeases, Fail, Grant, Record, StartPark, StartWake
from poorwill.core.entries import (
    Noted,
    ParkEnded,
    PhaseSpan,
    SpanOpened,
    WakeBegan,
    WakeEnded,
)
from poorwill.core.errors import ErrorCode
from poorwill.core.gate import Load
from poorwill.core.inputs import (
    Close,
    EngineLost,
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
from poorwill.core.launch import PhaseMark
from poorwill.core.lifecycle import State
from poorwill.core.policy import FixedIdle
from poorwill.core.replica import next_wakeup_us
from poorwill.core.settings import HoldSettings, ParkSettings, WakeSettings
from poorwill.core.words import HoldId, ModelName, Phase, ReplicaId, Tier, WakeId

from .replicas import (
    LADDER,
    T0,
    Ahead,
    Always,
    Between,
    Life,
    S,
    causes,
    demand,
    doing,
    draining,
    entries,
    failed,
    granted,
    parked,
    parking,
    parks,
    ready,
    rested,
    settings,
    wakes,
    waking,
)

M, ID, W1 = ModelName("m"), ReplicaId("m-0"), WakeId("m-0.1")


# requests


def test_demand_for_a_parked_replica_records_the_wake_before_it_starts():
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
        Record(
            entry=SpanOpened(
                replica=ID, at_us=T0, cause="wake.provision", tier=Tier.FROZEN, wake=W1
            )
        ),
        StartWake(wake=W1, generation=1, from_tier=Tier.FROZEN),
    ]
    assert life.replica.budget_ends_us == T0 + 60 * S


def test_more_demand_joins_the_wake_under_way_and_its_budget():
    life = Life(waking(holds=1)).after(10)
    assert life.takes(demand(8)) == []
    assert life.replica.budget_ends_us == T0 + 60 * S, "absolute, from the first"
    assert life.replica.wake is not None and life.replica.wake.served == ("r0", "r8")


def test_a_wake_that_succeeds_grants_in_order_within_the_limit_and_opens_serving():
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


def test_a_place_that_comes_free_goes_to_who_has_waited_longest():
    life = Life(ready(in_flight=2, held=1))
    life.replica = replace(life.replica, load=replace(life.replica.load, in_flight=1))
    assert granted(life.takes(Returned())) == [2]
    assert life.replica.load.in_flight == 2


def test_with_no_limit_everybody_is_granted_at_once():
    life = Life(waking(holds=20, settings=settings(max_concurrency=0, hold=HoldSettings(count=20))))
    assert granted(life.takes(WakeSucceeded(generation=1))) == list(range(20))


def test_a_client_that_leaves_frees_its_place_and_the_last_one_ends_the_budget_not_the_wake():
    life = Life(waking(holds=2))
    assert life.takes(Withdrawn(hold=HoldId(0))) == []
    assert [hold.id for hold in life.replica.holds] == [1]
    assert life.takes(Withdrawn(hold=HoldId(1))) == []
    assert (life.replica.state, life.replica.budget_ends_us) == (State.WAKING, None)
    assert life.after(100).takes(Tick()) == []


@pytest.mark.parametrize(
    ("bounds", "size"),
    [(HoldSettings(count=1), 1), (HoldSettings(count=9, bytes=10), 10)],
)
def test_the_queue_is_bounded_by_count_and_bytes(bounds: HoldSettings, size: int):
    life = Life(waking(holds=1, settings=settings(hold=bounds)))
    assert failed(life.takes(demand(5, size=size))) == [(5, ErrorCode.HOLD_QUEUE_FULL)]
    assert len(life.replica.holds) == 1


def test_a_request_that_need_not_wait_is_not_bounded_by_the_queue():
    life = Life(ready(in_flight=1, settings=settings(hold=HoldSettings(count=9))))
    life.replica = replace(life.replica, settings=settings(hold=HoldSettings(count=0)))
    assert doing(life.takes(demand(5))) == [Grant(hold=HoldId(5))]


def test_a_cap_of_zero_holds_nothing_and_wakes_all_the_same():
    life = Life(parked(settings=settings(hold=HoldSettings(count=0))))
    effects = life.takes(demand(5))
    assert failed(effects) == [(5, ErrorCode.HOLD_QUEUE_FULL)] and wakes(effects) == [Tier.COLD]
    assert life.replica.budget_ends_us is None


def test_a_request_that_waits_for_a_place_too_long_is_told_so():
    life = Life(ready(in_flight=2, held=1)).after(399)
    assert life.takes(Tick()) == []
    assert failed(life.after(1).takes(Tick())) == [(2, ErrorCode.HOLD_QUEUE_FULL)]


def test_only_those_who_are_too_old_are_failed():
    life = Life(ready(in_flight=2, held=1)).after(10)
    life.takes(demand(8))
    assert failed(life.after(390).takes(Tick())) == [(2, ErrorCode.HOLD_QUEUE_FULL)]
    assert [hold.id for hold in life.replica.holds] == [8]


# the budget and the cap


def test_the_budget_fails_everybody_at_its_instant_and_the_wake_goes_on():
    life = Life(waking(holds=2))
    assert next_wakeup_us(life.replica, T0) == T0 + 60 * S
    assert life.after(59.999999).takes(Tick()) == []
    effects = life.after(0.000001).takes(Tick())
    assert failed(effects) == [(0, ErrorCode.WAKE_TIMEOUT), (1, ErrorCode.WAKE_TIMEOUT)]
    assert life.replica.state is State.WAKING
    assert next_wakeup_us(life.replica, life.now) == T0 + 180 * S, "then the cap is next"


def test_a_new_request_after_the_budget_gets_a_budget_of_its_own():
    life = Life(waking(holds=1)).after(60)
    life.takes(Tick())
    life.after(10).takes(demand(8))
    assert life.replica.budget_ends_us == life.now + 60 * S


def test_the_cap_tears_the_wake_down_once_and_there_is_no_second_try_under_it():
    life = Life(waking(Tier.FROZEN, holds=0 + 1)).after(180)
    life.replica = replace(life.replica, holds=(), budget_ends_us=None)
    assert life.takes(Tick()) == [AbortWake(generation=1, why="not ready after 180 s")]
    assert life.takes(Tick()) == [] and next_wakeup_us(life.replica, life.now) is None
    effects = life.takes(WakeFailed(generation=1, why="aborted"))
    assert wakes(effects) == [] and life.replica.state is State.PARKED
    assert life.replica.last_error == "not ready after 180 s"


def test_a_phase_that_exceeds_its_limit_is_aborted_and_the_replica_starts_cold():
    limits = WakeSettings(budget_us=60 * S, cap_us=180 * S, phase_limits_us={Phase.WEIGHTS: 5 * S})
    life = Life(waking(Tier.FROZEN, settings=settings(wake=limits))).after(20)
    mark = PhaseMark(phase=Phase.WEIGHTS, at_us=life.now)
    assert causes(life.takes(PhaseBegan(generation=1, mark=mark))) == ["wake.weights"]
    assert life.takes(PhaseBegan(generation=1, mark=mark)) == [], "the same phase goes on"
    assert next_wakeup_us(life.replica, life.now) == life.now + 5 * S
    assert life.after(4.9).takes(Tick()) == []
    (abort,) = life.after(0.1).takes(Tick())
    assert isinstance(abort, AbortWake) and "weights" in abort.why
    assert wakes(life.takes(WakeFailed(generation=1, why="aborted"))) == [Tier.COLD]


# failed wakes


def test_a_snapshot_that_fails_starts_cold_for_the_same_requests_under_the_same_deadlines():
    life = Life(waking(Tier.FROZEN, holds=2)).after(20)
    effects = life.takes(WakeFailed(generation=1, why="damaged"))
    assert failed(effects) == [] and wakes(effects) == [Tier.COLD]
    (began,) = entries(effects, WakeBegan)
    assert (began.asked_by, began.why, began.held) == ("key", "frozen failed: damaged", 2)
    assert life.replica.budget_ends_us == T0 + 60 * S
    assert life.replica.wake is not None and life.replica.wake.cap_ends_us == T0 + 180 * S
    assert life.replica.wake.asked_us == T0
    (ended,) = entries(effects, WakeEnded)
    assert not ended.ok and ended.wake == W1


def test_a_start_that_fails_fails_everybody_and_backs_off():
    life = Life(waking(holds=2)).after(20)
    effects = life.takes(WakeFailed(generation=1, why="no device"))
    assert failed(effects) == [(0, ErrorCode.WAKE_FAILED), (1, ErrorCode.WAKE_FAILED)]
    assert causes(effects) == ["parked.cold"]
    assert (life.replica.failures, life.replica.retry_at_us) == (1, life.now + 5 * S)
    refused = life.after(4).takes(demand(8))
    assert failed(refused) == [(8, ErrorCode.WAKE_FAILED)] and wakes(refused) == []
    assert wakes(life.after(1).takes(demand(9))) == [Tier.COLD]


def test_the_back_off_doubles_up_to_its_bound_and_a_success_ends_it():
    bounds = WakeSettings(budget_us=60 * S, cap_us=180 * S, backoff_us=5 * S, backoff_max_us=30 * S)
    life = Life(parked(settings=settings(wake=bounds)))
    delays = []
    for _ in range(5):
        life.takes(demand())
        life.takes(WakeFailed(generation=life.replica.generation, why="x"))
        delays.append((life.replica.retry_at_us - life.now) // S)
        life.now = life.replica.retry_at_us
    assert delays == [5, 10, 20, 30, 30]
    life.takes(demand())
    life.takes(WakeSucceeded(generation=life.replica.generation))
    assert (life.replica.retry_at_us, life.replica.last_error) == (0, "")


def test_a_wake_that_never_touched_the_replica_leaves_it_in_its_tier():
    life = Life(waking(Tier.FROZEN))
    what = WakeFailed(generation=1, why="no room", code=ErrorCode.NO_CAPACITY, kept=True)
    effects = life.takes(what)
    assert failed(effects) == [(0, ErrorCode.NO_CAPACITY)]
    assert causes(effects) == ["parked.frozen"] and life.replica.tier is Tier.FROZEN


def test_an_engine_that_dies_early_counts_as_a_failed_wake_and_a_late_one_does_not():
    early = Life(ready(in_flight=2, held=1)).after(59)
    effects = early.takes(EngineLost(generation=1, why="oom"))
    assert failed(effects) == [(2, ErrorCode.WAKE_FAILED)] and causes(effects) == ["parked.cold"]
    assert early.replica.retry_at_us == early.now + 5 * S
    late = Life(ready(in_flight=2, held=1)).after(60)
    effects = late.takes(EngineLost(generation=1, why="oom"))
    assert failed(effects) == [] and wakes(effects) == [Tier.COLD]
    assert late.replica.budget_ends_us == late.now + 60 * S, "whoever waits has a deadline"


def test_the_leases_of_a_dead_engine_are_void():
    life = Life(ready(in_flight=2))
    life.takes(EngineLost(generation=1, why="oom"))
    assert life.replica.load.in_flight == 0 and life.replica.generation == 2


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
    assert life.after(60).replica.retry_after_s(life.now) == 1, "never less than a second"


def test_retry_after_of_an_unknown_wake_is_ten_seconds_and_never_less_than_the_back_off():
    life = Life(parked())
    assert life.replica.retry_after_s(T0) == 10
    life.replica = replace(life.replica, retry_at_us=T0 + 33 * S)
    assert life.replica.retry_after_s(T0) == 33


def test_only_the_last_twenty_wakes_are_remembered():
    life = Life(parked())
    for took in range(1, 26):
        life.takes(demand())
        life.after(took).takes(WakeSucceeded(generation=life.replica.generation))
        life.replica = replace(life.replica, state=State.PARKED, load=Load(0, life.now))
    assert life.replica.recent_wakes_us[Tier.COLD] == tuple(n * S for n in range(6, 26))


# parks


def test_a_park_is_recorded_and_started_at_its_instant_and_not_before():
    life = Life(ready())
    assert next_wakeup_us(life.replica, T0) == T0 + 30 * S
    assert life.after(29.999999).takes(Tick()) == []
    assert life.after(0.000001).takes(Tick()) == [
        Record(
            entry=SpanOpened(
                replica=ID, at_us=life.now, cause="park", tier=Tier.ASLEEP, why="idle, fixed 30 s"
            )
        ),
        StartPark(generation=2, from_tier=None, to_tier=Tier.ASLEEP),
    ]


def test_a_replica_descends_the_ladder_at_the_instants_of_its_plan():
    life = Life(rested(Tier.ASLEEP))
    assert next_wakeup_us(life.replica, T0) == T0 + 300 * S
    effects = life.after(300).takes(Tick())
    assert parks(effects) == [(Tier.ASLEEP, Tier.FROZEN)]
    effects = life.takes(ParkSucceeded(generation=life.replica.generation, image_bytes=5))
    (ended,) = entries(effects, ParkEnded)
    assert (ended.ok, ended.to_tier, ended.image_bytes) == (True, Tier.FROZEN, 5)
    assert causes(effects) == ["parked.frozen"]
    assert parks(life.after(2700).takes(Tick())) == [(Tier.FROZEN, Tier.COLD)]
    life.takes(ParkSucceeded(generation=life.replica.generation))
    assert next_wakeup_us(life.replica, life.now) is None, "the end of the ladder"


def test_a_descent_that_fails_is_tried_again_later_each_time_and_does_not_hold_up_the_next_tier():
    life = Life(rested(Tier.ASLEEP)).after(300)
    pauses = []
    for _ in range(4):
        assert parks(life.takes(Tick())) == [(Tier.ASLEEP, Tier.FROZEN)]
        life.takes(ParkFailed(generation=life.replica.generation, why="no way", unharmed=True))
        assert (life.replica.state, life.replica.tier) == (State.PARKED, Tier.ASLEEP)
        due = next_wakeup_us(life.replica, life.now)
        assert due is not None
        pauses.append((due - life.now) // S)
        life.now = due
    assert pauses == [60, 120, 240, 480]
    life.now = T0 + 3000 * S
    assert parks(life.takes(Tick())) == [(Tier.ASLEEP, Tier.COLD)]


def test_a_park_that_fails_falls_back_to_the_next_colder_tier():
    life = Life(parking(Tier.FROZEN))
    effects = life.takes(ParkFailed(generation=2, why="no permission", unharmed=True))
    assert parks(effects) == [(None, Tier.COLD)]
    effects = life.takes(ParkFailed(generation=3, why="will not die", unharmed=True))
    assert life.replica.state is State.READY and causes(effects) == ["linger"]
    assert next_wakeup_us(life.replica, T0) == T0 + 120 * S, "and is not tried again at once"


def test_a_park_that_fails_while_somebody_waits_serves_them():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    assert life.replica.budget_ends_us == T0 + 60 * S
    effects = life.takes(ParkFailed(generation=2, why="no permission", unharmed=True))
    assert granted(effects) == [4] and parks(effects) == []


def test_a_park_that_lost_the_engine_starts_cold_for_who_waits():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    effects = life.takes(ParkFailed(generation=2, why="lost", unharmed=False))
    assert wakes(effects) == [Tier.COLD] and failed(effects) == []


def test_a_request_that_came_during_the_park_wakes_from_the_tier_it_reached():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    effects = life.after(3).takes(ParkSucceeded(generation=2))
    assert wakes(effects) == [Tier.FROZEN] and causes(effects) == ["wake.provision"]
    assert life.replica.budget_ends_us == T0 + 60 * S, "it has waited since it came"


def test_a_drain_grants_nothing_and_ends_with_its_last_lease():
    life = Life(draining(in_flight=1))
    assert not life.replica.gate_open
    life.replica = replace(life.replica, load=Load(0, T0, life.replica.load.cause))
    assert parks(life.takes(Returned())) == [(None, Tier.FROZEN)]


def test_a_drain_reaches_its_deadline_cuts_and_parks():
    life = Life(draining(in_flight=2))
    assert next_wakeup_us(life.replica, T0) == T0 + 20 * S
    effects = life.after(20).takes(Tick())
    assert doing(effects) == [
        CutLeases(why="the drain deadline has passed"),
        StartPark(generation=2, from_tier=None, to_tier=Tier.FROZEN),
    ]
    assert life.replica.load.in_flight == 0


@pytest.mark.parametrize("count", [3, 0])
def test_demand_during_a_drain_cancels_it(count: int):
    life = Life(draining(in_flight=1))
    life.replica = replace(life.replica, settings=settings(hold=HoldSettings(count=count)))
    effects = life.takes(demand(5))
    assert granted(effects) == [5] and failed(effects) == []
    assert causes(effects) == ["serving"] and life.replica.state is State.READY
    assert [note.kind for note in entries(effects, Noted)] == ["park_cancelled"]


def test_a_park_that_is_asked_for_while_requests_wait_is_refused():
    life = Life(ready(in_flight=2, held=1))
    effects = life.takes(ParkAsked(why="operator"))
    assert doing(effects) == [] and life.replica.state is State.READY
    assert [note.kind for note in entries(effects, Noted)] == ["park_refused"]


def test_a_park_that_is_asked_for_under_a_floor_is_refused():
    life = Life(replace(ready(), floor=Always()))
    assert doing(life.takes(ParkAsked(why="evicted for b"))) == []
    assert life.replica.state is State.READY


def test_an_operator_may_take_a_parked_replica_deeper_but_not_shallower():
    life = Life(rested(Tier.FROZEN))
    assert life.takes(ParkAsked(tier=Tier.ASLEEP)) == []
    assert parks(life.takes(ParkAsked(tier=Tier.COLD))) == [(Tier.FROZEN, Tier.COLD)]


# floors and wakes ahead


def test_a_floor_wakes_holds_and_lets_go():
    floor = Between(T0 + 100 * S, T0 + 5000 * S)
    life = Life(parked(floor=floor, policy=FixedIdle(((Tier.COLD, 30 * S),))))
    assert next_wakeup_us(life.replica, T0) == T0 + 100 * S
    effects = life.after(100).takes(Tick())
    (began,) = entries(effects, WakeBegan)
    assert (began.asked_by, began.why, began.budget_us) == ("floor", "day", None)
    effects = life.after(9).takes(WakeSucceeded(generation=1))
    assert causes(effects) == ["floor"]
    assert next_wakeup_us(life.replica, life.now) == T0 + 5000 * S
    assert life.after(1000).takes(Tick()) == []
    life.now = T0 + 5000 * S
    assert parks(life.takes(Tick())) == [(None, Tier.COLD)]


def test_a_floor_that_ends_before_the_linger_does_turns_into_linger():
    floor = Between(T0 - S, T0 + 10 * S)
    life = Life(replace(ready(), floor=floor)).after(1)
    assert causes(life.takes(Tick())) == ["floor"]
    assert causes(life.after(9).takes(Tick())) == ["linger"]
    assert next_wakeup_us(life.replica, life.now) == T0 + 30 * S


def test_a_floor_whose_wake_failed_waits_for_the_back_off():
    life = Life(parked(floor=Always()))
    life.takes(Tick())
    life.takes(WakeFailed(generation=1, why="x"))
    assert next_wakeup_us(life.replica, life.now) == T0 + 5 * S
    assert life.after(4).takes(Tick()) == []
    assert wakes(life.after(1).takes(Tick())) == [Tier.COLD]


def test_a_wake_ahead_of_demand_happens_once_and_the_stretch_goes_on():
    life = Life(rested(Tier.FROZEN, policy=Ahead()))
    assert next_wakeup_us(life.replica, T0) == T0 + 60 * S
    effects = life.after(60).takes(Tick())
    (began,) = entries(effects, WakeBegan)
    assert (began.asked_by, began.why) == ("policy", "predicted")
    life.after(5).takes(WakeSucceeded(generation=life.replica.generation))
    assert life.replica.load.idle_since_us == T0, "nobody came: it is still the same stretch"
    assert next_wakeup_us(life.replica, life.now) == T0 + 90 * S
    effects = life.after(25).takes(Tick())
    assert parks(effects) == [(None, Tier.FROZEN)]
    life.takes(ParkSucceeded(generation=life.replica.generation))
    assert next_wakeup_us(life.replica, life.now) is None


def test_a_wake_ahead_whose_time_has_passed_before_the_park_is_not_made():
    life = Life(rested(Tier.FROZEN, policy=Ahead(wake_after_us=-1)))
    assert next_wakeup_us(life.replica, T0) == T0 + 90 * S or (
        next_wakeup_us(life.replica, T0) is None
    )
    assert wakes(life.after(1).takes(Tick())) == []


def test_a_failed_wake_ahead_is_left_to_demand():
    life = Life(rested(Tier.COLD, policy=Ahead())).after(60)
    life.takes(Tick())
    life.takes(WakeFailed(generation=life.replica.generation, why="x"))
    assert wakes(life.after(3600).takes(Tick())) == []


def test_a_wake_that_an_operator_asks_for_begins_a_new_linger():
    life = Life(rested(Tier.FROZEN)).after(250)
    assert wakes(life.takes(WakeAsked())) == [Tier.FROZEN]
    life.takes(WakeSucceeded(generation=life.replica.generation))
    assert next_wakeup_us(life.replica, life.now) == life.now + 30 * S


# the spend breaker


def test_a_tripped_breaker_stops_wakes_and_refuses_until_it_ends():
    life = Life(parked())
    assert life.takes(SpendChanged(until_us=T0 + 100 * S, why="day")) == []
    effects = life.after(40).takes(demand(5))
    assert effects == [
        Fail(hold=HoldId(5), code=ErrorCode.SPEND_LIMIT, message="day", retry_after_s=60)
    ]
    assert life.takes(WakeAsked()) == []
    assert next_wakeup_us(life.replica, life.now) == T0 + 100 * S
    life.after(60).takes(Tick())
    assert wakes(life.takes(demand(6))) == [Tier.COLD]


def test_a_tripped_breaker_fails_who_waits_lets_run_what_runs_and_then_parks():
    life = Life(ready(in_flight=2, held=1))
    effects = life.takes(SpendChanged(until_us=T0 + 100 * S, why="day"))
    assert failed(effects) == [(2, ErrorCode.SPEND_LIMIT)] and parks(effects) == []
    assert not life.replica.gate_open
    life.replica = replace(life.replica, load=Load(0, T0, life.replica.load.cause))
    assert parks(life.takes(Returned())) == [(None, Tier.ASLEEP)]


def test_a_tripped_breaker_lets_a_wake_under_way_serve_those_it_woke_for_but_starts_no_other():
    life = Life(waking(Tier.FROZEN, holds=1))
    life.takes(SpendChanged(until_us=T0 + 100 * S, why="day"))
    other = Life(life.replica)
    assert granted(life.takes(WakeSucceeded(generation=1))) == [0]
    effects = other.takes(WakeFailed(generation=1, why="damaged"))
    assert wakes(effects) == [] and failed(effects) == [(0, ErrorCode.WAKE_FAILED)]


def test_a_tripped_breaker_fails_who_waits_for_a_park_to_end():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    effects = life.takes(SpendChanged(until_us=T0 + 100 * S, why="day"))
    assert failed(effects) == [(4, ErrorCode.SPEND_LIMIT)]
    assert wakes(life.takes(ParkSucceeded(generation=2))) == []


def test_a_blocked_replica_whose_park_fails_is_not_parked_again_at_once():
    life = Life(ready())
    life.takes(SpendChanged(until_us=T0 + 1000 * S, why="day"))
    for tier in LADDER:
        assert life.replica.tier is tier
        generation = life.replica.generation
        effects = life.takes(ParkFailed(generation=generation, why="x", unharmed=True))
    assert life.replica.state is State.READY and parks(effects) == []
    due = next_wakeup_us(life.replica, life.now)
    assert due is not None and due - life.now >= 60 * S
    life.now = due
    assert parks(life.takes(Tick())) == [(None, Tier.ASLEEP)]


def test_a_floor_wakes_again_when_the_breaker_is_lifted():
    life = Life(parked(floor=Always()))
    life.takes(SpendChanged(until_us=T0 + 100 * S, why="day"))
    assert wakes(life.takes(Tick())) == []
    life.takes(SpendChanged(until_us=None))
    assert next_wakeup_us(life.replica, life.now) == 0, "at once"
    assert wakes(life.takes(Tick())) == [Tier.COLD]


# the shutdown


def test_a_shutdown_fails_who_waits_and_aborts_the_wake():
    life = Life(waking(holds=2))
    effects = life.takes(Close(action="park"))
    assert failed(effects) == [(0, ErrorCode.DRAINING), (1, ErrorCode.DRAINING)]
    assert doing(effects)[-1] == AbortWake(generation=1, why="poorwill is shutting down")
    assert failed(life.takes(demand(8))) == [(8, ErrorCode.DRAINING)]
    effects = life.takes(WakeFailed(generation=1, why="aborted"))
    assert wakes(effects) == [] and life.replica.settled


def test_a_shutdown_that_leaves_lets_the_wake_come_to_its_end():
    life = Life(waking(holds=1))
    assert AbortWake not in map(type, life.takes(Close(action="leave")))
    life.takes(WakeSucceeded(generation=1))
    assert life.replica.state is State.READY and life.replica.settled
    assert not life.replica.gate_open


@pytest.mark.parametrize(("action", "tier"), [("park", Tier.ASLEEP), ("stop", Tier.COLD)])
def test_a_shutdown_parks_or_stops_an_idle_replica(action: str, tier: Tier):
    life = Life(ready())
    assert parks(life.takes(Close(action=action))) == [(None, tier)]
    assert not life.replica.settled


def test_a_shutdown_drains_no_longer_than_it_may():
    life = Life(ready(in_flight=1, settings=settings(park=ParkSettings(ladder=LADDER))))
    life.takes(Close(action="park", drain_us=7 * S))
    assert next_wakeup_us(life.replica, T0) == T0 + 7 * S
    effects = life.after(7).takes(Tick())
    assert isinstance(doing(effects)[0], CutLeases) and parks(effects) == [(None, Tier.ASLEEP)]


def test_a_shutdown_shortens_a_drain_under_way_but_never_lengthens_it():
    life = Life(draining()).after(10)
    life.takes(Close(action="park", drain_us=30 * S))
    assert next_wakeup_us(life.replica, life.now) == T0 + 20 * S
    life = Life(draining()).after(10)
    life.takes(Close(action="park", drain_us=3 * S))
    assert next_wakeup_us(life.replica, life.now) == T0 + 13 * S


def test_a_shutdown_that_leaves_cuts_what_does_not_end_and_voids_its_leases():
    life = Life(ready(in_flight=2))
    life.takes(Close(action="leave", drain_us=7 * S))
    assert not life.replica.settled
    assert next_wakeup_us(life.replica, T0) == T0 + 7 * S
    effects = life.after(7).takes(Tick())
    assert [type(effect) for effect in doing(effects)] == [CutLeases]
    assert life.replica.settled and life.replica.generation == 2


def test_a_shutdown_that_stops_ends_what_sleeps():
    life = Life(rested(Tier.ASLEEP))
    assert parks(life.takes(Close(action="stop"))) == [(Tier.ASLEEP, Tier.COLD)]
    life.takes(ParkFailed(generation=life.replica.generation, why="x", unharmed=True))
    assert life.replica.settled, "tried once"


def test_a_replica_that_is_being_closed_is_given_no_more_ticks():
    for replica in (rested(Tier.ASLEEP), parked(floor=Always())):
        life = Life(replica)
        life.takes(Close(action="leave"))
        assert next_wakeup_us(life.replica, T0 + 10**6 * S) is None
        assert life.after(10**6).takes(Tick()) == []
