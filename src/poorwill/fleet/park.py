"""Carries out a park: closes connections, asks for the probe's answer, hands over to the tier's driver.

Whatever happens, exactly one ParkSucceeded or ParkFailed of the effect's generation is submitted.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING

from poorwill.core.effects import StartPark
from poorwill.core.errors import PoorwillError
from poorwill.core.inputs import ParkFailed, ParkSucceeded
from poorwill.core.launch import Parked, Running
from poorwill.core.ports import DriverError
from poorwill.core.words import Tier
from poorwill.fleet.unit import Unit
from poorwill.fleet.wake import discard, placement, unwatch, watch

if TYPE_CHECKING:
    from poorwill.fleet.controller import Controller

CHECK_UNHARMED_S = 10.0
"""How long an engine whose park failed may take to show that it still answers."""


async def carry_out_park(
    controller: "Controller", unit: Unit, effect: StartPark, committed: Awaitable[None]
) -> None:
    """Carry a StartPark out. Cancelled: the replica is left as the driver's cancellation leaves it."""
    try:
        await committed
        async with asyncio.timeout(unit.replica.settings.park.limit_us / 1e6):
            parked = await _put_down(controller, unit, effect)
    except (DriverError, PoorwillError, OSError, TimeoutError) as error:
        why = str(error) or f"not parked in {unit.replica.settings.park.limit_us / 1e6:g} s"
        await _after_failure(controller, unit, effect, why)
    except Exception as error:
        controller.log.error(
            "a park failed in a way nobody foresaw", model=unit.model, error=repr(error)
        )
        await _after_failure(controller, unit, effect, f"internal error: {error!r}")
    else:
        unit.parked = None if parked.tier is Tier.COLD else parked
        unit.running = parked.running
        controller.journal.post([placement(controller, unit, effect.generation)])
        if parked.running is not None:
            watch(controller, unit, parked.running)
        done = ParkSucceeded(generation=effect.generation, image_bytes=parked.image_bytes)
        controller.submit(unit, done)


async def _put_down(controller: "Controller", unit: Unit, effect: StartPark) -> Parked:
    launch = unit.launch()
    driver = unit.equipment.drivers[effect.to_tier]
    if effect.from_tier is not None:
        return await _descend(unit, effect)
    running = unit.running
    if running is None:
        raise DriverError("the engine is gone")
    await controller.connections.close(running.host, running.port)
    answer = ""
    if effect.to_tier is not Tier.COLD:
        answer = await unit.equipment.engine.probe(running, launch)
    unwatch(unit)
    parked = await driver.park(running, launch, generation=effect.generation)
    return replace(parked, probe=answer)


async def _descend(unit: Unit, effect: StartPark) -> Parked:
    """Take a parked replica deeper; into `cold` by throwing away what it keeps."""
    kept = unit.parked
    if effect.to_tier is Tier.COLD or kept is None:
        unwatch(unit)
        await discard(unit)
        return Parked(replica=unit.id, generation=effect.generation, tier=Tier.COLD)
    unwatch(unit)
    driver = unit.equipment.drivers[effect.to_tier]
    parked = await driver.descend(kept, unit.launch(), generation=effect.generation)
    return replace(parked, probe=kept.probe)


async def _after_failure(controller: "Controller", unit: Unit, effect: StartPark, why: str) -> None:
    """Find out what the failed park left: an engine that still answers, a parked replica, or nothing."""
    unharmed = True
    running = unit.running
    if effect.from_tier is None:
        unharmed = running is not None and await _answers(unit, running)
        if not unharmed:
            unit.running = None
            if running is not None:
                await unit.equipment.processes.kill(running)
    if unharmed and running is not None:
        watch(controller, unit, running)
    controller.journal.post([placement(controller, unit, effect.generation)])
    controller.submit(unit, ParkFailed(generation=effect.generation, why=why, unharmed=unharmed))


async def _answers(unit: Unit, running: Running) -> bool:
    if not unit.equipment.processes.alive(running):
        return False
    try:
        async with asyncio.timeout(CHECK_UNHARMED_S):
            await unit.equipment.engine.ready(running, unit.launch())
    except (DriverError, PoorwillError, OSError, TimeoutError):
        return False
    return True
