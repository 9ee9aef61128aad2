"""The tier `frozen`: the engine's processes dumped to disk by CRIU, gone from memory, and restored.

The driver's own rules are here; the order of a park is in `freeze`, that of a wake in `thaw`.
"""

from dataclasses import dataclass

from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import DriverError, Report
from poorwill.tiers.frozen.freeze import freeze
from poorwill.tiers.frozen.parts import FrozenParts
from poorwill.tiers.frozen.thaw import thaw
from poorwill.tiers.snapshots.attempt import settle_leftover


@dataclass(slots=True, kw_only=True)
class FrozenDriver(FrozenParts):
    """Freezes engine processes with CRIU. Implements the port `Driver`."""

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Dump the engine and end it; see `Driver.park`.

        The caller has closed its keep-alive connections; while one is open the park fails and the engine
        serves on. Cancelled during criu's dump: the engine is killed, since half of criu is in it.
        """
        with self.exclusive.during(running.replica, "park"):
            return await freeze(self, running, launch, generation=generation)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Restore the engine from its image; see `Driver.wake`.

        Phases: `read_image` until every byte is read and verified, `restore_process` from then until the
        processes exist again (criu works meanwhile, so this is only what reading did not hide),
        `restore_device` if the engine had a device, `ready` until it answers.
        """
        with self.exclusive.during(launch.replica, "wake"):
            return await thaw(self, parked, launch, generation=generation, report=report)

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Freeze an engine that sleeps; a replica without a process cannot be frozen."""
        if parked.running is None:
            raise DriverError(f"replica {parked.replica} has no process to freeze ({parked.tier})")
        running = parked.running
        with self.exclusive.during(running.replica, "park"):
            return await freeze(self, running, launch, generation=generation, asleep=True)

    async def recover(self) -> None:
        """End and remove what a poorwill that was killed left half done.

        Called once at start by the owner of the fleet directory, before any other call. What cannot be ended
        now is left for the next start, and the fleet is served all the same.
        """
        for directory in self.store.leftovers():
            try:
                ended = await settle_leftover(directory)
            except DriverError as error:
                self.log.error("an unfinished snapshot is left", path=str(directory), why=str(error))
                continue
            self.store.remove_leftover(directory)
            self.log.warning("removed an unfinished snapshot", path=str(directory), ended=ended or "nothing")
