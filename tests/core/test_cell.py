"""A cell counts leases, keeps the quiet stretches, and tells the policy what it may learn."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.entries import SpanOpened, WakeBegan
from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import ChangeCause, StartPark
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import (
    Close,
    EngineLost,
    ParkAsked,
    ParkSucceeded,
    SpendChanged,
    Tick,
    WakeAsked,
    WakeSucceeded,
    Withdrawn,
)
from poorwill.core.machine.levels import DemandLevel
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Blocked, Load
from poorwill.core.policy import Descent, NoFloor, Rung
from poorwill.core.settings import ParkSettings
from poorwill.core.words import FLOOR, LINGER, SERVING, HoldId, ReplicaId, Tier

from .replicas import (
    T0,
    Ahead,
    Always,
    Between,
    S,
    causes,
    demand,
    doing,
    entries,
    granted,
    parked,
    parks,
    ready,
    settings,
)


@dataclass
class Pupil:
    """A policy that remembers what it is told."""

    stretches: list[tuple[int, int, int]] = field(default_factory=list)
    waits_us: list[list[int]] = field(default_factory=list)
    wakes_us: list[tuple[Tier, tuple[int, ...]]] = field(default_factory=list)
    parks_us: list[tuple[Tier, int]] = field(default_factory=list)

    name = "pupil"

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        self.stretches.append((idle_since_us, demand_at_us, others))

    def descent(self, idle_since_us: int) -> Descent:
        return Descent((Rung(Tier.FROZEN, idle_since_us + 30 * S),))

    def woke(self, waits_us):
        self.waits_us.append(list(waits_us))

    def wakes_took(self, tier, recent_us):
        self.wakes_us.append((tier, tuple(recent_us)))

    def park_took(self, tier, took_us):
        self.parks_us.append((tier, took_us))


class Meter(Pupil):
    """One that also follows the provider's meter."""

    def __init__(self):
        super().__init__()
        self.told = []

    def metered(self, at_us, *, running):
        self.told.append((at_us, running))


def cell_of(replica=None, queue=None) -> Cell:
    return Cell(replica or ready(), queue or HoldQueue())


def unlimited(**others) -> Cell:
    return cell_of(ready(settings=settings(max_concurrency=0), **others))


def test_a_cell_begins_with_what_is_known():
    """What its predecessor learned before a restart."""
    pupil = Pupil()
    cell = Cell(parked(policy=pupil), HoldQueue(), quiet_since_us=T0 - S, gaps_us=(7,), wakes_us=range(1_001))
    assert list(cell.wakes_us) == [*range(1, 1_001)]
    cell.feed(demand(1), T0)
    assert pupil.stretches == [(T0 - S, T0, 0)] and list(cell.level.gaps_us) == [7, S]


def test_only_the_last_gaps_are_kept():
    assert list(DemandLevel(Pupil(), NoFloor(), None, range(201)).gaps_us) == [*range(1, 201)]


def test_a_parked_replica_grants_no_lease():
    assert cell_of(parked()).claim(T0) is None


def test_nobody_overtakes_those_who_wait():
    cell = cell_of(ready(in_flight=2))
    cell.feed(demand(7), T0)
    assert cell.claim(T0) is None and cell.replica.load.in_flight == 2


def test_busy_and_idle_open_spans():
    cell = unlimited()
    assert cell.claim(T0) == (ChangeCause(cause=SERVING),)
    assert cell.claim(T0 + 1) == ()
    assert cell.give_back(cell.generation, T0 + 2) == ()
    assert cell.give_back(cell.generation, T0 + 3) == (ChangeCause(cause=LINGER),)
    span = cell.open_span()
    assert span == SpanOpened(replica=ReplicaId("m-0"), at_us=T0 + 3, cause=LINGER, why="fixed 30 s")
    cell.claim(T0 + 4)
    assert cell.open_span() == SpanOpened(replica=ReplicaId("m-0"), at_us=T0 + 4, cause=SERVING)


def test_the_reason_of_idle_time_is_that_of_its_beginning():
    cell = unlimited(policy=Ahead(), floor=Between(T0 + 50 * S, T0 + 60 * S))
    for at_us, cause, why in ((T0 + 3, LINGER, f"ahead: idle since {T0 + 3}"), (T0 + 55 * S, FLOOR, "day")):
        cell.claim(at_us - 1)
        cell.give_back(cell.generation, at_us)
        assert (cell.open_span().cause, cell.open_span().why) == (cause, why)


def test_a_floor_is_the_cause_of_idle_time():
    cell = unlimited(floor=Always())
    cell.claim(T0)
    assert cell.give_back(cell.generation, T0 + 1) == (ChangeCause(cause=FLOOR),)
    assert cell.open_span().why == "always"


def test_idle_begins_with_the_last_return():
    cell = unlimited()
    cell.claim(T0)
    cell.claim(T0)
    cell.give_back(cell.generation, T0 + 10)
    assert cell.replica.load.idle_since_us == T0
    cell.give_back(cell.generation, T0 + 20)
    assert cell.replica.load.idle_since_us == T0 + 20
    assert cell.next_tick_us(T0 + 20) == T0 + 20 + 30 * S


def test_a_void_lease_only_ends_its_request():
    cell = unlimited()
    cell.claim(T0)
    old = cell.generation
    cell.feed(EngineLost(generation=old, why="signal 9"), T0 + 1)
    assert (cell.replica.load.in_flight, cell.level.quiet_since_us) == (0, None), (
        "its client does not know yet"
    )
    assert cell.give_back(old, T0 + 2) == ()
    assert cell.level.quiet_since_us == T0 + 2


def test_a_return_serves_whoever_waits():
    cell = cell_of(ready(in_flight=2))
    cell.feed(demand(7), T0)
    assert granted(cell.give_back(cell.generation, T0 + 1)) == [7]


def test_the_last_return_of_a_drain_parks():
    cell = cell_of(ready(in_flight=1))
    cell.feed(ParkAsked(tier=Tier.FROZEN), T0)
    assert cell.replica.state is State.DRAINING
    assert [type(effect) for effect in doing(cell.give_back(cell.generation, T0 + 1))] == [StartPark]


def test_the_last_return_of_a_drain_is_booked_now():
    cell = cell_of(ready(in_flight=1))
    cell.feed(ParkAsked(tier=Tier.FROZEN), T0)
    assert entries(cell.give_back(cell.generation, T0 + 1), SpanOpened)[0].at_us == T0 + 1


@pytest.mark.parametrize("floor", [NoFloor(), Always()])
def test_an_idle_span_is_opened_once(floor):
    cell = unlimited(floor=floor)
    cell.claim(T0)
    cell.give_back(cell.generation, T0 + 1)
    assert cell.feed(Tick(), T0 + 2) == []


def test_a_backed_replica_knows_it():
    cell = unlimited()
    for backed in (True, False):
        cell.back(backed=backed, helped=False)
        assert cell.replica.backed is backed


def test_a_closing_replica_takes_nobody():
    """Somebody came to the queue through another replica of the model, which closes a moment later."""
    queue = HoldQueue()
    closing, other = cell_of(ready(in_flight=1), queue), cell_of(parked(), queue)
    closing.feed(Close(action="leave", why="restart"), T0)
    other.feed(demand(7), T0)
    assert granted(closing.give_back(closing.generation, T0 + 1)) == []


def test_a_limit_parks_an_idle_replica_off_its_host():
    """Also where the ladder knows only a tier that is paid; nothing but the park is booked."""
    cell = cell_of(ready(in_flight=1, settings=settings(park=ParkSettings(ladder=(Tier.ASLEEP,)))))
    assert not cell.feed(SpendChanged(blocked=Blocked(until_us=T0 + S, why="day")), T0)
    effects = cell.give_back(cell.generation, T0 + 1)
    assert (causes(effects), parks(effects)) == (["park"], [(None, Tier.COLD)])


def test_a_tick_is_due_when_a_floor_begins():
    cell = unlimited(floor=Between(T0 + 5, T0 + 9))
    assert [cell.next_tick_us(at) for at in (T0, T0 + 6)] == [T0 + 5, T0 + 9]


def test_a_budget_begun_by_another_cell_is_known():
    """A second replica drains while those who wait have none with it."""
    queue = HoldQueue()
    busy, other = cell_of(ready(in_flight=2), queue), cell_of(ready(in_flight=2), queue)
    busy.feed(demand(7), T0)
    assert busy.next_tick_us(T0) == T0 + 400 * S, "the age of the queue"
    other.feed(ParkAsked(tier=Tier.FROZEN, firm=True), T0)
    assert busy.next_tick_us(T0) == busy.replica.budget_ends_us == T0 + 60 * S


def test_other_requests_are_counted_once():
    pupil = Pupil()
    cell = unlimited(policy=pupil)
    for at, claims in ((1, 3), (10, 1), (20, 2)):
        for _ in range(claims):
            cell.claim(T0 + at)
        for _ in range(claims):
            cell.give_back(cell.generation, T0 + at + 5)
    assert pupil.stretches == [(T0 + 6, T0 + 10, 2), (T0 + 15, T0 + 20, 0)]


def test_a_stretch_ends_with_a_held_request():
    pupil = Pupil()
    cell = unlimited(policy=pupil)
    cell.claim(T0)
    cell.give_back(cell.generation, T0 + 1)
    cell.feed(Tick(), T0 + 31 * S)
    cell.feed(ParkSucceeded(generation=cell.generation), T0 + 35 * S)
    cell.feed(demand(1), T0 + 50 * S)
    assert pupil.stretches == [(T0 + 1, T0 + 50 * S, 0)]
    cell.feed(Withdrawn(hold=HoldId(1)), T0 + 60 * S)
    cell.feed(WakeSucceeded(generation=cell.generation), T0 + 70 * S)
    cell.claim(T0 + 80 * S)
    assert pupil.stretches[1:] == [(T0 + 60 * S, T0 + 80 * S, 0)]
    assert list(cell.level.gaps_us) == [50 * S - 1, 20 * S]


def test_policies_learn_how_long_things_took():
    pupil = Pupil()
    cell = cell_of(parked(policy=pupil))
    cell.feed(demand(1), T0)
    cell.feed(demand(2), T0 + 2 * S)
    cell.feed(WakeSucceeded(generation=cell.generation), T0 + 5 * S)
    assert pupil.waits_us == [[5 * S, 3 * S]]
    assert pupil.wakes_us == [(Tier.COLD, (5 * S,))]
    for _ in range(2):
        cell.give_back(cell.generation, T0 + 6 * S)
    cell.feed(Tick(), T0 + 36 * S)
    cell.feed(ParkSucceeded(generation=cell.generation), T0 + 40 * S)
    assert pupil.parks_us == [(Tier.FROZEN, 4 * S)]
    assert list(cell.wakes_us) == [5 * S]


def test_a_stale_report_teaches_nothing():
    pupil = Pupil()
    cell = cell_of(parked(policy=pupil))
    cell.feed(demand(1), T0)
    assert not cell.feed(WakeSucceeded(generation=cell.generation - 1), T0 + S)
    cell.feed(ParkSucceeded(generation=cell.generation), T0 + S)
    assert not (pupil.wakes_us or pupil.parks_us or cell.wakes_us)


def test_overlapping_bridges_are_one_busy_time():
    pupil = Pupil()
    cell = cell_of(parked(policy=pupil))
    assert cell.bridge("key", T0)
    assert cell.bridge("key", T0 + S) == (), "the wake is under way already"
    cell.bridge_over(T0 + 2 * S)
    assert cell.level.quiet_since_us is None
    cell.bridge_over(T0 + 9 * S)
    assert cell.level.quiet_since_us == T0 + 9 * S
    assert cell.bridge("key", T0 + 20 * S) == ()
    assert pupil.stretches == [(T0 + 9 * S, T0 + 20 * S, 0)]


def test_a_ready_replica_is_not_bridged():
    assert cell_of(ready()).bridge("key", T0) is None


def test_cells_of_a_model_share_a_queue():
    queue = HoldQueue()
    waking, busy = cell_of(parked(), queue), cell_of(ready(in_flight=2), queue)
    waking.feed(demand(7), T0)
    assert busy.claim(T0) is None, "someone waits"
    assert granted(busy.give_back(busy.generation, T0 + 1)) == [7]
    assert not waking.replica.holds and waking.replica.budget_ends_us is None


def test_a_step_opens_its_span_now():
    meter = Meter()
    cell = cell_of(parked(policy=meter))
    cell.feed(WakeAsked(), T0 + 5)
    assert (cell.since_us, meter.told) == (T0 + 5, [(T0 + 5, True)])


def test_a_level_learns_when_the_meter_began():
    cell, meter = cell_of(parked()), Meter()
    cell.feed(WakeAsked(), T0 + 5)
    cell.feed(WakeSucceeded(generation=cell.generation), T0 + 9)
    cell.take(DemandLevel(meter, NoFloor(), None, ()))
    assert meter.told == [(T0 + 4, False), (T0 + 5, True)]


def test_a_level_brings_its_policy_and_floor():
    cell, level = cell_of(ready()), DemandLevel(Ahead(), Always(), None, ())
    cell.take(level)
    assert (cell.replica.policy, cell.replica.floor) == (level.policy, level.floor)


def test_leases_of_all_lost_engines_are_waited_for():
    cell = unlimited()
    lost = []
    for leases in (2, 1):
        for _ in range(leases):
            cell.claim(T0)
            lost.append(cell.generation)
        cell.feed(EngineLost(generation=cell.generation, why="signal 9"), T0)
        cell.feed(WakeAsked(), T0 + 100 * S)
        cell.feed(WakeSucceeded(generation=cell.generation), T0 + 100 * S)
    for at_us, generation in enumerate(lost, T0 + 200 * S):
        assert cell.level.quiet_since_us is None
        cell.give_back(generation, at_us)
    assert cell.level.quiet_since_us == T0 + 200 * S + 2


def test_a_tick_is_due_for_those_of_another_cell():
    queue = HoldQueue()
    waking, busy = cell_of(parked(), queue), cell_of(ready(in_flight=2), queue)
    assert busy.next_tick_us(T0) is None
    waking.feed(demand(7), T0)
    assert busy.next_tick_us(T0) == T0 + 60 * S, "the wake budget"


def test_a_replica_found_parked_goes_on():
    cell = cell_of(parked(load=Load(0, T0 - S)))
    span = cell.found_parked(Tier.FROZEN, T0 + 5)
    assert span == SpanOpened(replica=ReplicaId("m-0"), at_us=T0 + 5, cause="parked.frozen", tier=Tier.FROZEN)
    assert (cell.since_us, cell.replica.tier, cell.open) == (T0 + 5, Tier.FROZEN, False)
    assert cell.replica.load == Load(0, T0 - S, "parked.frozen"), "its idle time goes on"


def test_a_replica_found_running_is_ready():
    meter = Meter()
    cell = cell_of(parked(floor=Between(T0, T0 + S), policy=meter))
    span = cell.found_ready(T0 + 9)
    assert span == SpanOpened(replica=ReplicaId("m-0"), at_us=T0 + 9, cause=FLOOR, why="day")
    assert cell.replica.load == Load(0, T0 + 9, FLOOR) and cell.replica.ready_since_us == T0 + 9
    assert (cell.since_us, meter.told) == (T0 + 9, [(T0 + 9, True)])
    assert cell.claim(T0 + 10) and cell.replica.state is State.READY


def test_a_replica_found_running_lingers_by_policy():
    cell = cell_of(parked(policy=Ahead()))
    span = cell.found_ready(T0 + 1)
    assert (span.cause, span.why) == (LINGER, f"ahead: idle since {T0 + 1}")
    assert cell.next_tick_us(T0) == T0 + 1 + 10 * S


def test_relaxing_begins_a_quiet_stretch_once():
    cell = unlimited()
    cell.relax(T0)
    assert cell.level.quiet_since_us is None, "it was never busy"
    queue = HoldQueue()
    cell = cell_of(parked(), queue)
    cell.feed(demand(1), T0)
    queue.holds = ()  # another replica of the model took it
    cell.relax(T0 + 7)
    cell.relax(T0 + 8)
    assert (cell.level.quiet_since_us, cell.busy) == (T0 + 7, False)


def test_a_bridged_request_begins_a_wake():
    (began,) = entries(cell_of(parked()).bridge("alice", T0), WakeBegan)
    assert (began.asked_by, began.why, began.held) == ("alice", "demand", 0)


def test_a_bridged_request_respects_the_back_off():
    cell = cell_of(parked(retry_at_us=T0 + 1))
    assert cell.bridge("alice", T0) == []
    assert entries(cell.bridge("alice", T0 + 1), WakeBegan)


def test_new_settings_bind_at_once():
    cell = cell_of(ready(in_flight=1, settings=settings(max_concurrency=1)))
    began_us = cell.open_span().at_us
    assert cell.claim(T0) is None
    cell.configure(settings(max_concurrency=0, target_concurrency=2))
    assert [cell.claim(T0 + 2) for _ in range(3)] == [()] * 3
    cell.back(backed=False, helped=True)
    assert cell.claim(T0 + 3) is None, "another can take it"
    cell.configure(settings(max_concurrency=0, target_concurrency=5))
    assert cell.claim(T0 + 5) == () and cell.claim(T0 + 5) is None
    assert cell.open_span().at_us == began_us, "what is under way goes on"


@given(limit=st.integers(0, 3), claims=st.lists(st.booleans(), max_size=50))
def test_the_count_stays_within_the_limit(limit: int, claims: list[bool]):
    cell = cell_of(ready(settings=settings(max_concurrency=limit)))
    out = 0
    for claims_one in claims:
        if claims_one:
            got = cell.claim(T0) is not None
            assert got == (limit == 0 or out < limit)
            out += got
        elif out:
            cell.give_back(cell.generation, T0)
            out -= 1
        assert cell.replica.load.in_flight == out
