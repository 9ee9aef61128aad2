"""The tier `cold`: park is stop, wake is start. The driver every ladder ends with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Found, Report
from poorwill.core.ports.log import Log
from poorwill.core.words import Tier
from poorwill.hosts.files.aside import aside
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.hosts.processes.readiness import Readiness, refuse_taken_port


@dataclass(slots=True, kw_only=True)
class ColdDriver:
    """Starts and stops engine processes. Implements the port `Driver`."""

    name = "cold"
    tier = Tier.COLD
    processes: EngineProcesses
    clock: Clock
    log: Log
    ready_limit_s: float = 900.0
    exclusive: Exclusive = field(default_factory=Exclusive)

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Stop the engine; see `Driver.park`. Cancelled: the engine is killed at once."""
        with self.exclusive.during(running.replica, "park"):
            await self.processes.kill(running)
        return Parked(replica=running.replica, generation=generation, tier=Tier.COLD)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Start the engine and wait until it is ready; see `Driver.wake`."""
        with self.exclusive.during(launch.replica, "wake"):
            await self.processes.outside.end(launch.replica)  # what a crash has left
            refuse_taken_port(launch)
            running = await self.processes.spawn(
                launch, generation=generation, driver=self.name, report=report
            )
            async with self.processes.ended_on_failure(running):
                await Readiness(processes=self.processes, limit_s=self.ready_limit_s).wait(running, launch)
            return running

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Stop whatever process a shallower tier keeps. Its snapshot is for its own driver to discard."""
        if parked.running is not None:
            await self.processes.kill(parked.running)
        return Parked(replica=parked.replica, generation=generation, tier=Tier.COLD)

    async def discard(self, parked: Parked) -> None:
        """Do nothing: a cold replica keeps nothing."""

    async def inventory(self) -> Sequence[Found]:
        """Return every running engine of the fleet, whichever driver woke it last, and what others left."""
        return await aside(lambda: [*self.processes.found(), *self.processes.left_behind()])
