"""What fails, and what is not allowed: fallback, back-off, lost engines, the spend breaker."""

from dataclasses import replace

from poorwill.core.entries import WakeBegan, WakeEnded
from poorwill.core.errors import ErrorCode
from poorwill.core.machine.effects import AbortWake, Fail
from poorwill.core.machine.inputs import (
    EngineLost,
    ParkFailed,
    ParkSucceeded,
    Returned,
    SpendChanged,
    Tick,
    WakeAsked,
    WakeFailed,
    WakeSucceeded,
)
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Blocked, Load
from poorwill.core.settings import WakeSettings
from poorwill.core.words import HoldId, Tier, WakeId

from .replicas import (
    LADDER,
    T0,
    Always,
    Life,
    S,
    causes,
    demand,
    due_us,
    entries,
    failed,
    granted,
    parked,
    parking,
    parks,
    ready,
    settings,
    wakes,
    waking,
)

W1 = WakeId("m-0.1")


# failed wakes


def test_a_failed_snapshot_starts_cold():
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


def test_a_failed_start_fails_all_and_waits():
    life = Life(waking(holds=2)).after(20)
    effects = life.takes(WakeFailed(generation=1, why="no device"))
    assert failed(effects) == [(0, ErrorCode.WAKE_FAILED), (1, ErrorCode.WAKE_FAILED)]
    assert causes(effects) == ["parked.cold"]
    assert (life.replica.failures, life.replica.retry_at_us) == (1, life.now + 5 * S)
    assert (life.replica.last_error, life.replica.last_error_us) == ("no device", life.now)
    refused = life.after(4).takes(demand(8))
    assert failed(refused) == [(8, ErrorCode.WAKE_FAILED)] and wakes(refused) == []
    assert wakes(life.after(1).takes(demand(9))) == [Tier.COLD]


def test_the_back_off_doubles_to_its_bound():
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


def test_an_untouched_replica_keeps_its_tier():
    life = Life(waking(Tier.FROZEN))
    what = WakeFailed(generation=1, why="no room", code=ErrorCode.NO_CAPACITY, kept=True)
    effects = life.takes(what)
    assert failed(effects) == [(0, ErrorCode.NO_CAPACITY)]
    assert causes(effects) == ["parked.frozen"] and life.replica.tier is Tier.FROZEN


def test_only_an_early_death_is_a_failure():
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


# the spend breaker


def test_a_tripped_breaker_refuses_wakes():
    life = Life(parked())
    assert life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 100 * S, why="day"))) == []
    effects = life.after(40).takes(demand(5))
    assert effects == [Fail(hold=HoldId(5), code=ErrorCode.SPEND_LIMIT, message="day", retry_after_s=60)]
    assert life.takes(WakeAsked()) == []
    life.after(60).takes(Tick())
    assert life.replica.blocked, "what a new window allows the breaker's look decides, no clock"
    life.takes(SpendChanged(blocked=None))
    assert wakes(life.takes(demand(6))) == [Tier.COLD]


def test_a_tripped_breaker_drains_and_parks():
    life = Life(ready(in_flight=2, held=1))
    effects = life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 100 * S, why="day")))
    assert failed(effects) == [(2, ErrorCode.SPEND_LIMIT)] and parks(effects) == []
    assert not life.replica.gate_open
    life.replica = replace(life.replica, load=Load(0, T0, life.replica.load.cause))
    assert parks(life.takes(Returned())) == [(None, Tier.FROZEN)], "asleep, its host is still paid"


def test_a_tripped_breaker_ends_sleep():
    life = Life(parked(Tier.ASLEEP))
    life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 1000 * S, why="day")))
    assert due_us(life.replica, life.now) == 0, "at once"
    assert parks(life.takes(Tick())) == [(Tier.ASLEEP, Tier.FROZEN)]


def test_a_tripped_breaker_ends_a_wake():
    life = Life(waking(Tier.FROZEN, holds=2))
    effects = life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 100 * S, why="day")))
    refused = {"code": ErrorCode.SPEND_LIMIT, "message": "day", "retry_after_s": 100}
    assert effects == [
        Fail(hold=HoldId(0), **refused),
        Fail(hold=HoldId(1), **refused),
        AbortWake(generation=1, why="day"),
    ]
    assert failed(life.takes(demand(5))) == [(5, ErrorCode.SPEND_LIMIT)]
    assert wakes(life.takes(WakeFailed(generation=1, why="aborted"))) == []
    assert life.replica.state is State.PARKED
    assert life.replica.failures == 0 and not life.replica.last_error, "the engine did not fail"


def test_a_wakes_only_limit_lets_ready_serve():
    life = Life(waking(Tier.FROZEN, holds=1))
    no_wake = SpendChanged(blocked=Blocked(until_us=T0 + 100 * S, why="day", wakes_only=True))
    assert life.takes(no_wake) == []
    other = Life(life.replica)
    assert granted(life.takes(WakeSucceeded(generation=1))) == [0]
    assert life.replica.gate_open
    effects = other.takes(WakeFailed(generation=1, why="damaged"))
    assert wakes(effects) == [] and failed(effects) == [(0, ErrorCode.WAKE_FAILED)]
    assert failed(other.takes(demand(7))) == [(7, ErrorCode.SPEND_LIMIT)]


def test_a_tripped_breaker_aborts_idle_wakes():
    life = Life(parked())
    life.takes(WakeAsked())
    effects = life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 100 * S, why="day")))
    assert effects == [AbortWake(generation=1, why="day")]
    assert wakes(life.takes(WakeFailed(generation=1, why="aborted"))) == []
    assert life.replica.state is State.PARKED


def test_a_tripped_breaker_replaces_no_engine():
    life = Life(waking(holds=3))
    life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 1000 * S, why="day", wakes_only=True)))
    assert granted(life.takes(WakeSucceeded(generation=1))) == [0, 1]
    effects = life.after(90).takes(EngineLost(generation=1, why="oom"))
    assert failed(effects) == [(2, ErrorCode.SPEND_LIMIT)] and wakes(effects) == []


def test_a_tripped_breaker_fails_those_held():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    effects = life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 100 * S, why="day")))
    assert failed(effects) == [(4, ErrorCode.SPEND_LIMIT)]
    assert wakes(life.takes(ParkSucceeded(generation=2))) == []


def test_a_blocked_park_is_not_retried_at_once():
    life = Life(ready())
    life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 1000 * S, why="day")))
    for tier in LADDER[1:]:
        assert life.replica.tier is tier
        generation = life.replica.generation
        effects = life.takes(ParkFailed(generation=generation, why="x", unharmed=True))
    assert life.replica.state is State.READY and parks(effects) == []
    due = due_us(life.replica, life.now)
    assert due is not None and due - life.now >= 60 * S
    life.now = due
    assert parks(life.takes(Tick())) == [(None, Tier.FROZEN)]


def test_a_lifted_breaker_lets_the_floor_wake():
    life = Life(parked(floor=Always()))
    life.takes(SpendChanged(blocked=Blocked(until_us=T0 + 100 * S, why="day")))
    assert wakes(life.takes(Tick())) == []
    life.takes(SpendChanged(blocked=None))
    assert due_us(life.replica, life.now) == 0, "at once"
    assert wakes(life.takes(Tick())) == [Tier.COLD]
