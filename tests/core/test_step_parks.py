"""When a replica parks, how deep, when it is kept or woken ahead, and how it is shut down."""

from dataclasses import replace

import pytest

from poorwill.core.entries import Noted, ParkEnded, SpanOpened, WakeBegan
from poorwill.core.errors import ErrorCode
from poorwill.core.machine.effects import AbortWake, CutLeases, Record, StartPark
from poorwill.core.machine.inputs import (
    Close,
    ParkAsked,
    ParkFailed,
    ParkSucceeded,
    Returned,
    Tick,
    WakeAsked,
    WakeFailed,
    WakeSucceeded,
)
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Load
from poorwill.core.settings import HoldSettings, ParkSettings
from poorwill.core.words import ReplicaId, Tier
from poorwill.policies import fixed_idle

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
    due_us,
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

ID = ReplicaId("m-0")


# parks


def test_a_park_starts_at_its_instant():
    life = Life(ready())
    assert due_us(life.replica, T0) == T0 + 30 * S
    assert life.after(29.999999).takes(Tick()) == []
    assert life.after(0.000001).takes(Tick()) == [
        Record(
            entry=SpanOpened(
                replica=ID, at_us=life.now, cause="park", tier=Tier.ASLEEP, why="idle, fixed 30 s"
            )
        ),
        StartPark(generation=2, from_tier=None, to_tier=Tier.ASLEEP),
    ]


def test_a_replica_descends_as_planned():
    life = Life(rested(Tier.ASLEEP))
    assert due_us(life.replica, T0) == T0 + 300 * S
    effects = life.after(300).takes(Tick())
    assert parks(effects) == [(Tier.ASLEEP, Tier.FROZEN)]
    effects = life.takes(ParkSucceeded(generation=life.replica.generation, image_bytes=5))
    (ended,) = entries(effects, ParkEnded)
    assert (ended.ok, ended.to_tier, ended.image_bytes) == (True, Tier.FROZEN, 5)
    assert causes(effects) == ["parked.frozen"]
    assert parks(life.after(2700).takes(Tick())) == [(Tier.FROZEN, Tier.COLD)]
    life.takes(ParkSucceeded(generation=life.replica.generation))
    assert due_us(life.replica, life.now) is None, "the end of the ladder"


def test_a_failed_descent_is_retried_later():
    life = Life(rested(Tier.ASLEEP)).after(300)
    pauses = []
    for _ in range(4):
        assert parks(life.takes(Tick())) == [(Tier.ASLEEP, Tier.FROZEN)]
        life.takes(ParkFailed(generation=life.replica.generation, why="no way", unharmed=True))
        assert (life.replica.state, life.replica.tier) == (State.PARKED, Tier.ASLEEP)
        due = due_us(life.replica, life.now)
        assert due is not None
        pauses.append((due - life.now) // S)
        life.now = due
    assert pauses == [60, 120, 240, 480]
    life.now = T0 + 3000 * S
    assert parks(life.takes(Tick())) == [(Tier.ASLEEP, Tier.COLD)]


def test_a_failed_park_goes_colder():
    life = Life(parking(Tier.FROZEN))
    effects = life.takes(ParkFailed(generation=2, why="no permission", unharmed=True))
    assert parks(effects) == [(None, Tier.COLD)]
    effects = life.takes(ParkFailed(generation=3, why="will not die", unharmed=True))
    assert life.replica.state is State.READY and causes(effects) == ["linger"]
    assert due_us(life.replica, T0) == T0 + 120 * S, "and is not tried again at once"


def test_a_failed_park_is_blamed_till_it_works():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    life.takes(ParkFailed(generation=2, why="disk full", unharmed=True))
    assert (life.replica.state, life.replica.last_error) == (State.READY, "disk full")
    life = Life(replace(life.replica, load=Load(0, T0, life.replica.load.cause)))
    life.after(3600).takes(ParkAsked(tier=Tier.FROZEN))
    life.takes(ParkSucceeded(generation=life.replica.generation))
    assert (life.replica.tier, life.replica.last_error) == (Tier.FROZEN, "")


def test_a_colder_park_lifts_no_blame():
    life = Life(parking(Tier.FROZEN))
    life.takes(ParkFailed(generation=2, why="no permission", unharmed=True))
    life.takes(ParkSucceeded(generation=3))
    assert (life.replica.tier, life.replica.last_error) == (Tier.COLD, "no permission")


def test_a_failed_park_serves_those_held():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    assert life.replica.budget_ends_us == T0 + 60 * S
    effects = life.takes(ParkFailed(generation=2, why="no permission", unharmed=True))
    assert granted(effects) == [4] and parks(effects) == []


def test_a_lost_engine_starts_cold_when_held():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    effects = life.takes(ParkFailed(generation=2, why="lost", unharmed=False))
    assert wakes(effects) == [Tier.COLD] and failed(effects) == []


@pytest.mark.parametrize(("unobserved", "cause"), [(True, "unobserved"), (False, "parked.cold")])
def test_what_a_park_loses_out_of_sight_is_paid(unobserved, cause):
    life = Life(parking(Tier.FROZEN))
    effects = life.takes(ParkFailed(generation=2, why="lost", unharmed=False, unobserved=unobserved))
    assert causes(effects) == [cause] and life.replica.tier is Tier.COLD


def test_demand_in_a_park_wakes_from_its_tier():
    life = Life(parking(Tier.FROZEN))
    life.takes(demand(4))
    effects = life.after(3).takes(ParkSucceeded(generation=2))
    assert wakes(effects) == [Tier.FROZEN] and causes(effects) == ["wake.provision"]
    assert life.replica.budget_ends_us == T0 + 60 * S, "it has waited since it came"


def test_a_drain_ends_with_the_last_lease():
    life = Life(draining(in_flight=1))
    assert not life.replica.gate_open
    life.replica = replace(life.replica, load=Load(0, T0, life.replica.load.cause))
    assert parks(life.takes(Returned())) == [(None, Tier.FROZEN)]


def test_a_drain_cuts_at_its_deadline():
    life = Life(draining(in_flight=2))
    assert due_us(life.replica, T0) == T0 + 20 * S
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


def test_no_park_while_requests_wait():
    life = Life(ready(in_flight=2, held=1))
    effects = life.takes(ParkAsked(why="operator"))
    assert doing(effects) == [] and life.replica.state is State.READY
    assert [note.kind for note in entries(effects, Noted)] == ["park_refused"]


def test_no_park_under_a_floor():
    life = Life(replace(ready(), floor=Always()))
    assert doing(life.takes(ParkAsked(why="evicted for b"))) == []
    assert life.replica.state is State.READY


def test_an_operator_only_parks_deeper():
    life = Life(rested(Tier.FROZEN))
    assert life.takes(ParkAsked(tier=Tier.ASLEEP)) == []
    assert parks(life.takes(ParkAsked(tier=Tier.COLD))) == [(Tier.FROZEN, Tier.COLD)]


# floors and wakes ahead


def test_a_floor_wakes_holds_and_lets_go():
    floor = Between(T0 + 100 * S, T0 + 5000 * S)
    life = Life(parked(floor=floor, policy=fixed_idle(((Tier.COLD, 30 * S),))))
    assert due_us(life.replica, T0) == T0 + 100 * S
    effects = life.after(100).takes(Tick())
    (began,) = entries(effects, WakeBegan)
    assert (began.asked_by, began.why, began.budget_us) == ("floor", "day", None)
    effects = life.after(9).takes(WakeSucceeded(generation=1))
    assert causes(effects) == ["floor"]
    assert due_us(life.replica, life.now) == T0 + 5000 * S
    assert life.after(1000).takes(Tick()) == []
    life.now = T0 + 5000 * S
    assert parks(life.takes(Tick())) == [(None, Tier.COLD)]


def test_a_floor_turns_into_linger():
    floor = Between(T0 - S, T0 + 10 * S)
    life = Life(replace(ready(), floor=floor)).after(1)
    assert causes(life.takes(Tick())) == ["floor"]
    assert causes(life.after(9).takes(Tick())) == ["linger"]
    assert due_us(life.replica, life.now) == T0 + 30 * S


def test_a_floor_waits_for_the_back_off():
    life = Life(parked(floor=Always()))
    life.takes(Tick())
    life.takes(WakeFailed(generation=1, why="x"))
    assert due_us(life.replica, life.now) == T0 + 5 * S
    assert life.after(4).takes(Tick()) == []
    assert wakes(life.after(1).takes(Tick())) == [Tier.COLD]


def test_a_wake_ahead_happens_once():
    life = Life(rested(Tier.FROZEN, policy=Ahead()))
    assert due_us(life.replica, T0) == T0 + 60 * S
    effects = life.after(60).takes(Tick())
    (began,) = entries(effects, WakeBegan)
    assert (began.asked_by, began.why) == ("policy", "predicted")
    life.after(5).takes(WakeSucceeded(generation=life.replica.generation))
    assert life.replica.load.idle_since_us == T0, "nobody came: it is still the same stretch"
    assert due_us(life.replica, life.now) == T0 + 90 * S
    effects = life.after(25).takes(Tick())
    assert parks(effects) == [(None, Tier.FROZEN)]
    life.takes(ParkSucceeded(generation=life.replica.generation))
    assert due_us(life.replica, life.now) is None


def test_a_missed_wake_ahead_is_not_made():
    life = Life(rested(Tier.FROZEN, policy=Ahead(wake_after_us=-1)))
    assert due_us(life.replica, T0) == T0 + 90 * S or (due_us(life.replica, T0) is None)
    assert wakes(life.after(1).takes(Tick())) == []


def test_a_failed_wake_ahead_is_left_to_demand():
    life = Life(rested(Tier.COLD, policy=Ahead())).after(60)
    life.takes(Tick())
    life.takes(WakeFailed(generation=life.replica.generation, why="x"))
    assert wakes(life.after(3600).takes(Tick())) == []


def test_an_operators_wake_begins_a_linger():
    life = Life(rested(Tier.FROZEN)).after(250)
    assert wakes(life.takes(WakeAsked())) == [Tier.FROZEN]
    life.takes(WakeSucceeded(generation=life.replica.generation))
    assert due_us(life.replica, life.now) == life.now + 30 * S


# the shutdown


def test_a_shutdown_aborts_the_wake():
    life = Life(waking(holds=2))
    effects = life.takes(Close(action="park"))
    assert failed(effects) == [(0, ErrorCode.DRAINING), (1, ErrorCode.DRAINING)]
    assert doing(effects)[-1] == AbortWake(generation=1, why="poorwill is shutting down")
    assert failed(life.takes(demand(8))) == [(8, ErrorCode.DRAINING)]
    effects = life.takes(WakeFailed(generation=1, why="aborted"))
    assert wakes(effects) == [] and life.replica.settled


def test_leaving_lets_the_wake_end():
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
    assert due_us(life.replica, T0) == T0 + 7 * S
    effects = life.after(7).takes(Tick())
    assert isinstance(doing(effects)[0], CutLeases) and parks(effects) == [(None, Tier.ASLEEP)]


def test_a_shutdown_only_shortens_a_drain():
    life = Life(draining()).after(10)
    life.takes(Close(action="park", drain_us=30 * S))
    assert due_us(life.replica, life.now) == T0 + 20 * S
    life = Life(draining()).after(10)
    life.takes(Close(action="park", drain_us=3 * S))
    assert due_us(life.replica, life.now) == T0 + 13 * S


def test_leaving_cuts_and_voids_late_leases():
    life = Life(ready(in_flight=2))
    life.takes(Close(action="leave", drain_us=7 * S))
    assert not life.replica.settled
    assert due_us(life.replica, T0) == T0 + 7 * S
    effects = life.after(7).takes(Tick())
    assert [type(effect) for effect in doing(effects)] == [CutLeases]
    assert life.replica.settled and life.replica.generation == 2


def test_a_shutdown_that_stops_ends_what_sleeps():
    life = Life(rested(Tier.ASLEEP))
    assert parks(life.takes(Close(action="stop"))) == [(Tier.ASLEEP, Tier.COLD)]
    life.takes(ParkFailed(generation=life.replica.generation, why="x", unharmed=True))
    assert life.replica.settled, "tried once"


def test_a_closing_replica_gets_no_ticks():
    for replica in (rested(Tier.ASLEEP), parked(floor=Always())):
        life = Life(replica)
        life.takes(Close(action="leave"))
        assert due_us(life.replica, T0 + 10**6 * S) is None
        assert life.after(10**6).takes(Tick()) == []
