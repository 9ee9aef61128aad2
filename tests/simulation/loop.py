"""An event loop on virtual time. When nothing is ready to run, time jumps to the next timer.

Nothing waits for the operating system, so a seed decides everything: the order of callbacks is the order
in which they were scheduled, and timers fire by time, then by age. The manner is FoundationDB's
(https://apple.github.io/foundationdb/testing.html).
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

START_US = 1_800_000_000 * 1_000_000
"""The first instant of every simulated history (January 2027)."""


MOST_TURNS = 100_000
"""Turns of the loop within a second of virtual time."""


class Killed(BaseException):
    """poorwill got SIGKILL: nothing of it runs any more, not even its `finally` blocks."""


class Stuck(AssertionError):
    """Nothing is left that could ever happen, and the history is not over."""


class _Call:
    """What the loop is to call: asyncio's `Handle`, without what only a debugger reads."""

    __slots__ = ("args", "callback", "context", "loop", "over", "when_us")

    def __init__(
        self,
        loop: "VirtualLoop",
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        when_us: int | None = None,
    ) -> None:
        self.loop, self.callback, self.args, self.context = loop, callback, args, context
        self.when_us = when_us
        """When a timer is due; None: at the next turn."""
        self.over = False

    def cancel(self) -> None:
        if not self.over:
            self.over, self.args = True, ()
            self.callback = _nothing
            if self.when_us is not None:
                self.loop.cancelled += 1

    def cancelled(self) -> bool:
        return self.over

    def when(self) -> float:
        assert self.when_us is not None
        return (self.when_us - START_US) / 1e6


def _nothing() -> None:
    """Stands for what is not to be called any more."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose clock moves only when everything that is ready has run.

    Its own turn does what asyncio's does, in a third of the time: half of a simulated wake is turns.
    """

    def __init__(self, now_us: int) -> None:
        super().__init__()
        self.now_us = now_us
        self.suspended_us = 0
        """How long the machine slept in all: time in which no timer could fire."""
        self.kill_after: int | None = None
        """Turns of the loop that are left before `Killed` is raised; None: it lives."""
        self._moment_us, self._turns = now_us, 0
        self.on_turn: Callable[[], None] | None = None
        self._soon: deque[_Call] = deque()
        self._timers: list[tuple[int, int, _Call]] = []
        """By time, then by age."""
        self._ages = itertools.count()
        self.cancelled = 0
        """Timers among them that will do nothing."""

    def time(self) -> float:
        """Return the virtual time in seconds since the first instant: small, so that floats are exact."""
        return (self.now_us - START_US) / 1e6

    def suspend(self, lasts_us: int) -> None:
        """The machine is suspended and comes back: the clock went on, and nothing ran."""
        self.now_us += lasts_us
        self.suspended_us += lasts_us

    def call_soon(self, callback, *args, context=None):
        call = _Call(self, callback, args, context)
        self._soon.append(call)
        return call

    def call_later(self, delay, callback, *args, context=None):
        return self._call_when(self.now_us + round(delay * 1e6), callback, args, context)

    def call_at(self, when, callback, *args, context=None):
        return self._call_when(START_US + round(when * 1e6), callback, args, context)

    def _call_when(self, when_us, callback, args, context):
        call = _Call(self, callback, args, context, when_us)
        heapq.heappush(self._timers, (when_us, next(self._ages), call))
        return call

    def _run_once(self) -> None:
        """Check what must hold, let time pass until the next timer, and run what is due."""
        soon, timers = self._soon, self._timers
        if self.cancelled > 100 and 2 * self.cancelled > len(timers):
            timers[:] = [each for each in timers if not each[2].over]
            heapq.heapify(timers)
            self.cancelled = 0
        while timers and timers[0][2].over:
            heapq.heappop(timers)
            self.cancelled -= 1
        self._end_turn()
        if not soon and not self._stopping:
            if not timers:
                raise Stuck("nothing is left that could ever happen")
            self.now_us = max(self.now_us, timers[0][0])
        while timers and timers[0][0] <= self.now_us:
            call = heapq.heappop(timers)[2]
            if call.over:
                self.cancelled -= 1
            else:
                call.when_us = None
                soon.append(call)
        for _ in range(len(soon)):
            call = soon.popleft()
            if call.over:
                continue
            try:
                if call.context is None:
                    call.callback(*call.args)
                else:
                    call.context.run(call.callback, *call.args)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"in {call.callback}", "exception": error})

    def _end_turn(self) -> None:
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

    def close(self) -> None:
        self._soon.clear()
        self._timers.clear()
        super().close()

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
