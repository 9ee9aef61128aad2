"""Engines whose host has fallen silent: nobody is sent there until they are seen again."""

from dataclasses import replace

from poorwill.core.entries import Noted
from poorwill.core.launch import Parked, Running
from poorwill.core.machine.inputs import EngineLost, Input, ParkFailed, Returned
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.silence import HostSilent
from poorwill.fleet.lost import watch
from poorwill.fleet.unit import FleetContext, Unit, end_engine, still_answers

RETURNED_S = 20.0
"""How long an engine may take to answer once its host does: Ray takes its time to carry calls there again."""


def out_of_sight(context: FleetContext, unit: Unit, running: Running) -> bool:
    """Return whether an engine's host is silent. Nobody is sent there then, and its time is `unobserved`."""
    try:
        unit.equipment.processes.alive(running)
    except HostSilent as silence:
        if unit.running is running:  # else a wake or a park has taken over meanwhile
            replica, why = unit.replica, str(silence)
            unit.unseen = running, unit.parked
            unit.running = unit.parked = None
            lost: Input = EngineLost(generation=replica.generation, why=why, unobserved=True)
            if replica.state is State.PARKING:
                lost = ParkFailed(generation=replica.generation, why=why, unharmed=False, unobserved=True)
            context.submit(unit, lost)
            context.connections.cut(running.host, running.port, why, again=True)
            look_out(context, unit)
        return True
    return False


def look_out(context: FleetContext, unit: Unit) -> None:
    """Wait in a task for what is out of sight, unless a wake has taken over."""
    if unit.unseen is not None and unit.replica.state is State.PARKED:
        looking = _until_seen(context, unit, *unit.unseen)
        unit.watch_task = context.tasks.create_task(looking, name=f"watch {unit.id}")
    else:
        unit.unseen = None


async def _until_seen(context: FleetContext, unit: Unit, running: Running, sleeps: Parked | None) -> None:
    """Adopt what is out of sight when it can be seen, or end it if it is dead.

    Its time is `unobserved` until then, or until the replica is woken elsewhere. Cancelled by that wake: what
    is left on the host is then nobody's, and the sweep ends it. The ledger keeps where it is until then.
    """
    there = await _is_there(unit, running, asleep=sleeps is not None)
    unit.unseen = None
    if unit.running is not None or unit.replica.state is not State.PARKED or unit.replica.closing:
        return
    if there:
        _adopt(context, unit, running, sleeps)
        return
    context.submit(unit, EngineLost(generation=unit.replica.generation, why="its host is back without it"))
    context.journal.post([unit.placed(context.clock.now_us())])
    await end_engine(unit.equipment.processes, running, context.log)


async def _is_there(unit: Unit, running: Running, *, asleep: bool) -> bool:
    """Return whether the engine is there once its host can be seen, however often that falls silent."""
    while True:
        try:
            answers = asleep or await still_answers(unit, running, within_s=RETURNED_S)
            return unit.equipment.processes.alive(running) and answers
        except HostSilent as silence:
            await silence.back()


def _adopt(context: FleetContext, unit: Unit, running: Running, sleeps: Parked | None) -> None:
    """Take on an engine that was out of sight, and serves or sleeps as before: as at a start."""
    now = context.clock.now_us()
    unit.parked, unit.running = sleeps, replace(running, generation=unit.replica.generation)
    text = f"{running.where()}: its host is back"
    found = Noted(at_us=now, kind="adopted", replica=unit.id, model=unit.model, text=text)
    span = unit.cell.found_parked(sleeps.tier, now) if sleeps else unit.cell.found_ready(now)
    context.journal.post([span, unit.placed(now), found])
    watch(context, unit, unit.running)
    context.submit(unit, Returned())  # there is room for who waits
