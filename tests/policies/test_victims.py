"""Who gives way: as few as needed, the least worth first, nobody who must not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.words import ReplicaId
from poorwill.policies.placement.victims import MIN_RESIDENCE_US, Occupant, choose_victims, likelihood

NOW = 1_000_000_000
S = 1_000_000
NAMES = (ReplicaId(f"m{n}-0") for n in itertools.count())


def occupant(name: str, size: int, **others: object) -> Occupant:
    fields: dict[str, object] = {
        "replica": ReplicaId(name),
        "bytes": size,
        "priority": 0,
        "busy": False,
        "leaving": False,
        "ready_since_us": 0,
        "idle_since_us": 0,
    }
    return Occupant(**{**fields, **others})  # type: ignore[arg-type]


def chosen(occupants, *, need: int, total: int = 10, priority: int = 0) -> list[str]:
    return list(choose_victims(occupants, need=need, total=total, priority=priority, now_us=NOW))


def test_nobody_goes_where_there_is_room():
    assert chosen([occupant("a", 4)], need=6) == []


def test_the_longest_idle_goes_first():
    late, early = occupant("a", 5, idle_since_us=20), occupant("b", 5, idle_since_us=10)
    assert chosen([late, early], need=5) == ["b"]


def test_lower_priority_goes_before_longer_idle():
    low = occupant("a", 5, idle_since_us=20)
    high = occupant("b", 5, idle_since_us=10, priority=1)
    assert chosen([low, high], need=5, priority=1) == ["a"]


def test_cheap_wakes_go_before_longer_idle():
    dear = occupant("a", 5, idle_since_us=10, wake_us=60 * S)
    cheap = occupant("b", 5, idle_since_us=20, wake_us=2 * S)
    assert chosen([dear, cheap], need=5) == ["b"]


def test_hardly_wanted_goes_before_cheap():
    hot = occupant("a", 5, wake_us=2 * S, wanted_soon=0.9)
    forgotten = occupant("b", 5, wake_us=20 * S, wanted_soon=0.05)
    assert chosen([hot, forgotten], need=5) == ["b"]


def test_value_is_for_each_byte_that_comes_free():
    small = occupant("a", 2, wake_us=10 * S)
    large = occupant("b", 8, wake_us=20 * S)
    assert chosen([small, large], need=2) == ["b"]


def test_lower_priority_goes_however_valuable():
    low = occupant("a", 5, wake_us=600 * S)
    high = occupant("b", 5, wake_us=S, priority=1)
    assert chosen([low, high], need=5, priority=1) == ["a"]


def test_the_most_valuable_spare_is_kept():
    present = [
        occupant("cheap", 2, wake_us=1 * S),
        occupant("dear", 2, wake_us=2 * S),
        occupant("large", 6, wake_us=600 * S),
    ]
    assert chosen(present, need=8) == ["cheap", "large"]


@pytest.mark.parametrize(
    ("gaps_s", "idle_s", "within_s", "expected"),
    [
        ([], 5, 60, 1 / 2),
        ([10, 10, 10], 5, 60, 4 / 5),  # always wanted after ten seconds
        ([10, 10, 10], 20, 60, 1 / 2),  # never as quiet as now: nothing is known
        ([100, 100, 100], 5, 60, 1 / 5),  # always longer than that
        ([10, 100, 1000], 20, 60, 1 / 4),
        ([10, 100, 1000], 20, 90, 2 / 4),
        ([10, 100, 1000], 20, None, 3 / 4),
    ],
)
def test_likelihood_counts_gaps_this_long(gaps_s, idle_s, within_s, expected):
    within_us = None if within_s is None else within_s * S
    told = likelihood([gap * S for gap in gaps_s], idle_us=idle_s * S, within_us=within_us)
    assert told == pytest.approx(expected)


@given(st.lists(st.integers(0, 10**9)), st.integers(0, 10**9), st.integers(0, 10**9))
def test_likelihood_grows_but_is_never_one(gaps, idle, within):
    sooner = likelihood(gaps, idle_us=idle, within_us=within)
    later = likelihood(gaps, idle_us=idle, within_us=within * 2)
    assert 0 < sooner <= later <= likelihood(gaps, idle_us=idle, within_us=None) < 1


def test_nobody_gives_way_to_lower_priority():
    assert chosen([occupant("a", 10, priority=1)], need=5) == []


def test_a_busy_one_and_one_just_woken_stay():
    assert chosen([occupant("a", 10, busy=True)], need=5) == []
    fresh = occupant("a", 10, ready_since_us=NOW - MIN_RESIDENCE_US + 1)
    assert chosen([fresh], need=5) == []
    assert chosen([occupant("a", 10, ready_since_us=NOW - MIN_RESIDENCE_US)], need=5) == ["a"]


def test_what_is_leaving_counts_as_gone():
    assert chosen([occupant("a", 6, leaving=True, busy=True), occupant("b", 4)], need=6) == []


def test_nobody_goes_in_vain():
    assert chosen([occupant("a", 4), occupant("b", 5, busy=True)], need=6) == []


def test_a_large_victim_spares_small_ones():
    small = occupant("a", 2, idle_since_us=1)
    large = occupant("b", 8, idle_since_us=2)
    assert chosen([small, large], need=8) == ["b"]


occupants = st.builds(
    Occupant,
    replica=st.builds(lambda: next(NAMES)),
    bytes=st.integers(0, 8),
    priority=st.integers(0, 2),
    busy=st.booleans(),
    leaving=st.booleans(),
    ready_since_us=st.sampled_from([0, NOW - 1]),
    idle_since_us=st.integers(0, 3),
    wake_us=st.integers(0, 3 * S),
    wanted_soon=st.floats(0, 1),
)


@given(st.lists(occupants, max_size=7), st.integers(1, 10), st.integers(1, 20), st.integers(0, 2))
def test_victims_may_go_suffice_and_are_all_needed(present, need, total, priority):
    victims = choose_victims(present, need=need, total=total, priority=priority, now_us=NOW)
    by_name = {each.replica: each for each in present}
    gone = [by_name[replica] for replica in victims]
    assert len(set(victims)) == len(victims)
    for each in gone:
        assert not (each.busy or each.leaving) and each.bytes and each.priority <= priority
        assert NOW - each.ready_since_us >= MIN_RESIDENCE_US
    missing = sum(each.bytes for each in present if not each.leaving) + need - total
    freed = sum(each.bytes for each in gone)
    if len(gone) == 1:
        could_go = [
            each
            for each in present
            if each.bytes == gone[0].bytes
            and not (each.busy or each.leaving)
            and NOW - each.ready_since_us >= MIN_RESIDENCE_US
        ]
        least = min((each.priority, each.value) for each in could_go)
        assert (gone[0].priority, gone[0].value) == least, "the least valuable of its size"
    if victims:
        assert freed >= missing > 0
        assert all(freed - each.bytes < missing for each in gone), "nobody superfluous"
    else:
        may_go = sum(
            each.bytes
            for each in present
            if not (each.busy or each.leaving)
            and each.priority <= priority
            and NOW - each.ready_since_us >= MIN_RESIDENCE_US
        )
        assert missing <= 0 or may_go < missing
