"""One spelling for what people read, and what is printed can be typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.format import (
    DAY_US,
    counted,
    decimal,
    duration,
    duration_us,
    exact_money,
    moment,
    money,
    percent,
    size,
    table,
)
from poorwill.core.money import nusd

LENGTHS = st.integers(0, 400 * DAY_US) | st.integers(0, 120_000_000)
AMOUNTS = st.integers(0, 10**15) | st.integers(0, 2 * 10**9)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 s"),
        (412, "412 us"),
        (24_100, "24.1 ms"),
        (99_960, "0.1 s"),
        (430_000, "0.43 s"),
        (9_994_000, "9.99 s"),
        (12_345_678, "12.3 s"),
        (59_960_000, "1m"),
        (312_000_000, "5m 12s"),
        (3_571_000_000, "59m 31s"),
        (7_500_000_000, "2h 05m"),
        (76 * 3_600_000_000, "3d 04h"),
        (-1_500_000, "-1.5 s"),
        (None, "-"),
    ],
)
def test_durations(us, text: str):
    assert duration(us) == text


@given(LENGTHS, LENGTHS)
def test_longer_never_reads_as_shorter(one: int, other: int):
    least, most = sorted((one, other))
    assert duration_us(duration(least)) <= duration_us(duration(most))


@given(LENGTHS)
def test_a_printed_duration_reads_back(us: int):
    read = duration_us(duration(us))
    assert abs(read - us) <= max(us * 0.02, 1)
    assert duration_us(duration(read)) == read
    assert duration_us(duration(-us)) == -read


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("5m", 300_000_000),
        ("1h30m", 5_400_000_000),
        ("2.5", 2_500_000),
        ("1,000 s", 10**9),
        ("3 min", 180_000_000),
    ],
)
def test_durations_are_read_as_typed(text: str, us: int):
    assert duration_us(text) == us


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "1.2.3 s", "--5 s", "nan", "5m!"])
def test_nonsense_is_no_duration(text: str):
    with pytest.raises(ValueError, match="is not a duration"):
        duration_us(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999.9e6, "1 GB"),
        (1.94e9, "1.94 GB"),
        (140e9, "140 GB"),
        (2.5e15, "2,500 TB"),
    ],
)
def test_sizes(count: float, text: str):
    assert size(count) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (310_000, "$0.00031"),
        (431_200_000, "$0.431"),
        (500_000_000, "$0.50"),
        (999_999_999, "$1.00"),
        (1_204_504_999_999, "$1,204.50"),
        (-3_800_000_000, "-$3.80"),
    ],
)
def test_money_has_the_digits_that_matter(amount: int, text: str):
    assert money(amount) == text


@given(AMOUNTS, AMOUNTS)
def test_more_money_never_reads_as_less(one: int, other: int):
    least, most = (nusd(money(amount)[1:].replace(",", "")) for amount in sorted((one, other)))
    assert least <= most


@given(st.integers(-(10**15), 10**15))
def test_exact_money_is_exact(amount: int):
    assert nusd(decimal(amount)) == amount
    assert nusd(exact_money(amount).replace("$", "").replace(",", "")) == amount


def test_other_currencies():
    assert (money(2_500_000_000, "EUR"), money(2_500_000_000, "CHF")) == ("€2.50", "CHF 2.50")


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0, "0.0%"), (0.0001, "<0.1%"), (0.431, "43.1%"), (0.9999, ">99.9%"), (1, "100.0%")],
)
def test_shares_never_round_to_all_or_nothing(share, text: str):
    assert percent(share) == text


def test_counts_and_times():
    assert (counted(1, "wake"), counted(1204, "wake")) == ("1 wake", "1,204 wakes")
    assert moment(1_796_004_452_000_000) == "2026-11-30 02:07:32 UTC"


def test_columns_line_up():
    rows = [("model", "cost", "why"), ("m", "$10.52", "x"), ("", "", ""), ("longer", "$1.00", "")]
    assert table(rows, "<><", indent="  ") == [
        "  model     cost  why",
        "  m       $10.52  x",
        "",
        "  longer   $1.00",
    ]
    assert table([]) == []
