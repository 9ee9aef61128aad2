"""Parked replicas whose image is gone: evicted to make room for another, or removed by somebody. Likewise
rented machines that are hibernated no more.

Such a replica is cold, whatever the ledger said. Found out here it costs a remark; found out by the next wake
it would cost a failed one.
"""

from collections.abc import Sequence

from poorwill.core.launch import Parked
from poorwill.core.machine.inputs import ImageLost
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import Driver, DriverError, Found
from poorwill.fleet.context import FleetContext
from poorwill.fleet.unit import Unit
from poorwill.fleet.wake import placement


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
        if found is not None and not any(_is(each, parked) for each in found):
            _gone(context, unit, parked)


def _gone(context: FleetContext, unit: Unit, parked: Parked) -> None:
    if unit.replica.state is not State.PARKED or unit.parked is not parked:
        return  # woken or parked deeper while the driver looked
    unit.parked = None
    context.journal.post([placement(context, unit)])
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


def _is(found: Found, parked: Parked) -> bool:
    return found.parked is not None and found.parked.key() == parked.key()
