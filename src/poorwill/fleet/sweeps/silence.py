"""Engines whose host has fallen silent: nobody is sent there until they are seen again."""

from dataclasses import replace

from poorwill.core.entries import Noted
from poorwill.core.launch import Running
from poorwill.core.machine.inputs import EngineLost, Returned
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.silence import HostSilent
from poorwill.fleet.lost import watch
from poorwill.fleet.unit import FleetContext, Unit, end_engine, still_answers

RETURNED_S = 10.0
"""How long an engine may take to answer once its host does."""


async def out_of_sight(context: FleetContext, unit: Unit, running: Running, error: Exception) -> bool:
    """Take an error in watching for silence, if it is that; return whether it is, once it is over."""
    if not isinstance(error, HostSilent):
        return False
    await _until_seen(context, unit, running, error)
    return True


async def _until_seen(context: FleetContext, unit: Unit, running: Running, silence: HostSilent) -> None:
    """Send nobody to an engine that cannot be seen; when it can be, adopt it, or end it if it is dead.

    Its time is `unobserved` until then, or until the replica is woken elsewhere. Cancelled by that wake: what
    is left on the host is then nobody's, and the sweep ends it. The ledger keeps where it is until then.
    """
    if unit.running is not running:
        return  # a wake or a park has taken over meanwhile
    unit.running, unit.parked, why = None, None, str(silence)
    context.submit(unit, EngineLost(generation=unit.replica.generation, why=why, unobserved=True))
    context.connections.cut(running.host, running.port, why, again=True)
    await silence.back()
    answers = await still_answers(unit, running, within_s=RETURNED_S)
    if unit.running is not None or unit.replica.state is not State.PARKED or unit.replica.closing:
        return
    if answers:
        _adopt(context, unit, running)
        return
    context.submit(unit, EngineLost(generation=unit.replica.generation, why="its host is back without it"))
    context.journal.post([unit.placed(context.clock.now_us())])
    await end_engine(unit.equipment.processes, running, context.log)


def _adopt(context: FleetContext, unit: Unit, running: Running) -> None:
    """Take on the engine of a parked replica, which was out of sight and serves: as at a start."""
    now = context.clock.now_us()
    unit.running = replace(running, generation=unit.replica.generation)
    text = f"{running.where()}: its host is back"
    found = Noted(at_us=now, kind="adopted", replica=unit.id, model=unit.model, text=text)
    context.journal.post([unit.cell.found_ready(now), unit.placed(now), found])
    watch(context, unit, unit.running)
    context.submit(unit, Returned())  # there is room for who waits
