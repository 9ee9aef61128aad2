"""Who gives way: as few as needed, the least worth first, nobody who must not."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.placement import MIN_RESIDENCE_US, Occupant, choose_victims
from poorwill.core.words import ModelName

NOW = 1_000_000_000
NAMES = (ModelName(f"m{n}") for n in itertools.count())


def occupant(name: str, size: int, **others: object) -> Occupant:
    fields: dict[str, object] = {
        "model": ModelName(name),
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


def test_a_large_one_makes_the_small_ones_before_it_superfluous():
    small = occupant("a", 2, idle_since_us=1)
    large = occupant("b", 8, idle_since_us=2)
    assert chosen([small, large], need=8) == ["b"]


occupants = st.builds(
    Occupant,
    model=st.builds(lambda: next(NAMES)),
    bytes=st.integers(0, 8),
    priority=st.integers(0, 2),
    busy=st.booleans(),
    leaving=st.booleans(),
    ready_since_us=st.sampled_from([0, NOW - 1]),
    idle_since_us=st.integers(0, 3),
)


@given(st.lists(occupants, max_size=7), st.integers(1, 10), st.integers(1, 20), st.integers(0, 2))
def test_victims_may_go_suffice_and_are_all_needed(present, need, total, priority):
    victims = choose_victims(present, need=need, total=total, priority=priority, now_us=NOW)
    by_name = {each.model: each for each in present}
    gone = [by_name[model] for model in victims]
    assert len(set(victims)) == len(victims)
    for each in gone:
        assert not (each.busy or each.leaving) and each.bytes and each.priority <= priority
        assert NOW - each.ready_since_us >= MIN_RESIDENCE_US
    missing = sum(each.bytes for each in present if not each.leaving) + need - total
    freed = sum(each.bytes for each in gone)
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
