"""The log: one line for each event, JSON or text; its own trouble never reaches the caller."""

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.ports.log import Log
from poorwill.telemetry.log import StreamLog


class At:
    """A clock that stands still."""

    def now_us(self) -> int:
        return 1_772_359_200_123_456


def written(human: bool, level: str = "info") -> tuple[StreamLog, io.StringIO]:
    stream = io.StringIO()
    return StreamLog(stream=stream, level=level, human=human, clock=At()), stream


def test_a_json_line_has_all_fields() -> None:
    log, stream = written(human=False)
    log.info("replica ready", replica="a-0", seconds=1.5, phases=["spawn"])
    assert json.loads(stream.getvalue()) == {
        "time": "2026-03-01T10:00:00.123+00:00",
        "level": "info",
        "message": "replica ready",
        "replica": "a-0",
        "seconds": 1.5,
        "phases": ["spawn"],
    }


def test_a_text_line_quotes_spaces() -> None:
    log, stream = written(human=True)
    log.warning("wake failed", replica="a-0", why="exit 1: out of memory", hint="")
    assert stream.getvalue() == (
        '10:00:00 warning: wake failed replica=a-0 why="exit 1: out of memory" hint=""\n'
    )


def test_no_terminal_means_json() -> None:
    stream = io.StringIO()
    StreamLog(stream=stream).error("x")
    assert json.loads(stream.getvalue()) == {"level": "error", "message": "x"}


@pytest.mark.parametrize(
    ("level", "expected"),
    [("info", ["a", "b", "c"]), ("warning", ["b", "c"]), ("error", ["c"])],
)
def test_lower_levels_are_left_out(level: str, expected: list[str]) -> None:
    log, stream = written(human=False, level=level)
    log.info("a")
    log.warning("b")
    log.error("c")
    lines = stream.getvalue().splitlines()
    assert [json.loads(line)["message"] for line in lines] == expected


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("human", [True, False])
def test_a_field_without_str_is_logged(human: bool) -> None:
    log, stream = written(human=human)
    log.info("x", bad=Hostile(), path=Path("/a"), error=ValueError("v"))
    assert "Hostile: RuntimeError" in stream.getvalue()
    assert "/a" in stream.getvalue()


def test_fields_never_replace_the_message() -> None:
    log, stream = written(human=False)
    log.info("real", **{"level": "fake", "time": "fake"})
    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["level_"]) == ("real", "info", "fake")


@given(
    message=st.text(),
    fields=st.dictionaries(st.text(), st.one_of(st.text(), st.floats(), st.binary(), st.none())),
    human=st.booleans(),
)
def test_any_event_is_exactly_one_line(message: str, fields: dict[str, object], human: bool) -> None:
    log, stream = written(human=human)
    log.info(message, **fields)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")
    assert len(stream.getvalue().splitlines()) == 1
    if not human:
        assert json.loads(stream.getvalue())["message"] == message


def test_a_broken_stream_never_raises() -> None:
    stream = io.StringIO()
    log: Log = StreamLog(stream=stream)
    stream.close()
    log.error("nobody hears this")
    reading, writing = os.pipe()
    os.close(reading)
    pipe = open(writing, "w")
    StreamLog(stream=pipe).error("nor this")
    with pytest.raises(BrokenPipeError):
        pipe.close()


def test_its_repr_says_what_it_does() -> None:
    assert repr(StreamLog(stream=io.StringIO(), level="error")) == "<StreamLog from error on a stream>"
