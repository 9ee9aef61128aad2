"""An event loop on virtual time. When nothing is ready to run, time jumps to the next timer.

Nothing waits for the operating system, so a seed decides everything: the order of callbacks is the order
in which they were scheduled, and timers fire by time, then by age. The manner is FoundationDB's
(https://apple.github.io/foundationdb/testing.html).
"""

import asyncio
from collections.abc import Callable
from selectors import BaseSelector, SelectorKey
from typing import Any

START_US = 1_800_000_000 * 1_000_000
"""The first instant of every simulated history (January 2027)."""


MOST_TURNS = 100_000
"""Turns of the loop within a second of virtual time."""


class Killed(BaseException):
    """poorwill got SIGKILL: nothing of it runs any more, not even its `finally` blocks."""


class Stuck(AssertionError):
    """Nothing is left that could ever happen, and the history is not over."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose clock moves only when everything that is ready has run."""

    def __init__(self, now_us: int) -> None:
        super().__init__()
        self.now_us = now_us
        self.suspended_us = 0
        """How long the machine slept in all: time in which no timer could fire."""
        self.kill_after: int | None = None
        """Turns of the loop that are left before `Killed` is raised; None: it lives."""
        self._moment_us, self._turns = now_us, 0
        self.on_turn: Callable[[], None] | None = None
        self._clock_resolution = 1e-6
        self._selector = _Jump(self)

    def time(self) -> float:
        """Return the virtual time in seconds since the first instant: small, so that floats are exact."""
        return (self.now_us - START_US) / 1e6

    def suspend(self, lasts_us: int) -> None:
        """The machine is suspended and comes back: the clock went on, and nothing ran."""
        self.now_us += lasts_us
        self.suspended_us += lasts_us

    def turn(self, timeout: float | None) -> None:
        """End one turn of the loop: check what must hold, and let time pass until the next timer."""
        self._turns += 1
        if self.now_us - self._moment_us > 1_000_000:
            self._moment_us, self._turns = self.now_us, 0
        if self._turns > MOST_TURNS:
            raise Stuck("the fleet is busy without end: something that is due changes nothing")
        if self.on_turn is not None:
            self.on_turn()
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after <= 0:
                raise Killed
        if timeout is None:
            raise Stuck("nothing is left that could ever happen")
        if timeout > 0:
            self.now_us += max(round(timeout * 1e6), 1)

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run a function at once, on this thread: threads would make two runs of one seed differ."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _process_events(self, event_list: object) -> None:
        """There are no files to watch."""

    def _write_to_self(self) -> None:
        """There is no other thread that could wake this one."""


class _Jump(BaseSelector):
    """A selector that watches nothing: to wait is to let time jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        self._loop.turn(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        raise AssertionError("the simulation opens no file or socket on its loop")

    def unregister(self, fileobj: Any) -> SelectorKey:
        raise AssertionError("the simulation opens no file or socket on its loop")

    def get_map(self) -> Any:
        return {}


class VirtualClock:
    """poorwill's clock on a virtual loop. It never tells the same instant twice, as a real one."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_us(self) -> int:
        self._loop.now_us += 1
        return self._loop.now_us

    def awake_us(self) -> int:
        """Return an instant that does not count time in which the machine was suspended."""
        return self._loop.now_us - self._loop.suspended_us
