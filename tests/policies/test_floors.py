"""Floors: windows of the week in a zone's own time, across changes of daylight saving."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.policy import NoFloor
from poorwill.core.settings import FloorSettings, FloorWindow
from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.policies import make_floor

BERLIN = "Europe/Berlin"


def us(text, zone=BERLIN, fold=0):
    at = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(at.timestamp() * SECOND_US)


def window(days, begin, end, zone=BERLIN, name="office"):
    return FloorWindow(days=days, start_minute=begin * 60, end_minute=end * 60, zone=zone, name=name)


def floor(*windows):
    return make_floor(FloorSettings(windows=windows), zone_of=ZoneInfo)


OFFICE = window((0, 1, 2, 3, 4), 9, 18)


def test_no_windows_are_no_floor_and_always_is_always():
    assert make_floor(FloorSettings(), zone_of=ZoneInfo) == NoFloor()
    always = make_floor(FloorSettings(always=True), zone_of=ZoneInfo).at(5)
    assert always.required and always.until_us is None


def test_business_hours_return_on_monday():
    office = floor(OFFICE)
    friday = office.at(us("2026-11-20 12:00"))
    assert friday.required and friday.until_us == us("2026-11-20 18:00") and friday.name == "office"
    evening = office.at(us("2026-11-20 18:00"))
    assert not evening.required and evening.until_us == us("2026-11-23 09:00")


def test_a_window_counts_replicas():
    settings = FloorSettings(windows=(replace(OFFICE, floor=2), window((0,), 9, 12)))
    monday, later = us("2026-03-02 10:00"), us("2026-03-02 14:00")
    for level, (early, late) in enumerate([(True, True), (True, True), (False, False)]):
        schedule = make_floor(settings, zone_of=ZoneInfo, level=level)
        assert (schedule.at(monday).required, schedule.at(later).required) == (early, late)
    ready = [make_floor(FloorSettings(), zone_of=ZoneInfo, level=n, least_ready=1) for n in range(2)]
    assert [each.at(monday).required for each in ready] == [True, False]


def test_the_zone_counts_and_not_the_machine():
    tokyo = floor(window((0, 1, 2, 3, 4), 9, 18, zone="Asia/Tokyo"))
    assert tokyo.at(us("2026-11-20 03:00", zone="UTC")).required
    assert not tokyo.at(us("2026-11-20 12:00", zone="UTC")).required


def test_a_window_belongs_to_its_first_day():
    night = floor(window((4,), 22, 6))
    saturday = night.at(us("2026-11-21 05:00"))
    assert saturday.required and saturday.until_us == us("2026-11-21 06:00")
    assert not night.at(us("2026-11-22 05:00")).required


def test_windows_that_touch_are_one():
    both = floor(window((4,), 9, 12), window((4,), 12, 18))
    assert both.at(us("2026-11-20 10:00")).until_us == us("2026-11-20 18:00")


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-22", 24)])
def test_a_whole_day_has_as_many_hours_as_the_clock_shows(day, hours):
    sunday = floor(window((6,), 0, 0))
    begin = us(f"{day} 00:00")
    answer = sunday.at(begin)
    assert answer.required and answer.until_us == begin + hours * HOUR_US


def test_a_repeated_hour_counts_twice():
    twice = floor(window((6,), 2, 3))
    first, second = us("2026-10-25 02:30"), us("2026-10-25 02:30", fold=1)
    assert second - first == HOUR_US
    assert twice.at(first).required and twice.at(second).required
    assert twice.at(first).until_us == us("2026-10-25 03:00")


def test_an_hour_that_is_skipped_leaves_no_window_behind():
    skipped = floor(window((6,), 2, 3))
    answer = skipped.at(us("2026-03-29 01:59"))
    if answer.until_us is not None and not answer.required:
        nearest = skipped.at(answer.until_us)
        assert nearest.required


def test_business_hours_keep_wall_time():
    office = floor(OFFICE)
    before, after = office.at(us("2026-10-23 20:00")), office.at(us("2026-10-26 08:59"))
    assert before.until_us == after.until_us == us("2026-10-26 09:00")
    assert us("2026-10-26 09:00") - us("2026-10-23 09:00") == 73 * HOUR_US


@given(st.integers(us("2026-01-01 00:00"), us("2027-01-01 00:00")))
def test_the_answer_holds_until_it_says_and_changes_then(now):
    office = floor(OFFICE, window((5,), 22, 3, name="late"))
    answer = office.at(now)
    assert answer.until_us is not None and answer.until_us > now
    fresh = floor(OFFICE, window((5,), 22, 3, name="late"))
    assert fresh.at(answer.until_us - 1).required == answer.required
    assert fresh.at(answer.until_us).required != answer.required


@given(st.lists(st.integers(us("2026-03-20 00:00"), us("2026-04-05 00:00")), max_size=20))
def test_remembering_the_last_answer_changes_no_answer(instants):
    remembering = floor(OFFICE)
    for now in instants:
        assert remembering.at(now).required == floor(OFFICE).at(now).required
