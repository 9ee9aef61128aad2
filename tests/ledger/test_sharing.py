"""Busy time shared by the million: as exact as one by one, and no row by itself."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from poorwill.bill.bill import Axis, make_bill
from poorwill.core.entries import Alive
from poorwill.core.money import apportion
from poorwill.ledger.costs.sharing import whole_shares
from poorwill.ledger.dates import month
from poorwill.ledger.schema import reading

from .lives import HOUR
from .story import START, created, request, span, write

S = 1_000_000
MOST = HOUR << 20
"""The weight of a whole hour."""


@st.composite
def weighed(draw):
    """Draw rows of weights, of an hour at most together, and the length of each."""
    width = draw(st.integers(1, 7))
    weight = st.one_of(st.integers(0, 5), st.integers(0, MOST // width))
    row = st.lists(weight, min_size=width, max_size=width).filter(any)
    rows = draw(st.lists(row, min_size=1, max_size=5))
    length = st.one_of(st.integers(1, 9), st.integers(1, HOUR))
    return rows, draw(st.lists(length, min_size=len(rows), max_size=len(rows)))


@given(weighed())
def test_many_shares_are_as_exact_as_one(drawn):
    rows, lengths = drawn
    found = whole_shares(np.array(rows, np.int64), np.array(lengths, np.int64))
    assert found.tolist() == [
        apportion([weight * length for weight in row], sum(row))
        for row, length in zip(rows, lengths, strict=True)
    ]


def rows_taken(path, requests):
    """Return how many rows SQLite hands over for a bill by key of so many requests."""
    served = [request(n * S, n * S, (n + 2) * S, key=("ann", "bob")[n % 2]) for n in range(requests)]
    write(path, [created(), span(0, "serving"), *served, Alive(at_us=START + HOUR)])
    taken = []
    with reading(path) as db:
        db.row_factory = lambda _, row: taken.append(row) or row
        bill = make_bill(db, month("2027-01"), [Axis.KEY])
    assert bill.figures[0].count.requests == requests
    return len(taken)


def test_no_request_crosses_into_python_by_itself(tmp_path):
    few, many = rows_taken(str(tmp_path / "few"), 4), rows_taken(str(tmp_path / "many"), 400)
    assert few == many
