"""Carries out a wake: makes room, brings the replica back, warms it up or verifies it, and reports.

Whatever happens, exactly one WakeSucceeded or WakeFailed of the effect's generation is submitted, and a
wake that does not succeed leaves no process behind.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace

from poorwill.core.entries import PhaseSpan
from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.machine.effects import StartWake
from poorwill.core.machine.inputs import PhaseBegan, WakeFailed, WakeSucceeded
from poorwill.core.ports.driver import DriverError, NoCapacity, SnapshotRefused
from poorwill.core.words import RESUMING_TIERS, Phase, Tier
from poorwill.fleet.lost import unwatch, watch
from poorwill.fleet.unit import FleetContext, Unit, to_the_end

LOG_END_S = 0.5
"""How long a wake waits for the last lines of its engine's log."""


async def carry_out_wake(
    context: FleetContext, unit: Unit, effect: StartWake, committed: Awaitable[None]
) -> None:
    """Carry a StartWake out. Cancelled by AbortWake: tears down and reports the failure."""
    waking = Waking(context=context, unit=unit, effect=effect)
    unit.marks.clear()
    try:
        await committed
        if unit.ending is not None:
            await asyncio.wait([unit.ending])
        if anew := effect.from_tier is Tier.COLD:
            unit.renew()
            if unit.equipment.machine:  # once asked to run it is billed: first the ledger knows of it
                await context.journal.record([unit.placed(context.clock.now_us())])
            if unit.equipment.fetch is not None:
                await unit.equipment.fetch(waking.report)  # before anybody makes room for it
        place = await context.make_room(unit)
        # It reads the model file's header.
        waking.launch = await asyncio.to_thread(unit.launch, anew=anew, place=place)
        running = await _bring_back(waking, waking.launch)
    except asyncio.CancelledError as cancelled:
        why = str(cancelled.args[0]) if cancelled.args else ""
        waking.failed(f"the wake was aborted: {why}" if why else "the wake was aborted")
        raise
    except PoorwillError as error:
        known = (ErrorCode.NO_CAPACITY, ErrorCode.LEDGER_UNAVAILABLE)
        code = error.code if error.code in known else ErrorCode.WAKE_FAILED
        waking.failed(str(error), code)
    except SnapshotRefused as error:
        parked = waking.take()
        if parked is not None:
            await to_the_end(discard(context, unit, parked))
        waking.failed(str(error))
    except (DriverError, OSError) as error:
        full = isinstance(error, NoCapacity)
        waking.failed(str(error), ErrorCode.NO_CAPACITY if full else ErrorCode.WAKE_FAILED)
    except Exception as error:
        context.log.error("a wake failed with an unexpected error", model=unit.model, error=repr(error))
        waking.failed(f"internal error: {error!r}")
    else:
        waking.succeeded(waking.launch, running)


@dataclass(slots=True, kw_only=True)
class Waking:
    """One wake being carried out, and how it is reported."""

    context: FleetContext
    unit: Unit
    effect: StartWake
    launch: Launch | None = None
    touched: bool = False
    """Whether the replica is no longer as it was parked: a snapshot is woken once."""

    def report(self, mark: PhaseMark) -> None:
        """Take a phase mark from the driver or the engine's log; a `core.ports.driver.Report`."""
        unit, generation = self.unit, self.effect.generation
        if unit.replica.generation == generation and unit.replica.wake is not None:
            unit.marks.append(mark)
            self.context.submit(unit, PhaseBegan(generation=generation, mark=mark))

    def failed(self, why: str, code: ErrorCode = ErrorCode.WAKE_FAILED) -> None:
        """Report the failure; `kept` says that the replica is parked as before.

        Its place is recorded either way: the next start must not use the generation again.
        """
        self.context.journal.post([self.unit.placed(self.context.clock.now_us())])
        # As before: not touched, and what slept has not died meanwhile.
        kept = not self.touched and (self.effect.from_tier is Tier.COLD or self.unit.parked is not None)
        report = WakeFailed(
            generation=self.effect.generation, why=why, code=code, kept=kept, anatomy=self._anatomy()
        )
        self.context.submit(self.unit, report)

    def succeeded(self, launch: Launch, running: Running) -> None:
        """Report the success and watch the engine from now on."""
        unit = self.unit
        unit.running, unit.launched = running, launch
        self.context.journal.post([unit.placed(self.context.clock.now_us())])
        watch(self.context, unit, running)
        report = WakeSucceeded(generation=self.effect.generation, anatomy=self._anatomy())
        self.context.submit(unit, report)

    def _anatomy(self) -> tuple[PhaseSpan, ...]:
        """Return how the time was spent; a log that cannot be read costs the anatomy, never the wake."""
        wake = self.unit.replica.wake
        if wake is None or wake.id != self.effect.wake:
            return ()
        ended_us = self.context.clock.now_us()
        marks = list(self.unit.marks)
        try:
            if self.launch is not None:
                marks = list(self.unit.equipment.engine.refine(self.launch, marks, wake.began_us, ended_us))
        except Exception as error:
            self.context.log.warning("cannot refine a wake", model=self.unit.model, why=repr(error))
        return self.context.leaves(marks, wake.began_us, ended_us)

    def take(self) -> Parked | None:
        """Return what the replica is parked as, which from now on is the wake's to use or to discard."""
        unwatch(self.unit)
        self.touched = True
        kept, self.unit.parked, self.unit.running = self.unit.parked, None, None
        return kept

    async def follow(self, launch: Launch) -> None:
        """Follow the engine's log until cancelled."""
        try:
            await self.unit.equipment.engine.follow(launch, self.report)
        except Exception as error:
            self.context.log.warning("cannot follow a log", model=self.unit.model, why=repr(error))


async def _bring_back(waking: Waking, launch: Launch) -> Running:
    """Wake through the tier's driver with the engine's log followed meanwhile, then check the engine."""
    context, unit, effect = waking.context, waking.unit, waking.effect
    driver = unit.equipment.drivers[effect.from_tier]
    kept = waking.take()
    if effect.from_tier is Tier.COLD:
        if kept is not None:
            await discard(context, unit, kept)
        kept = Parked(replica=unit.id, generation=effect.generation, tier=Tier.COLD)
    if kept is None:
        raise SnapshotRefused(f"nothing is left of what was {effect.from_tier}")
    parked = kept
    follower = context.tasks.create_task(waking.follow(launch))
    try:
        await asyncio.sleep(0)  # the follower takes the log's end before the engine writes to it
        woken = await driver.wake(parked, launch, generation=effect.generation, report=waking.report)
        running = replace(woken, place=launch.place)
        try:
            await _check(waking, launch, running, parked)
            await _ended(follower)
        except BaseException:
            await to_the_end(unit.equipment.processes.kill(running))
            raise
    except BaseException as error:
        await to_the_end(_ended(follower))
        if isinstance(error, NoCapacity) and effect.from_tier not in (Tier.ASLEEP, Tier.COLD):
            waking.touched, unit.parked = False, parked  # and nowhere else has room for a cold start
        elif effect.from_tier is not Tier.COLD:
            # Also an image that is not spent: what now starts cold supersedes it.
            await to_the_end(discard(context, unit, parked))
        raise
    return running


async def _ended(follower: asyncio.Task[None]) -> None:
    """End the follower: it reads what is left of the log. A log on a disk that stalls is not waited for."""
    follower.cancel()
    await asyncio.wait({follower}, timeout=LOG_END_S)


async def _check(waking: Waking, launch: Launch, running: Running, parked: Parked) -> None:
    """Warm up a fresh engine; ask a resumed one for the answer it gave before the park."""
    engine = waking.unit.equipment.engine
    now_us = waking.context.clock.now_us()
    if waking.effect.from_tier not in RESUMING_TIERS:
        waking.report(PhaseMark(phase=Phase.READY, at_us=now_us))  # the engine's log shows when it warms up
        await engine.ready(running, launch)
        return
    waking.report(PhaseMark(phase=Phase.VERIFY, at_us=now_us))
    answer = await engine.probe(running, launch)
    if parked.probe and answer != parked.probe:
        raise DriverError(
            f"the engine woken from {parked.tier} answers {answer!r}; it answered "
            f"{parked.probe!r} before the park"
        )


async def discard(context: FleetContext, unit: Unit, parked: Parked) -> None:
    """Remove what a parked replica keeps. A failure is logged; it does not stop what follows."""
    driver = unit.equipment.drivers.get(parked.tier)
    if driver is None:
        return
    try:
        await driver.discard(parked)
    except (DriverError, OSError) as error:
        context.log.warning("cannot discard", model=unit.model, what=parked.where(), why=str(error))
