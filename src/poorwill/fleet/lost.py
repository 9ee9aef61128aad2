"""Detects losses that no command of poorwill caused: engines that exit and images that vanish.

A replica whose image was evicted or removed, or whose rented machine hibernates no more, is cold whatever the
ledger says. Found here it costs a note; found by the next wake it would cost a failed one.
"""

import asyncio
from collections.abc import Sequence

from poorwill.core.entries import Noted
from poorwill.core.launch import Parked, Running
from poorwill.core.machine.inputs import EngineLost, ImageLost
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import Driver, DriverError, Found
from poorwill.fleet.context import FleetContext
from poorwill.fleet.unit import Unit, end_engine


def watch(context: FleetContext, unit: Unit, running: Running) -> None:
    """Watch a running engine from now on, instead of whatever was watched before."""
    unwatch(unit)
    end = _wait_for_end(context, unit, running)
    unit.watch_task = context.tasks.create_task(end, name=f"watch {unit.id}")


def unwatch(unit: Unit) -> None:
    """Stop watching the unit's engine."""
    if unit.watch_task is not None:
        unit.watch_task.cancel()
        unit.watch_task = None


async def _wait_for_end(context: FleetContext, unit: Unit, running: Running) -> None:
    """Wait for the process to end, clear up after it and say so. One that cannot be watched is ended."""
    processes = unit.equipment.processes
    try:
        why = await processes.exited(running)
    except Exception as error:
        why = f"its process cannot be watched: {error!r}"
    await lose(context, unit, running, why, kind="engine_exited", cut=bool(running.machine))


async def lose(
    context: FleetContext, unit: Unit, running: Running, why: str, *, kind: str, cut: bool
) -> None:
    """Say at once that an engine is lost, so that nobody is sent to it, and end what is left of it.

    `cut`: no kernel of ours resets connections. The next wake waits for the end. Cancelled: it goes on.
    """
    ended = context.tasks.create_task(end_engine(unit.equipment.processes, running, context.log))
    if unit.running is running:  # else a wake or a park has taken over meanwhile
        unit.running, unit.parked, unit.ending = None, None, ended
        now = context.clock.now_us()
        text = Noted(at_us=now, kind=kind, replica=unit.id, model=unit.model, text=why)
        context.journal.post([text, unit.placed(now)])
        context.submit(unit, EngineLost(generation=unit.replica.generation, why=why))
    if cut:
        context.connections.cut(running.host, running.port, "its engine is lost")
    await asyncio.wait([ended])


async def note_vanished(context: FleetContext) -> None:
    """Take every resting replica whose image its driver does not find for cold, and note that.

    A driver that cannot look finds nothing out. Never raises; cancelled: the rest is left for the next look.
    """
    resting = [
        (unit, unit.parked)
        for unit in context.units.values()
        if unit.parked is not None and (unit.parked.path is not None or unit.parked.machine)
    ]
    seen: dict[int, Sequence[Found] | None] = {}
    for unit, parked in resting:
        driver = unit.equipment.drivers.get(parked.tier)
        if driver is None:
            continue
        if id(driver) not in seen:
            seen[id(driver)] = await _look(context, driver)
        found = seen[id(driver)]
        keys = [each.parked.key() for each in found or () if each.parked is not None]
        if found is not None and parked.key() not in keys:
            _gone(context, unit, parked)


def _gone(context: FleetContext, unit: Unit, parked: Parked) -> None:
    if unit.replica.state is not State.PARKED or unit.parked is not parked:
        return  # woken or parked deeper while the driver looked
    unit.parked = None
    context.journal.post([unit.placed(context.clock.now_us())])
    why = f"{parked.path} is gone: evicted or removed; the next wake is cold"
    if parked.machine:
        why = f"{parked.machine} is not hibernated any more; the next wake is cold"
    context.log.warning("what was parked is gone", model=unit.model, what=parked.where())
    context.submit(unit, ImageLost(generation=unit.replica.generation, why=why))


async def _look(context: FleetContext, driver: Driver) -> Sequence[Found] | None:
    try:
        return await driver.inventory()
    except (DriverError, OSError) as error:
        context.log.warning("cannot look for images", driver=driver.name, why=str(error))
        return None
