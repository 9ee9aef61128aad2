"""Detects engines that exit without a command of poorwill."""

import asyncio

from poorwill.core.entries import Noted
from poorwill.core.launch import Running
from poorwill.core.machine.inputs import EngineLost
from poorwill.fleet.unit import FleetContext, Unit, end_engine

WATCH_AGAIN_S = 5.0


def watch(context: FleetContext, unit: Unit, running: Running) -> None:
    """Watch a running engine from now on, instead of whatever was watched before."""
    unwatch(unit)
    unit.watch_task = context.tasks.create_task(_until_end(context, unit, running), name=f"watch {unit.id}")


def unwatch(unit: Unit) -> None:
    """Stop watching the unit's engine, or for it."""
    unit.unseen = None
    if unit.watch_task is not None:
        unit.watch_task.cancel()
        unit.watch_task = None


async def _until_end(context: FleetContext, unit: Unit, running: Running) -> None:
    """Wait for the process to end, clear up after it and say so. An error in watching is no end."""
    processes, why = unit.equipment.processes, ""
    while not why:
        try:
            why = await processes.exited(running)
        except Exception as error:
            if context.out_of_sight(context, unit, running):
                return
            context.log.error("cannot watch an engine", replica=unit.id, why=repr(error))
            if not processes.alive(running):
                why = f"it is gone, and how it ended is not known: {error!r}"
            await asyncio.sleep(WATCH_AGAIN_S)
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
