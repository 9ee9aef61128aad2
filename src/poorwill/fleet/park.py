"""Carries out a park: closes connections, asks for the probe's answer, hands over to the tier's driver.

Whatever happens, exactly one ParkSucceeded or ParkFailed of the effect's generation is submitted, except for
a park that the shutdown cuts short: the next start finds out how it ended.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

from poorwill.core.errors import PoorwillError
from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.machine.effects import StartPark
from poorwill.core.machine.inputs import ParkFailed, ParkSucceeded
from poorwill.core.ports.driver import DriverError
from poorwill.core.words import RESUMING_TIERS, TIER_DEPTH, Tier
from poorwill.fleet.lost import unwatch, watch
from poorwill.fleet.unit import FleetContext, Unit, end_engine, still_answers
from poorwill.fleet.wake import discard

CHECK_UNHARMED_S = 10.0
"""How long an engine whose park failed may take to show that it still answers."""


async def carry_out_park(
    context: FleetContext, unit: Unit, effect: StartPark, committed: Awaitable[None]
) -> None:
    """Carry a StartPark out. Cancelled: the replica is left as the driver's cancellation leaves it."""
    limit_s = unit.replica.settings.park.limit_us / 1e6
    try:
        await _written_down(context, unit, committed)
        async with asyncio.timeout(limit_s):
            parked = await _put_down(context, unit, effect)
    except (DriverError, PoorwillError, OSError, TimeoutError) as error:
        why = str(error) or f"not parked in {limit_s:g} s"
        await _after_failure(context, unit, effect, why)
    except Exception as error:
        context.log.error("a park failed with an unexpected error", model=unit.model, error=repr(error))
        await _after_failure(context, unit, effect, f"internal error: {error!r}")
    else:
        await context.until_freed(unit, parked)
        unit.parked = None if parked.tier is Tier.COLD else parked
        unit.running = parked.running
        context.journal.post([unit.placed(context.clock.now_us())])
        if parked.running is not None:
            watch(context, unit, parked.running)
        done = ParkSucceeded(generation=effect.generation, image_bytes=parked.image_bytes)
        context.submit(unit, done)
    if TIER_DEPTH[Tier.COLD] > TIER_DEPTH[effect.to_tier] > TIER_DEPTH[Tier.ASLEEP]:
        await context.note_vanished(context)  # others may have been evicted to make room for this one


async def _written_down(context: FleetContext, unit: Unit, committed: Awaitable[None]) -> None:
    """Wait for the commit of what asked for the park. A shutdown goes on without: it is the last chance."""
    try:
        await committed
    except PoorwillError as error:
        if not unit.replica.closing:
            raise
        context.log.warning("parking although the ledger cannot be written", model=unit.model, why=str(error))


async def _put_down(context: FleetContext, unit: Unit, effect: StartPark) -> Parked:
    if effect.from_tier is not None:
        return await _descend(context, unit, effect)
    running = unit.running
    if running is None:
        raise DriverError("the engine is gone")
    # The launch it was started by: a model file that is gone by now must not keep it from stopping.
    launch = await unit.known_launch()
    driver = unit.equipment.drivers[effect.to_tier]
    await context.connections.close(running.host, running.port)
    answer = ""
    if effect.to_tier in RESUMING_TIERS:
        _refuse_outdated(running, launch)
        answer = await unit.equipment.engine.probe(running, launch)
    unwatch(unit)
    parked = await driver.park(running, launch, generation=effect.generation)
    return replace(parked, probe=answer, place=running.place)


async def _descend(context: FleetContext, unit: Unit, effect: StartPark) -> Parked:
    """Take a parked replica deeper; into `cold` by throwing away what it keeps."""
    kept = unit.parked
    if kept is None and effect.to_tier is not Tier.COLD:
        raise DriverError(f"nothing is left of what was {effect.from_tier}")
    unwatch(unit)
    if effect.to_tier is Tier.COLD or kept is None:
        if kept is not None:
            await discard(context, unit, kept)
        return Parked(replica=unit.id, generation=effect.generation, tier=Tier.COLD)
    driver = unit.equipment.drivers[effect.to_tier]
    launch = await unit.known_launch()
    if kept.running is not None:
        _refuse_outdated(kept.running, launch)
    parked = await driver.descend(kept, launch, generation=effect.generation)
    return replace(parked, probe=kept.probe, place=kept.place)


def _refuse_outdated(running: Running, launch: Launch) -> None:
    """Raise DriverError if the engine is not what `launch` would start: one adopted after a change.

    Its image would carry the digest of another engine. Parked cold, it starts anew as configured.
    """
    if running.launched != launch.identity():
        raise DriverError(
            f"the engine of {running.replica} was started before its configuration, model or program "
            "changed; parked cold, it starts anew",
            running=running,
        )


async def _after_failure(context: FleetContext, unit: Unit, effect: StartPark, why: str) -> None:
    """Find out what the failed park left: an engine that still answers, a parked replica, or nothing."""
    unharmed = unit.parked is not None
    running = unit.running
    if effect.from_tier is None:
        unharmed = running is not None and await still_answers(unit, running, within_s=CHECK_UNHARMED_S)
        if running is not None and not unharmed:
            if context.out_of_sight(context, unit, running):
                return
            unit.running = None
            await end_engine(unit.equipment.processes, running, context.log)
    if unharmed and running is not None:
        watch(context, unit, running)
    context.journal.post([unit.placed(context.clock.now_us())])
    context.submit(unit, ParkFailed(generation=effect.generation, why=why, unharmed=unharmed))
