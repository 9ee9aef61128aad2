"""Engines that somebody else starts and ends: poorwill waits for them, watches them, and relays to them.

Nothing is parked here and nothing can be: whoever pays for such an engine pays on. Parked means that nobody
is sent there.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Found, Report
from poorwill.core.ports.log import Log
from poorwill.core.words import Phase, Tier
from poorwill.hosts.files.reach import Reach
from poorwill.remote.waiting import EngineWait


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginesElsewhere:
    """Watches an engine elsewhere and never ends it. Implements the port `Processes`."""

    reach: Reach
    log: Log
    watch_s: float = 15.0
    """Between two liveness checks of an engine."""
    silences: int = 4
    """Unanswered checks in a row after which an engine counts as gone: one that is restarted is not."""

    async def kill(self, running: Running) -> None:
        """Do nothing: the engine is somebody else's."""

    async def exited(self, running: Running) -> str:
        """Wait until the engine answers no more; return that, for people. Cancelled: nothing was changed."""
        silent = 0
        while silent < self.silences:
            await asyncio.sleep(self.watch_s)
            silent = 0 if await self._answers() else silent + 1
        return f"{running.machine} does not answer"

    async def _answers(self) -> bool:
        try:
            return await self.reach.status("/") is not None
        except DriverError as error:
            self.log.warning("cannot ask an engine", why=str(error))
            return False

    def alive(self, running: Running) -> bool:
        """Return whether it is the engine at this address."""
        return running.machine == str(self.reach.url)

    def effort(self, running: Running) -> None:
        """Return None: what it does is not seen from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElsewhereDriver:
    """Waits for an engine elsewhere. Implements the port `Driver`, for the tier every ladder ends with."""

    name = "elsewhere"
    tier = Tier.COLD
    reach: Reach
    clock: Clock
    wake_limit_s: float = 1800.0
    """A bound for callers that set none."""
    silent_s: float = 30.0
    """How long one that does not even say that it is loading is waited for: whoever asks for it is told so,
    and it is looked for again after the usual back-off."""

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Return at once: nobody is sent to the engine any more, which runs on."""
        return Parked(replica=running.replica, generation=generation, tier=self.tier)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Wait until the engine is ready; see `Driver.wake`. Failed or cancelled: it is as it was."""
        reach = self.reach
        waiting = EngineWait(
            reach=lambda: reach, ready_path=launch.ready_path, report=report, clock=self.clock
        )
        waiting.mark(Phase.SPAWN, f"until {reach.url} answers")
        try:
            async with asyncio.timeout(self.silent_s):
                ready = await waiting.until(loads=True)
            if not ready:
                async with asyncio.timeout(self.wake_limit_s):
                    await waiting.until()
        except TimeoutError:
            raise DriverError(f"{reach.url}{launch.ready_path} last answered {waiting.last}") from None
        return Running(
            replica=launch.replica,
            generation=generation,
            host=launch.host,
            port=launch.port,
            log_path=launch.log_path,
            driver=self.name,
            engine_model=launch.engine_model,
            launched=launch.identity(),
            machine=str(reach.url),
        )

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Refuse: no tier is shallower."""
        raise DriverError(f"there is no way from {parked.tier} to {self.tier}")

    async def discard(self, parked: Parked) -> None:
        """Do nothing: nothing is kept."""

    async def inventory(self) -> Sequence[Found]:
        """Return nothing: what runs elsewhere is not of poorwill's making."""
        return ()
