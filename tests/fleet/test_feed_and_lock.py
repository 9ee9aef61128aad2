"""Who listens hears everything or how much was missed; a fleet directory has one holder, by name."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from poorwill.core.entries import Alive, Noted
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.fleet.feeds import FEED_LENGTH, Feeds
from poorwill.fleet.fleet import tell_dropped_rows
from poorwill.fleet.journal import Journal
from poorwill.fleet.lock import LOCK_FILE, hold_directory, holder_of

from .house import House


class Nowhere:
    """A ledger that takes everything."""

    unavailable = ""

    def record(self, entries):
        return asyncio.sleep(0)

    def post(self, entries):
        pass


def note(number: int) -> Noted:
    return Noted(at_us=number, kind="test")


def looked_on() -> tuple[Feeds, Journal]:
    feeds = Feeds()
    return feeds, Journal(ledger=Nowhere(), listeners=(feeds.put,))


async def test_a_slow_reader_loses_the_oldest():
    feeds, journal = looked_on()
    feed = feeds.feed()
    journal.post([note(number) for number in range(FEED_LENGTH + 7)])
    assert await anext(feed) == 7
    first = await anext(feed)
    assert isinstance(first, Noted) and first.at_us == 7
    rest = [await anext(feed) for _ in range(FEED_LENGTH - 1)]
    assert [entry.at_us for entry in rest] == list(range(8, FEED_LENGTH + 7))  # type: ignore[union-attr]


async def test_closing_releases_a_reader():
    feeds, journal = looked_on()
    feed = feeds.feed()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_all(feed))
        await asyncio.sleep(0)
        journal.post([note(1)])
        feeds.close()
    assert [entry.at_us for entry in reading.result()] == [1]
    assert not feeds.feeds
    journal.post([note(2)])


async def test_a_cancelled_reader_loses_nothing():
    feeds, journal = looked_on()
    feed = feeds.feed()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_all(feed))
        await asyncio.sleep(0)
        reading.cancel()
    journal.post([note(1)])
    entry = await anext(feed)
    assert isinstance(entry, Noted) and entry.at_us == 1


async def test_signs_of_life_are_not_news():
    heard = []
    feeds = Feeds()
    journal = Journal(ledger=Nowhere(), listeners=(heard.append, feeds.put))
    feed = feeds.feed()
    journal.post([Alive(at_us=1), note(2)])
    entry = await anext(feed)
    assert isinstance(entry, Noted)
    assert [type(each) for each in heard] == [Alive, Noted]


async def test_a_feed_ends_with_the_fleet(house: House):
    house.model()
    async with house.open():
        assert house.fleet is not None
        feed = house.fleet.view.events()
        await house.serve()
    kinds = [type(entry).__name__ for entry in await _all(feed)]
    assert kinds.index("WakeBegan") < kinds.index("WakeEnded") < len(kinds)


async def _all(feed) -> list:
    return [entry async for entry in feed]


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path):
    with hold_directory(tmp_path, what="poorwill serve") as holding:
        holding.publish(what="poorwill serve", admin="127.0.0.1:8081")
        with pytest.raises(OperatorFault) as caught:
            with hold_directory(tmp_path, what="another"):
                raise AssertionError("held twice")
        assert caught.value.code is ErrorCode.IN_USE
        assert f"poorwill serve, pid {os.getpid()}" in str(caught.value)
        assert holder_of(tmp_path) == {
            "pid": os.getpid(),
            "what": "poorwill serve",
            "admin": "127.0.0.1:8081",
        }
        holding.publish(what="x")
        assert holder_of(tmp_path) == {"pid": os.getpid(), "what": "x"}
    assert holder_of(tmp_path) is None
    with hold_directory(tmp_path, what="another"):
        pass


def test_nobody_holds_a_directory_that_was_never_held(tmp_path: Path):
    assert holder_of(tmp_path) is None


def test_asking_for_the_holder_takes_no_lock(tmp_path: Path):
    with hold_directory(tmp_path, what="first"):
        pass
    # What `holder_of` does, stopped half way: the file is open for reading while another takes it.
    descriptor = os.open(tmp_path / LOCK_FILE, os.O_RDONLY)
    try:
        assert holder_of(tmp_path) is None
        with hold_directory(tmp_path, what="second"):
            assert (holder_of(tmp_path) or {})["what"] == "second"
    finally:
        os.close(descriptor)


def test_a_lock_file_that_says_nothing_still_locks(tmp_path: Path):
    with hold_directory(tmp_path, what="first"):
        (tmp_path / LOCK_FILE).write_text("garbage")
        assert holder_of(tmp_path) == {}
        with pytest.raises(OperatorFault, match="another process"):
            with hold_directory(tmp_path, what="second"):
                pass


HOLD = """
import pathlib, sys
from poorwill.fleet.lock import hold_directory
with hold_directory(pathlib.Path(sys.argv[1]), what="poorwill serve"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_lets_go(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(OperatorFault, match=f"poorwill serve, pid {holder.pid}"):
            with hold_directory(tmp_path, what="me"):
                pass
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == holder.pid
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert holder_of(tmp_path) is None
    with hold_directory(tmp_path, what="me"):
        assert (holder_of(tmp_path) or {})["pid"] == os.getpid()


async def test_dropped_rows_are_noted(house: House):
    house.model()
    house.expected_errors = ("request rows were dropped",)
    async with house.open():
        assert house.fleet is not None
        controller = house.fleet.controller

        class Dropping(Nowhere):
            dropped = 7

            def dropped_rows(self):
                self.dropped, dropped = 0, self.dropped
                return dropped

        real, controller.journal.ledger = controller.journal.ledger, Dropping()
        feed = house.fleet.view.events()
        tell_dropped_rows(controller)
        tell_dropped_rows(controller)
        controller.journal.ledger = real
        feed.close()
        told = [entry async for entry in feed if entry.kind == "request_rows_lost"]
    assert [note.text for note in told] == [
        "7 request rows were dropped while the ledger could not be written"
    ]


def test_an_unwritable_directory_is_a_fault(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / LOCK_FILE).mkdir()
    for directory in (tmp_path / "file", tmp_path / "file" / "below", tmp_path):
        with pytest.raises(OperatorFault) as caught, hold_directory(directory, what="x"):
            pass
        assert f"{directory} cannot be written" in caught.value.message
        assert "[fleet]" in str(caught.value.hint)
