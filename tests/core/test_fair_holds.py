"""No key can shut out the others: they are served in turn, and the one with the most makes room."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.errors import ErrorCode
from poorwill.core.machine.effects import Fail
from poorwill.core.machine.holds import Hold, displaced, in_turn
from poorwill.core.settings import HoldSettings
from poorwill.core.words import HoldId

from .replicas import Life, demand, failed, parked, settings, waking

KEYS = st.sampled_from(["alice", "bob", "carol"])
ARRIVALS = st.lists(st.tuples(KEYS, st.integers(0, 50), st.booleans()), max_size=40)


def hold(number: int, key: str, size: int = 1) -> Hold:
    return Hold(id=HoldId(number), arrived_us=number, size_bytes=size, asked_by=key, request=f"r{number}")


def test_one_key_alone_is_served_in_order() -> None:
    queue: tuple[Hold, ...] = ()
    for number in range(5):
        queue = in_turn(queue, hold(number, "alice"))
    assert [held.id for held in queue] == [0, 1, 2, 3, 4]


def test_a_flood_delays_others_by_one_turn() -> None:
    queue: tuple[Hold, ...] = ()
    for number in range(100):
        queue = in_turn(queue, hold(number, "alice"))
    for number in range(100, 104):
        queue = in_turn(queue, hold(number, "bob" if number % 2 else "carol"))
    assert [held.asked_by for held in queue[:7]] == ["alice", "carol", "bob"] * 2 + ["alice"]


def test_a_higher_priority_is_served_first() -> None:
    queue: tuple[Hold, ...] = ()
    for number, key in enumerate(["alice", "alice", "bob", "carol", "bob"]):
        queue = in_turn(queue, replace(hold(number, key), priority=key == "bob"))
    assert [held.id for held in queue] == [2, 4, 0, 3, 1]


def test_a_key_brings_its_priority() -> None:
    life = Life(parked())
    for number, priority in enumerate([0, 0, 7]):
        life.takes(replace(demand(number), asked_by=f"k{number}", priority=priority))
    assert [held.id for held in life.replica.holds] == [2, 0, 1]


def test_a_lower_priority_makes_room() -> None:
    queue = tuple(replace(hold(number, f"k{number}"), priority=number) for number in range(3))
    bounds = HoldSettings(count=3, bytes=100)
    assert [held.id for held in displaced(queue, replace(hold(9, "vip"), priority=5), bounds)] == [0]
    assert displaced(queue, replace(hold(9, "poor"), priority=-1), bounds) == ()


def test_what_is_short_decides_who_makes_room() -> None:
    """Bytes or places: the key with the most of what there is too little of."""
    queue = (hold(0, "alice", 60), hold(1, "bob", 10), hold(2, "bob", 10), hold(3, "bob", 10))
    newcomer = hold(9, "carol", 10)

    def gone(count: int, size: int) -> list[int]:
        return [held.id for held in displaced(queue, newcomer, HoldSettings(count=count, bytes=size))]

    assert gone(9, 99) == [0], "one byte short"
    assert gone(4, 100) == [3], "bytes suffice, a place is missing"
    assert gone(9, 100) == []


def test_a_queue_is_full_beyond_its_bytes() -> None:
    life = Life(parked(settings=settings(hold=HoldSettings(count=9, bytes=10))))
    assert [failed(life.takes(demand(number, size=size))) for number, size in enumerate((4, 6, 1))] == [
        [],
        [],
        [(2, ErrorCode.HOLD_QUEUE_FULL)],
    ]


def test_a_big_request_does_not_crowd_out_small_ones() -> None:
    """It alone has more bytes than they have together, so its key has the larger share."""
    queue = (hold(0, "bob", 2), hold(1, "bob", 2))
    assert displaced(queue, hold(9, "carol", 6), HoldSettings(count=9, bytes=9)) == ()


def test_as_many_make_room_as_it_takes() -> None:
    queue = tuple(hold(number, "alice", 10) for number in range(4))
    newcomer = hold(9, "bob", 10)

    def gone(count: int, size: int) -> list[int]:
        return [held.id for held in displaced(queue, newcomer, HoldSettings(count=count, bytes=size))]

    assert gone(9, 40) == [3] and gone(9, 39) == [3, 2] and gone(9, 30) == [3, 2]
    assert gone(4, 99) == [3] and gone(3, 99) == [3, 2]
    assert gone(9, 10) == [3, 2, 1, 0] and gone(9, 9) == []


def test_equal_shares_make_no_room() -> None:
    queue = (hold(0, "alice"), hold(1, "bob"))
    assert displaced(queue, hold(2, "carol"), HoldSettings(count=2, bytes=100)) == ()
    assert displaced(queue[:1], hold(2, "carol", 99), HoldSettings(count=9, bytes=99)) == ()
    assert [
        held.id for held in displaced((*queue, hold(2, "bob")), hold(3, "carol"), HoldSettings(count=3))
    ] == [2]
    assert displaced((*queue, hold(2, "alice")), hold(3, "bob"), HoldSettings(count=3, bytes=100)) == ()


@given(ARRIVALS)
def test_turns_stay_fair(arrivals: list[tuple[str, int, bool]]) -> None:
    """Whatever arrives and is served, each key's n-th request comes before every (n+1)-th."""
    queue: tuple[Hold, ...] = ()
    for number, (key, size, serve) in enumerate(arrivals):
        queue = in_turn(queue, hold(number, key, size))
        seen, turns = Counter[str](), []
        for held in queue:
            turns.append(seen[held.asked_by])
            seen[held.asked_by] += 1
        assert turns == sorted(turns)
        for key in seen:
            ids = [held.id for held in queue if held.asked_by == key]
            assert ids == sorted(ids)
        if serve:
            queue = queue[1:]


@given(ARRIVALS, st.integers(0, 8), st.integers(0, 100))
def test_the_bounds_always_hold(arrivals: list[tuple[str, int, bool]], count: int, size: int) -> None:
    bounds, queue = HoldSettings(count=count, bytes=size), tuple[Hold, ...]()
    for number, (key, own, _) in enumerate(arrivals):
        new = hold(number, key, own)
        full = len(queue) >= count or sum(held.size_bytes for held in queue) + own > size
        if full:
            gone = displaced(queue, new, bounds)
            assert all(held.asked_by != key for held in gone)
            queue = tuple(held for held in queue if held not in gone)
            if not gone:
                continue
        queue = in_turn(queue, new)
        assert len(queue) <= count and sum(held.size_bytes for held in queue) <= size


def test_the_biggest_key_makes_room() -> None:
    life = Life(waking(holds=3))
    effects = life.takes(replace(demand(3), asked_by="other"))
    [crowded_out] = [effect for effect in effects if isinstance(effect, Fail)]
    assert (crowded_out.hold, crowded_out.code) == (2, ErrorCode.RATE_LIMITED)
    assert crowded_out.message == (
        "the hold queue is full, and this key has more requests in it, or less priority"
    )
    effects = life.takes(demand(4))
    [crowded_out] = [effect for effect in effects if isinstance(effect, Fail)]
    assert (crowded_out.hold, crowded_out.code) == (4, ErrorCode.HOLD_QUEUE_FULL)
