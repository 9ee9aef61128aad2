"""Downloads of models that operators ask for: one at a time, with progress, until they end or are stopped."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, RequestFault, TryLater
from poorwill.core.ports.clock import Clock
from poorwill.telemetry.dashboard.documents import PullNow

MOST_UNDER_WAY, MOST_ENDED = 20, 10
_NAME_LENGTH = 300

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""
Download = Callable[[Progress], Awaitable[str]]
"""Has a model on disk and returns its path. Raises PoorwillError; cancelled, it keeps what it has."""
Find = Callable[[str], tuple[str, Download]]
"""Returns the full name of what an operator calls by a name, and its download. Raises OperatorFault."""


@dataclass(slots=True, kw_only=True)
class _Pull:
    """One download, from the wish to its end."""

    name: str
    by: str
    asked_us: int
    download: Download
    state: str = "waiting"
    done_bytes: int = 0
    need_bytes: int = 0
    path: str = ""
    why: str = ""
    task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self.state not in ("waiting", "pulling")

    def progress(self, done: int, need: int) -> None:
        self.done_bytes, self.need_bytes = done, need


class Pulls:
    """Every download since the start, as far as it is remembered."""

    def __init__(self, *, find: Find, clock: Clock) -> None:
        self._find = find
        self._clock = clock
        self._pulls: dict[str, _Pull] = {}
        self._asked: asyncio.Queue[_Pull] = asyncio.Queue()

    def now(self) -> list[PullNow]:
        """Return how each download stands, the last one first."""
        return [_told(pull) for pull in reversed(self._pulls.values())]

    def ask(self, name: str, *, by: str) -> PullNow:
        """Have a model downloaded soon; one that is under way goes on.

        Raises RequestFault if there is none of that name, TryLater if too many wait.
        """
        try:
            full, download = self._find(name[:_NAME_LENGTH])
        except OperatorFault as fault:
            raise RequestFault(ErrorCode.INVALID_REQUEST, fault.message, hint=fault.hint) from None
        pull = self._pulls.get(full)
        if pull is None or pull.over:
            if sum(not one.over for one in self._pulls.values()) >= MOST_UNDER_WAY:
                what = f"{MOST_UNDER_WAY} downloads are under way or wait"
                raise TryLater(ErrorCode.OVERLOADED, what, retry_after_s=60)
            self._pulls.pop(full, None)
            pull = _Pull(name=full, by=by, asked_us=self._clock.now_us(), download=download)
            self._pulls[full] = pull
            self._asked.put_nowait(pull)
            for old in [one for one in self._pulls.values() if one.over][:-MOST_ENDED]:
                del self._pulls[old.name]
        return _told(pull)

    def stop(self, name: str) -> PullNow:
        """Stop a download; what is there already is kept. Raises RequestFault if there is none."""
        pull = self._pulls.get(name)
        if pull is None:
            raise RequestFault(ErrorCode.INVALID_REQUEST, f"{name[:_NAME_LENGTH]!r} is not being downloaded")
        if not pull.over:
            pull.state = "stopped"
            if pull.task is not None:
                pull.task.cancel()
        return _told(pull)

    async def work(self) -> None:
        """Download what is asked for, one after another. Cancelled: what is under way is stopped."""
        async with asyncio.TaskGroup() as group:
            while True:
                pull = await self._asked.get()
                if not pull.over:
                    pull.task = group.create_task(self._run(pull))
                    await asyncio.wait([pull.task])

    async def _run(self, pull: _Pull) -> None:
        pull.state = "pulling"
        try:
            pull.path = await pull.download(pull.progress)
            pull.state = "done"
        except PoorwillError as error:
            pull.state, pull.why = "failed", str(error)
        except OSError as error:
            pull.state, pull.why = "failed", str(error)


def _told(pull: _Pull) -> PullNow:
    return PullNow(
        name=pull.name,
        by=pull.by,
        asked_us=pull.asked_us,
        state=pull.state,
        done_bytes=pull.done_bytes,
        need_bytes=pull.need_bytes,
        path=pull.path,
        why=pull.why,
    )
