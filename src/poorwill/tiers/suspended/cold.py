"""The tier `cold` for replicas that run in a virtual machine: wake is a boot, park is the machine's end.

A ladder with `suspended` ends with this driver instead of `cold`'s own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import DriverError, Found, Report
from poorwill.core.words import Phase, Tier
from poorwill.hosts.files.aside import aside
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.tiers.suspended.golden import Golden, open_golden
from poorwill.tiers.suspended.qemu.program import STATE, Layout, Memory
from poorwill.tiers.suspended.qemu.runs import QemuRuns


@dataclass(slots=True, kw_only=True)
class QemuColdDriver:
    """Boots and ends guests. Implements the port `Driver`."""

    name = "qemu"
    tier = Tier.COLD
    runs: QemuRuns
    in_file: bool = True
    """Whether the guest's memory is a file from the start, so that a park need not write it."""
    load_limit_s: float = 60.0
    exclusive: Exclusive = field(default_factory=Exclusive)

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """End the machine; see `Driver.park`. Cancelled: it is killed at once."""
        with self.exclusive.during(running.replica, "park"):
            await self.runs.stop(running)
        return Parked(replica=running.replica, generation=generation, tier=Tier.COLD)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Start the guest from its golden image, or boot it, until its engine is ready; see `Driver.wake`."""
        with self.exclusive.during(launch.replica, "wake"):
            golden = await aside(self._golden, launch)
            if golden is not None:
                try:
                    return await self._start(golden, launch, generation, report)
                except DriverError as error:
                    self.runs.log.warning(
                        "a golden image does not start; booting instead",
                        replica=launch.replica,
                        error=str(error),
                    )
            return await self._start(None, launch, generation, report)

    def _golden(self, launch: Launch) -> Golden | None:
        try:
            return open_golden(self.runs.guest(launch), self.runs.hypervisor)
        except DriverError as error:
            self.runs.log.warning("a golden image is left aside", replica=launch.replica, error=str(error))
            return None

    async def _start(self, golden: Golden | None, launch: Launch, generation: int, report: Report) -> Running:
        new_file = self.in_file and golden is None
        ram_bytes = self.runs.guest(launch).memory_mib * 2**20 if new_file else 0
        await aside(partial(self.runs.make, launch, generation=generation, ram_bytes=ram_bytes))
        running = await self.runs.start(
            launch,
            generation=generation,
            driver=self.name,
            memory=Memory.PRIVATE if golden else Memory.SHARED if new_file else Memory.ANONYMOUS,
            golden_ram=golden.ram if golden else None,
            incoming=golden is not None,
            report=report,
        )
        try:
            if golden:
                uri = self.runs.hypervisor.load_uri(f"{golden.directory}/{STATE}")
                await self.runs.load(running, uri, layout=Layout.RAM_FILE, limit_s=self.load_limit_s)
            else:  # firmware, kernel and init come between QEMU's start and the engine's
                report(PhaseMark(phase=Phase.PROVISION, at_us=self.runs.clock.now_us()))
            await self.runs.greet(running, launch)
        except BaseException:
            await self.runs.abort(running)
            raise
        return running

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Keep nothing: a shallower tier's snapshot is for its own driver to discard."""
        if parked.running is not None:
            await self.runs.stop(parked.running)
        return Parked(replica=parked.replica, generation=generation, tier=Tier.COLD)

    async def discard(self, parked: Parked) -> None:
        """Do nothing: a cold replica keeps nothing."""

    async def inventory(self) -> Sequence[Found]:
        """Return every running guest of the fleet."""
        return await aside(self.runs.found)
