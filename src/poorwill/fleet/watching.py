"""Watches running engines: the end of a process becomes an EngineLost, whoever started it."""

from poorwill.core.entries import Noted, ReplicaPlaced
from poorwill.core.launch import Running
from poorwill.core.machine.inputs import EngineLost
from poorwill.core.ports.driver import DriverError
from poorwill.fleet.context import FleetContext
from poorwill.fleet.unit import Unit


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
    if running.machine:  # no kernel of ours resets the connections to it
        context.connections.cut(running.host, running.port, f"its engine is lost: {why}")
    try:
        await processes.kill(running)  # what it left of its process group
    except (DriverError, OSError) as error:
        context.log.error("cannot end an engine", model=unit.model, why=str(error))
    if unit.running is not running:
        return  # a wake or a park has taken over meanwhile
    unit.running = unit.parked = None
    now = context.clock.now_us()
    text = Noted(at_us=now, kind="engine_exited", replica=unit.id, model=unit.model, text=why)
    nowhere = ReplicaPlaced(replica=unit.id, at_us=now, generation=unit.replica.generation)
    context.journal.post([text, nowhere])
    context.submit(unit, EngineLost(generation=unit.replica.generation, why=why))
