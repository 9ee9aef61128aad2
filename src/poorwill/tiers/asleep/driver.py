"""The tier `asleep`: the engine's own sleep. The process stays, the accelerator's memory is freed.

The driver owns the order and the bounds; the calls of each engine are in `engines/sleeping.py`. A
sleeping engine answers its health check with 200 and queues requests silently, so nothing here trusts
either: the fleet holds requests until `wake` returns, and the probe after it tells weights from garbage.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Found, Report, SnapshotRefused
from poorwill.core.ports.engine_sleep import EngineSleep
from poorwill.core.ports.log import Log
from poorwill.core.words import Phase, Tier
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.hosts.processes.readiness import Readiness

UNDO_S = 30.0
"""How long an engine may take to wake after a sleep that failed."""


@dataclass(slots=True, kw_only=True)
class AsleepDriver:
    """Puts engines to sleep and wakes them. Implements the port `Driver`."""

    name = "asleep"
    tier = Tier.ASLEEP
    processes: EngineProcesses
    sleeps: Mapping[str, EngineSleep]
    """By the kind that `Launch.sleep` names."""
    clock: Clock
    log: Log
    park_limit_s: float = 120.0
    wake_limit_s: float = 900.0
    exclusive: Exclusive = field(default_factory=Exclusive)

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Put the engine to sleep; see `Driver.park`. Failed or cancelled: it is woken again, and
        ended if it does not wake."""
        with self.exclusive.during(running.replica, "park"):
            sleep = self._sleep_of(launch, running)
            try:
                async with asyncio.timeout(self.park_limit_s):
                    await sleep.sleep(running, launch)
            except TimeoutError:
                still = await self._undone(sleep, running, launch)
                why = f"did not fall asleep within {self.park_limit_s:g} s"
                raise DriverError(f"replica {running.replica} {why}", running=still) from None
            except DriverError as error:
                still = await self._undone(sleep, running, launch)
                raise DriverError(str(error), running=still) from error
            except asyncio.CancelledError:
                await self._undone(sleep, running, launch)
                raise
        return Parked(replica=running.replica, generation=generation, tier=Tier.ASLEEP, running=running)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Wake the engine and wait until it is ready; see `Driver.wake`. Failed: the process is ended."""
        running = parked.running
        if running is None or not self.processes.alive(running):
            raise SnapshotRefused(f"the sleeping engine of replica {launch.replica} is gone")
        with self.exclusive.during(launch.replica, "wake"):
            report(PhaseMark(phase=Phase.ENGINE_WAKE, at_us=self.clock.now_us()))
            ready = Readiness(processes=self.processes, limit_s=self.wake_limit_s)
            try:
                async with self.processes.ended_on_failure(running), asyncio.timeout(self.wake_limit_s):
                    await self._sleep_of(launch, None).wake(running, launch)
                    await ready.wait(running, launch)
            except TimeoutError as error:
                why = f"did not wake within {self.wake_limit_s:g} s"
                raise DriverError(f"replica {launch.replica} {why}") from error
        return replace(running, generation=generation, driver=self.name)

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Refuse: no tier is shallower than this one."""
        raise DriverError(f"there is no way from {parked.tier} to {self.tier}")

    async def discard(self, parked: Parked) -> None:
        """End the sleeping process; see `Driver.discard`."""
        if parked.running is not None:
            await self.processes.kill(parked.running)

    async def inventory(self) -> Sequence[Found]:
        """Return nothing: a sleeping engine is a running process, which `cold` lists."""
        return ()

    def _sleep_of(self, launch: Launch, running: Running | None) -> EngineSleep:
        sleep = self.sleeps.get(launch.sleep or "")
        if sleep is None:
            known = f"the engine of model {launch.model} has no sleep of its own"
            raise DriverError(known, running=running)
        refusal = sleep.refusal(launch)
        if refusal:
            raise DriverError(refusal, running=running)
        return sleep

    async def _undone(self, sleep: EngineSleep, running: Running, launch: Launch) -> Running | None:
        """Wake an engine whose sleep failed half-way; return it if it serves, None if it had to be ended."""
        try:
            async with asyncio.timeout(UNDO_S):
                await sleep.wake(running, launch)
                return running
        except (DriverError, TimeoutError) as error:
            self.log.warning(
                "an engine could not be woken after a failed sleep", replica=running.replica, error=str(error)
            )
        except BaseException:
            self.processes.kill_now(running)
            raise
        await self.processes.end_now(running)
        return None
