"""Units and zones of times are told apart by plausibility, said aloud, and asked for when they are not."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.errors import OperatorFault
from poorwill.hosts.files.traces.instants import TimeColumn

S = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SINCE_2005 = st.integers(1_100_000_000, 3_900_000_000)


def column(texts, **stated):
    made = TimeColumn(name="ts", **stated)
    for text in texts:
        assert made.add(text) == ""
    return made


def read(made):
    us, good = made.microseconds(made.meaning())
    assert good.all()
    return us.tolist()


@given(st.lists(SINCE_2005, min_size=1))
def test_one_instant_in_every_unit(seconds):
    dates = [datetime.fromtimestamp(at, UTC).isoformat() for at in seconds]
    wanted = [at * S for at in seconds]
    for written in (
        [str(at) for at in seconds],
        [f"{at}.0" for at in seconds],
        [str(at * 1000) for at in seconds],
        [str(at * S) for at in seconds],
        [str(at * 1000 * S) for at in seconds],
        dates,
        [date.replace("+00:00", "Z") for date in dates],
        [date.replace("+00:00", "").replace("T", " ") for date in dates],
    ):
        assert read(column(written)) == wanted


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_times_from_the_start_are_asked_for(values):
    made = column([str(value) for value in [0, *values]])
    try:
        meaning = made.meaning()
    except OperatorFault as fault:
        assert "in which unit?" in fault.message and "arrival=ts:s, or :ms" in (fault.hint or "")
    else:
        assert meaning.dated  # nine in ten are times since 1970: the 0 is a mistake


@pytest.mark.parametrize(("unit", "us"), [("s", S), ("ms", 1000), ("us", 1)])
def test_a_stated_unit_is_taken(unit, us):
    made = column(["0", "1500", "2000000000"], unit=unit, stated=True)
    assert made.microseconds(made.meaning())[0].tolist()[:2] == [0, 1500 * us]


def test_the_unit_is_said():
    assert column(["1793610468000"]).meaning().words == "ts counts milliseconds since 1970"
    zoneless = column(["2026-11-02 09:00"])
    assert zoneless.meaning().words == "ts has dates without a zone, read as UTC"


def test_a_name_with_seconds_may_hold_ms():
    assert read(column(["1793610468000"], unit="s")) == [1_793_610_468 * S]


def test_a_zone_can_be_stated():
    made = column(["2026-07-01T12:00"], zone=ZoneInfo("Europe/Berlin"))
    assert read(made) == [(datetime(2026, 7, 1, 10, tzinfo=UTC) - EPOCH) // (EPOCH.resolution)]


def test_mixed_zones_are_asked_for():
    with pytest.raises(OperatorFault, match="which zone is theirs"):
        column(["2026-07-01T12:00", "2026-07-01T12:00Z"]).meaning()


def test_strays_are_bad_and_not_guessed():
    made = column([*["1793610468"] * 20, "0", "1793610468000"])
    _, good = made.microseconds(made.meaning())
    assert good.tolist() == [True] * 20 + [False] * 2
    made = column([*["2026-07-01"] * 3, "17"])
    assert made.microseconds(made.meaning())[1].tolist() == [True] * 3 + [False]


@pytest.mark.parametrize("text", ["", "soon", "nan", "1e999"])
def test_what_is_no_time_is_named(text):
    assert "ts is" in TimeColumn(name="ts").add(text)
