"""Waits for an engine that is asked over the network, and reports the phases that its answers show."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from poorwill.core.launch import PhaseMark
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Report
from poorwill.core.words import Phase
from poorwill.hosts.files.reach import Reach

_REFUSED = (401, 403)
_LOADS = "status 503"
"""What vLLM, SGLang and llama.cpp answer while they load their models."""


@dataclass(slots=True, kw_only=True)
class EngineWait:
    """Polls an engine until it is ready."""

    reach: Callable[[], Reach | None]
    """How the engine is asked now; None while it has no address."""
    ready_path: str
    report: Report
    clock: Clock
    last: str = "nothing"
    """Its last answer, for people."""
    answered: bool = False
    asked: int = 0

    async def until(self, *, loads: bool = False) -> bool:
        """Return True when the engine is ready; with `loads`, False when it says that it will be.

        Raises as `ready`. Cancelled: no connection is left.
        """
        while True:
            if await self.ready():
                return True
            if loads and self.last == _LOADS:
                return False
            await asyncio.sleep(self.delay_s())

    async def ready(self) -> bool:
        """Ask once. An engine that answers, but not with 2xx, has begun to load.

        Raises DriverError if its certificate does not verify or our key is refused: neither mends itself.
        """
        reach = self.reach()
        status = await reach.status(self.ready_path) if reach is not None else None
        self.asked += 1
        if status is None:
            self.last = "nothing"
            return False
        self.last = f"status {status}"
        if 200 <= status < 300:
            return True
        if status in _REFUSED and reach is not None:
            key = "the key of url_key_env is refused" if reach.key else "it wants a key: url_key_env"
            raise DriverError(f"{reach.url}{self.ready_path} answers {status}: {key}")
        if not self.answered:
            self.answered = True
            self.mark(Phase.WEIGHTS, f"its engine answers {status}")
        return False

    def mark(self, phase: Phase, detail: str) -> None:
        """Report a phase that begins now."""
        self.report(PhaseMark(phase=phase, at_us=self.clock.now_us(), detail=detail))

    def delay_s(self) -> float:
        """Return how long to wait before the next question."""
        return float(min(0.05 * 1.2**self.asked, 2.0))
