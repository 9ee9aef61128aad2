"""`policies.coldstart.anatomy`: whatever the marks, the leaves tile the wake exactly."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.launch import PhaseMark
from poorwill.core.words import Phase
from poorwill.policies.coldstart.anatomy import MOST_LEAVES, anatomy
from poorwill.policies.coldstart.anatomy_tree import PHASE_GROUP, tree
from poorwill.policies.coldstart.leaves import as_marks, totals

MS = 1_000

instants = st.integers(min_value=-50, max_value=250)
marks = st.builds(
    lambda phase, at, took, read, detail: PhaseMark(
        phase=phase,
        at_us=at,
        ended_us=None if took is None else at + took,
        bytes_read=read,
        detail=detail,
    ),
    st.sampled_from(Phase),
    instants,
    st.none() | st.integers(min_value=-10, max_value=200),
    st.none() | st.integers(min_value=0, max_value=9),
    st.sampled_from(["", "a", "b"]),
)


def mark(phase: Phase, at_ms: int, ended_ms: int | None = None, detail: str = "") -> PhaseMark:
    ended = None if ended_ms is None else ended_ms * MS
    return PhaseMark(phase=phase, at_us=at_ms * MS, ended_us=ended, detail=detail)


def shown(spans) -> list[tuple[str, int, int]]:
    return [(str(span.phase), span.began_us // MS, span.ended_us // MS) for span in spans]


@given(st.lists(marks, max_size=40), st.integers(0, 100), st.integers(0, 100))
def test_leaves_tile_the_wake_exactly(marks, began_us, length_us):
    spans = anatomy(marks, began_us, began_us + length_us)
    if length_us == 0:
        assert spans == ()
        return
    assert spans[0].began_us == began_us
    assert spans[-1].ended_us == began_us + length_us
    assert all(left.ended_us == right.began_us for left, right in pairwise(spans))
    assert all(span.ended_us > span.began_us for span in spans)


@given(st.lists(marks, max_size=40))
def test_leaves_given_as_marks_make_the_same_leaves(marks):
    spans = anatomy(marks, 0, 200)
    assert anatomy(as_marks(spans), 0, 200) == spans


@given(st.lists(marks, max_size=40))
def test_a_known_duration_is_attributed(marks):
    told = [
        m
        for m in marks
        if m.ended_us is not None and m.ended_us > m.at_us and m.phase is not Phase.UNATTRIBUTED
    ]
    for span in anatomy(marks, 0, 200):
        if span.phase is Phase.UNATTRIBUTED:
            assert not any(m.at_us < span.ended_us and m.ended_us > span.began_us for m in told)


@given(st.lists(marks, max_size=40))
def test_no_byte_is_counted_twice(marks):
    given_bytes = sum(m.bytes_read or 0 for m in marks)
    assert sum(span.bytes_read or 0 for span in anatomy(marks, 0, 200)) <= given_bytes


@given(st.lists(marks, max_size=40))
def test_every_level_of_the_tree_sums_to_the_whole(marks):
    spans = anatomy(marks, 0, 200)

    def check(branch) -> None:
        if branch.children:
            assert sum(child.took_us for child in branch.children) == branch.took_us
        for child in branch.children:
            check(child)

    root = tree(spans)
    check(root)
    assert root.took_us == 200 == sum(totals(spans).values())


def test_every_phase_has_a_group():
    assert set(PHASE_GROUP) == set(Phase)


def test_a_late_phase_is_nested():
    marks = [
        mark(Phase.WARMUP, 2, 12, "engine initialisation"),
        mark(Phase.COMPILE_MISS, 3, 8),
        mark(Phase.COMPILE_MISS, 3, 5, "dynamo"),
        mark(Phase.GRAPHS, 9, 11),
    ]
    assert shown(anatomy(marks, 0, 13 * MS)) == [
        ("unattributed", 0, 2),
        ("warmup", 2, 3),
        ("compile_miss", 3, 5),
        ("compile_miss", 5, 8),
        ("warmup", 8, 9),
        ("graphs", 9, 11),
        ("warmup", 11, 12),
        ("unattributed", 12, 13),
    ]


def test_phases_of_workers_are_not_added():
    marks = [mark(Phase.WEIGHTS, 1, 6), mark(Phase.WEIGHTS, 2, 7), mark(Phase.WEIGHTS, 0, 5)]
    assert shown(anatomy(marks, 0, 10 * MS)) == [("weights", 0, 7), ("unattributed", 7, 10)]


def test_a_phase_may_end_in_the_unknown():
    marks = [mark(Phase.GRAPHS, 1), mark(Phase.UNATTRIBUTED, 4)]
    assert shown(anatomy(marks, 0, 6 * MS)) == [
        ("unattributed", 0, 1),
        ("graphs", 1, 4),
        ("unattributed", 4, 6),
    ]


def test_a_flood_of_marks_is_merged():
    marks = [mark(Phase.WEIGHTS, i, detail=f"shard {i}") for i in range(5000)]
    spans = anatomy(marks, 0, 5000 * MS)
    assert len(spans) <= MOST_LEAVES
    assert shown(spans) == [("weights", 0, 5000)]
