"""Carries out a wake: makes room, brings the replica back, warms it up or verifies it, and reports.

Whatever happens, exactly one WakeSucceeded or WakeFailed of the effect's generation is submitted, and a
wake that does not succeed leaves no process behind.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from poorwill.core.anatomy import anatomy
from poorwill.core.effects import StartWake
from poorwill.core.entries import Noted, PhaseSpan, ReplicaPlaced
from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.inputs import EngineLost, PhaseBegan, WakeFailed, WakeSucceeded
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports import DriverError, Report
from poorwill.core.words import Phase, Tier
from poorwill.fleet.unit import Unit

if TYPE_CHECKING:
    from poorwill.fleet.controller import Controller


async def carry_out_wake(
    controller: "Controller", unit: Unit, effect: StartWake, committed: Awaitable[None]
) -> None:
    """Carry a StartWake out. Cancelled by AbortWake: tears down and reports the failure."""
    began_us = controller.clock.now_us()
    unit.marks.clear()
    report = _reporter(controller, unit, effect.generation)
    launch: Launch | None = None

    def spans(ended_us: int) -> tuple[PhaseSpan, ...]:
        began = unit.replica.wake.began_us if unit.replica.wake else began_us
        marks = list(unit.marks)
        if launch is not None:
            marks = list(unit.equipment.engine.refine(launch, marks, began, ended_us))
        return anatomy(marks, began, ended_us)

    def failed(why: str, code: ErrorCode = ErrorCode.WAKE_FAILED, *, kept: bool = False) -> None:
        controller.submit(
            unit,
            WakeFailed(
                generation=effect.generation,
                why=why,
                code=code,
                kept=kept,
                anatomy=spans(controller.clock.now_us()),
            ),
        )

    try:
        await committed
        await controller.room.make(unit)
        launch = unit.launch()
        running = await _bring_back(controller, unit, effect, launch, report)
    except asyncio.CancelledError:
        failed("the wake was aborted")
        raise
    except PoorwillError as error:
        untouched = error.code in (ErrorCode.NO_CAPACITY, ErrorCode.LEDGER_UNAVAILABLE)
        failed(str(error), error.code if untouched else ErrorCode.WAKE_FAILED, kept=untouched)
    except (DriverError, OSError) as error:
        failed(str(error))
    except Exception as error:
        controller.log.error(
            "a wake failed in a way nobody foresaw", model=unit.model, error=repr(error)
        )
        failed(f"internal error: {error!r}")
    else:
        unit.running, unit.parked = running, None
        controller.journal.post([placement(controller, unit, effect.generation)])
        watch(controller, unit, running)
        controller.submit(
            unit,
            WakeSucceeded(generation=effect.generation, anatomy=spans(controller.clock.now_us())),
        )


async def _bring_back(
    controller: "Controller", unit: Unit, effect: StartWake, launch: Launch, report: Report
) -> Running:
    """Wake through the tier's driver with the engine's log followed meanwhile, then check the engine."""
    kept = unit.parked
    if effect.from_tier is Tier.COLD:
        await discard(unit)
        kept = None
    parked = kept or Parked(replica=unit.id, generation=effect.generation, tier=effect.from_tier)
    driver = unit.equipment.drivers[effect.from_tier]
    # A snapshot is woken once: whatever becomes of this wake, the record of it is used up.
    unit.parked = None
    follower = controller.tasks.create_task(_follow(controller, unit, launch, report))
    try:
        running = await driver.wake(parked, launch, generation=effect.generation, report=report)
        try:
            await _check(controller, unit, effect, launch, running, parked, report)
        except BaseException:
            await asyncio.shield(unit.equipment.processes.kill(running))
            raise
    except DriverError:
        if effect.from_tier is not Tier.COLD:
            await driver.discard(parked)
        raise
    finally:
        follower.cancel()
    return running


async def _follow(controller: "Controller", unit: Unit, launch: Launch, report: Report) -> None:
    try:
        await unit.equipment.engine.follow(launch, report)
    except OSError as error:  # a log that cannot be read costs the anatomy, never the wake
        controller.log.warning("cannot follow the engine's log", model=unit.model, why=str(error))


async def _check(
    controller: "Controller",
    unit: Unit,
    effect: StartWake,
    launch: Launch,
    running: Running,
    parked: Parked,
    report: Report,
) -> None:
    """Warm a fresh engine up; ask a woken one for the answer it gave before the park."""
    engine = unit.equipment.engine
    if effect.from_tier is Tier.COLD:
        report(PhaseMark(phase=Phase.WARMUP, at_us=controller.clock.now_us()))
        await engine.ready(running, launch)
        return
    report(PhaseMark(phase=Phase.VERIFY, at_us=controller.clock.now_us()))
    answer = await engine.probe(running, launch)
    if parked.probe and answer != parked.probe:
        raise DriverError(
            f"the engine woken from {parked.tier} answers {answer!r} where it answered "
            f"{parked.probe!r} before the park"
        )


async def discard(unit: Unit) -> None:
    """Remove what a parked replica keeps. A failure to remove is not a reason not to go on."""
    parked, unit.parked = unit.parked, None
    if parked is not None and parked.tier in unit.equipment.drivers:
        await unit.equipment.drivers[parked.tier].discard(parked)


def _reporter(controller: "Controller", unit: Unit, generation: int) -> Report:
    def report(mark: PhaseMark) -> None:
        if unit.replica.generation != generation:
            return
        unit.marks.append(mark)
        controller.submit(unit, PhaseBegan(generation=generation, mark=mark))

    return report


def watch(controller: "Controller", unit: Unit, running: Running) -> None:
    """Watch a running engine from now on; its end becomes an EngineLost."""

    async def wait_for_end() -> None:
        why = await unit.equipment.processes.exited(running)
        await unit.equipment.processes.kill(running)  # what it left of its process group
        if unit.running is running:
            unit.running = None
        controller.journal.post(
            [
                Noted(
                    at_us=controller.clock.now_us(),
                    kind="engine_exited",
                    replica=unit.id,
                    model=unit.model,
                    text=why,
                )
            ]
        )
        controller.submit(unit, EngineLost(generation=unit.replica.generation, why=why))

    unwatch(unit)
    unit.watch_task = controller.tasks.create_task(wait_for_end(), name=f"watch {unit.id}")


def unwatch(unit: Unit) -> None:
    """Stop watching the unit's engine."""
    if unit.watch_task is not None:
        unit.watch_task.cancel()
        unit.watch_task = None


def placement(controller: "Controller", unit: Unit, generation: int) -> ReplicaPlaced:
    """Return where the replica is now, for a poorwill that starts after this one."""
    return ReplicaPlaced(
        replica=unit.id,
        at_us=controller.clock.now_us(),
        generation=generation,
        running_json=unit.running.as_json() if unit.running else "",
        parked_json=unit.parked.as_json() if unit.parked else "",
    )
