"""Engines whose host has fallen silent: nobody is sent there until they are seen again."""

from dataclasses import replace

from poorwill.core.entries import Noted
from poorwill.core.launch import Running
from poorwill.core.machine.inputs import EngineLost, Returned
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.silence import HostSilent
from poorwill.fleet.lost import watch
from poorwill.fleet.sweeps.judgement import Owned
from poorwill.fleet.unit import FleetContext, Unit, end_engine, still_answers

RETURNED_S = 20.0
"""How long an engine may take to answer once its host does: Ray takes its time to carry calls there again."""


async def out_of_sight(context: FleetContext, unit: Unit, running: Running, error: Exception) -> bool:
    """Take an error in watching for silence, if it is that; return whether it is, once it is over.

    Nobody is sent to an engine that cannot be seen, and its time is `unobserved` from now on.
    """
    if not isinstance(error, HostSilent):
        return False
    if unit.running is running:  # else a wake or a park has taken over meanwhile
        unit.unseen = Owned(replica=unit.id, running=running, parked=unit.parked)
        unit.running, unit.parked, why = None, None, str(error)
        context.submit(unit, EngineLost(generation=unit.replica.generation, why=why, unobserved=True))
        context.connections.cut(running.host, running.port, why, again=True)
        await _until_seen(context, unit)
    return True


def look_out(context: FleetContext, unit: Unit) -> None:
    """Wait in a task for what is out of sight, until a wake takes over."""
    if unit.unseen is not None and unit.replica.state is State.PARKED:
        unit.watch_task = context.tasks.create_task(_until_seen(context, unit), name=f"watch {unit.id}")


async def _until_seen(context: FleetContext, unit: Unit) -> None:
    """Adopt what is out of sight when it can be seen, or end it if it is dead.

    Its time is `unobserved` until then, or until the replica is woken elsewhere. Cancelled by that wake: what
    is left on the host is then nobody's, and the sweep ends it. The ledger keeps where it is until then.
    """
    unseen = unit.unseen
    assert unseen is not None and unseen.running is not None
    try:
        there = await _is_there(unit, unseen, unseen.running)
    finally:
        unit.unseen = None
    if unit.running is not None or unit.replica.state is not State.PARKED or unit.replica.closing:
        return
    if there:
        _adopt(context, unit, unseen, unseen.running)
        return
    context.submit(unit, EngineLost(generation=unit.replica.generation, why="its host is back without it"))
    context.journal.post([unit.placed(context.clock.now_us())])
    await end_engine(unit.equipment.processes, unseen.running, context.log)


async def _is_there(unit: Unit, unseen: Owned, running: Running) -> bool:
    """Return whether the engine is there once its host can be seen, however often that falls silent."""
    while True:
        try:
            if unseen.parked is not None:
                return unit.equipment.processes.alive(running)
            return await still_answers(unit, running, within_s=RETURNED_S)
        except HostSilent as silence:
            await silence.back()


def _adopt(context: FleetContext, unit: Unit, unseen: Owned, running: Running) -> None:
    """Take on an engine that was out of sight, and serves or sleeps as before: as at a start."""
    now, sleeps = context.clock.now_us(), unseen.parked
    unit.parked, unit.running = sleeps, replace(running, generation=unit.replica.generation)
    text = f"{running.where()}: its host is back"
    found = Noted(at_us=now, kind="adopted", replica=unit.id, model=unit.model, text=text)
    span = unit.cell.found_parked(sleeps.tier, now) if sleeps else unit.cell.found_ready(now)
    context.journal.post([span, unit.placed(now), found])
    watch(context, unit, unit.running)
    context.submit(unit, Returned())  # there is room for who waits
