"""What the ledger says of three days is what `bills.txt` has: every item, share, request and sum."""

from pathlib import Path

import pytest

from .bills import book

WRITTEN = Path(__file__).with_name("bills.txt").read_text("utf-8")


@pytest.mark.parametrize("rolled_up", [False, True])
def test_bills_are_as_written(rolled_up):
    assert book(rolled_up=rolled_up).splitlines() == WRITTEN.splitlines(), (
        "see bills.py on how to write it anew"
    )
