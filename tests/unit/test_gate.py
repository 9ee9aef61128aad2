"""The gate counts, and lets in whom it may."""

from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.machine.gate import Gate, Load
from poorwill.core.words import LINGER


def test_a_closed_gate_lets_nobody_in():
    assert not Gate(limit=0).claim()


def test_nobody_overtakes_those_who_wait():
    gate = Gate(limit=0, open=True, waiting=1)
    assert not gate.claim() and gate.in_flight == 0


def test_idle_begins_with_the_last_return_only():
    gate = Gate(limit=0, open=True)
    assert gate.claim() and gate.claim()
    assert not gate.give_back(10) and gate.idle_since_us == 0
    assert not gate.give_back(20) and gate.idle_since_us == 20


def test_who_came_beside_the_first_is_counted_once():
    gate = Gate(limit=0, open=True)
    assert gate.claim() and gate.others() == 0  # the first: it ends an idle stretch
    assert gate.claim() and gate.claim()
    for _ in range(3):
        gate.give_back(1)
    assert gate.claim() and gate.others() == 2
    gate.give_back(2)
    assert gate.others() == 0  # the next one finds it parked, and is held


def test_a_return_is_told_where_somebody_waits_or_the_gate_is_closed():
    waited_for = Gate(limit=1, open=True, waiting=1, in_flight=1)
    assert waited_for.give_back(1)
    closed = Gate(limit=1, open=False, in_flight=2)
    assert closed.give_back(1)


def test_a_step_sees_what_the_gate_has_seen():
    gate = Gate(limit=1, in_flight=1, idle_since_us=7, cause=LINGER)
    assert gate.load() == Load(1, 7, LINGER)


@given(limit=st.integers(0, 3), claims=st.lists(st.booleans(), max_size=50))
def test_the_count_stays_within_the_limit(limit: int, claims: list[bool]):
    gate = Gate(limit=limit, open=True)
    out = 0
    for claims_one in claims:
        if claims_one:
            got = gate.claim()
            assert got == (limit == 0 or out < limit)
            out += got
        elif out:
            gate.give_back(0)
            out -= 1
        assert gate.in_flight == out
