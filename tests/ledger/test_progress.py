"""What long questions show on a terminal, and how Ctrl-C ends them."""

import asyncio
import io
import threading

import pytest

from poorwill.cli.run import run
from poorwill.core.entries import Alive
from poorwill.ledger.checking import problems
from poorwill.ledger.schema import reading

from .lives import HOUR
from .story import START, created, request, span, write

S = 1_000_000
CLEAR = "\r\x1b[K"
QUESTIONS = [
    ("bill", "--by", "key"),
    ("bill", "--by", "day,key", "--zone", "Asia/Kathmandu"),
    ("bill", "--invoice", "ann"),
    ("bill", "--focus", "--by", "key"),
    ("ledger", "check"),
    ("ledger", "compact", "--before", "2027-01-16T12:00:00Z"),
]
each_question = pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)


@pytest.fixture
def ledger(path):
    name = "a-model-with-a-name-that-is-longer-than-the-line-of-a-terminal-which-has-eighty-columns.0"
    write(path, [created(replica=name), span(0, "serving", replica=name)])
    days = [request(day * 24 * HOUR, day * 24 * HOUR, (day * 24 + 2) * HOUR, key="ann") for day in range(3)]
    write(path, [created(), span(0, "serving"), *days, Alive(at_us=START + 60 * HOUR)])
    return path


class Terminal(io.StringIO):
    """A terminal that people look at."""

    def isatty(self):
        return True


class CtrlC(Terminal):
    """A terminal on which somebody presses Ctrl-C at the first word of progress, and the verb hears it."""

    def __init__(self):
        super().__init__()
        self.task, self.loop, self.heard = None, asyncio.get_running_loop(), threading.Event()

    def write(self, text):
        if text != CLEAR and not self.heard.is_set():
            self.loop.call_soon_threadsafe(self.press)
            self.heard.wait()
        return super().write(text)

    def press(self):
        self.task.cancel()
        self.turn(20)

    def turn(self, more):
        """Let the cancellation reach the verb: it takes a few turns of the loop."""
        if more:
            self.loop.call_soon(self.turn, more - 1)
        else:
            self.heard.set()


async def ask(ledger, question, stderr):
    out = io.StringIO()
    return await run([*question, "--ledger", ledger], {}, io.StringIO(), out, stderr), out.getvalue()


@each_question
async def test_a_terminal_shows_progress_on_one_line(ledger, question):
    terminal, pipe = Terminal(), io.StringIO()
    status, said = await ask(ledger, question, terminal)
    first, *lines, last = terminal.getvalue().split(CLEAR)
    assert (status, first, last) == (0, "", "")
    assert any(lines)
    assert max(map(len, lines)) < 80
    assert CLEAR not in said
    assert (await ask(ledger, question, pipe))[0] == 0
    assert pipe.getvalue() == ""


async def test_progress_says_how_far_it_is(ledger):
    terminal = Terminal()
    await ask(ledger, ("bill", "--by", "key"), terminal)
    assert f"{CLEAR}a.0, 2 of 2: 2027-01-16 among keys" in terminal.getvalue()


@each_question
async def test_ctrl_c_ends_it_at_once(ledger, question):
    out, terminal = io.StringIO(), CtrlC()
    async with asyncio.TaskGroup() as group:
        answer = run([*question, "--ledger", ledger], {}, io.StringIO(), out, terminal)
        terminal.task = group.create_task(answer)
    assert terminal.task.cancelled()
    assert out.getvalue() == ""
    _, shown, *cleared = terminal.getvalue().split(CLEAR)
    assert shown
    assert not any(cleared)
    with reading(ledger) as db:
        assert problems(db, ledger) == []
