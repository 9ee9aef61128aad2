"""Following a log as it grows: bounded, robust, and with times on poorwill's clock."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.words import SECOND_US, Phase
from poorwill.engines.dialects.others import read_any
from poorwill.engines.log_file import LogReader, Timeline
from poorwill.hosts.files.growing_log import CUT_MARK, MOST_BACKLOG, MOST_LINE, MOST_LOOK, LogFile

READY = b"INFO:     Application startup complete.\n"


class HandClock:
    def __init__(self, at_us: int) -> None:
        self.at_us = at_us

    def now_us(self) -> int:
        return self.at_us


def reader(path, clock, boot=lambda: 0, dialect=read_any) -> LogReader:
    timeline = Timeline(clock=clock, began_us=clock.now_us(), boot=boot)
    return LogReader(file=LogFile.at_end(str(path)), dialect=dialect, timeline=timeline)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "engine.log"


def test_only_new_lines_are_read(log):
    log.write_bytes(READY)
    file = LogFile.at_end(str(log))
    assert file.lines() == []
    with log.open("ab") as writer:
        writer.write(b"half a ")
        writer.flush()
        assert file.lines() == []
        writer.write(b"line\nnext\n")
    assert file.lines() == ["half a line", "next"]


def test_a_log_may_appear_later(log):
    file = LogFile.at_end(str(log))
    assert file.lines() == []
    log.write_bytes(b"first\n")
    assert file.lines() == ["first"]


def test_a_cut_log_is_read_from_its_start(log):
    log.write_bytes(b"a long first line\n")
    file = LogFile.at_end(str(log))
    log.write_bytes(b"cut\n")
    assert file.lines() == ["cut"]
    other = log.with_name("other")
    other.write_bytes(b"another file, and longer than the first\n")
    os.replace(other, log)
    assert file.lines() == ["another file, and longer than the first"]


def test_what_a_cut_kept_is_not_read_again(log):
    log.write_bytes(READY * 1000)
    file = LogFile.at_end(str(log))
    log.write_bytes(CUT_MARK + b"beginning of this log]\n" + READY * 10)
    assert file.lines() == []
    with log.open("ab") as writer:
        writer.write(b"new\n")
    assert file.lines() == ["new"]


def test_of_a_flood_only_the_end_is_read(log):
    log.write_bytes(b"")
    file = LogFile.at_end(str(log))
    log.write_bytes(b"x" * (3 * MOST_BACKLOG) + b"\nlast\n")
    lines = file.lines()
    assert lines[-1] == "last"
    assert sum(map(len, lines)) <= MOST_LOOK


def test_a_line_without_end_takes_bounded_memory(log):
    log.write_bytes(b"")
    file = LogFile.at_end(str(log))
    with log.open("ab") as writer:
        for _ in range(8):
            writer.write(b"y" * MOST_LOOK)
            writer.flush()
            file.lines()
            assert len(file.rest) <= MOST_LINE
        writer.write(b"\nafter\n")
    assert file.lines()[-1] == "after"


@settings(max_examples=50, deadline=None)
@given(chunks=st.lists(st.binary(max_size=300), max_size=12))
def test_lines_do_not_depend_on_chunks(tmp_path_factory, chunks):
    path = tmp_path_factory.mktemp("log") / "engine.log"
    path.write_bytes(b"")
    file = LogFile.at_end(str(path))
    found: list[str] = []
    for chunk in chunks:
        with path.open("ab") as writer:
            writer.write(chunk)
        found += file.lines()
    whole = b"".join(chunks).split(b"\n")[:-1]
    assert found == [line.decode("utf-8", "replace") for line in whole if line]


def test_a_boot_stamp_dates_its_line(log):
    clock = HandClock(1_000 * SECOND_US)
    following = reader(log, clock, boot=lambda: 60 * SECOND_US)
    clock.at_us += 10 * SECOND_US
    log.write_bytes(b"poorwill-engine weights boot_us=58000000\n")
    (mark,) = following.look()
    assert (mark.phase, mark.at_us) == (Phase.WEIGHTS, 1_008 * SECOND_US)


def test_an_impossible_time_since_boot_is_ignored(log):
    """A guest's clock, or a restored process: the line then counts as written when it was read."""
    clock = HandClock(1_000 * SECOND_US)
    following = reader(log, clock, boot=lambda: 60 * SECOND_US)
    clock.at_us += 10 * SECOND_US
    log.write_bytes(b"poorwill-engine weights boot_us=5\npoorwill-engine ready boot_us=99000000\n")
    assert [mark.at_us for mark in following.look()] == [1_010 * SECOND_US] * 2


def test_engine_stamps_keep_their_distances(log):
    clock = HandClock(1_000 * SECOND_US)
    following = reader(log, clock)
    clock.at_us += 10 * SECOND_US
    log.write_bytes(
        b"0.00.500.000 I srv load_model: loading model '/m'\n"
        b"0.04.500.000 I cmn common_init: warming up the model with an empty run\n"
    )
    weights, warmup = following.look()
    assert warmup.at_us - weights.at_us == 4 * SECOND_US
    assert warmup.at_us <= clock.at_us


def test_a_duration_ends_at_its_line(log):
    clock = HandClock(1_000 * SECOND_US)
    following = reader(log, clock)
    clock.at_us += 10 * SECOND_US
    log.write_bytes(b"INFO 02-14 02:37:28 [a.py:1] Loading weights took 7.50 seconds\n")
    (mark,) = following.look()
    assert mark.ended_us == clock.at_us
    assert mark.ended_us - mark.at_us == 7_500_000


def test_the_rest_is_read_at_the_end(log):
    clock = HandClock(1_000 * SECOND_US)
    following = reader(log, clock)
    log.write_bytes(READY * 20_000)
    following.finish()
    assert following.file.lines() == []
    assert len(following.marks) == following.most_marks
