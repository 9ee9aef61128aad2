"""A running fleet: recovered at start, ticking while it lasts, closed in order at the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from poorwill.core.entries import Alive, ClockStepped, Noted
from poorwill.core.errors import PoorwillError
from poorwill.core.machine.inputs import Close
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.activator import Connections
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.ports.silence import HostSilent
from poorwill.core.settings import FleetSettings
from poorwill.core.words import RELEASED_CAUSES, ReplicaId
from poorwill.fleet.activator import FleetActivator
from poorwill.fleet.controller import Controller
from poorwill.fleet.feeds import Feeds
from poorwill.fleet.journal import Journal
from poorwill.fleet.lost import unwatch, watch
from poorwill.fleet.recovery import ModelPlan, Recovery, Remembered
from poorwill.fleet.reshaping import Reshaper
from poorwill.fleet.room.freed import until_freed
from poorwill.fleet.room.room import Room
from poorwill.fleet.spending import FleetBridging, SpendGuard
from poorwill.fleet.sweeps.silence import look_out, out_of_sight
from poorwill.fleet.sweeps.sweeper import Sweeper, note_vanished, sweep_is_due, sweep_on_time
from poorwill.fleet.unit import FleetContext, Submit, Unit, end_engine
from poorwill.fleet.view import OperatorView
from poorwill.hosts.files.aside import aside
from poorwill.policies.coldstart.anatomy import anatomy
from poorwill.policies.placement.devices import Devices

DRAIN_SHARE = 0.5
"""The part of the time for a shutdown that requests in flight may take; parks need the rest."""

LAST_RESORT_S = 8.0
"""For ending what a shutdown could not, and naming the rest: within what the unit's TimeoutStopSec adds."""

ALIVE_S = 1.0
ALIVE_PARKED_S = 60.0
"""Between signs of life while everything is parked on disk: a crash then cannot be misdated, since
nothing changes by itself, and an idle machine stays idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What the rest of the program may use of a running fleet."""

    activator: FleetActivator
    bridging: FleetBridging
    view: OperatorView
    controller: Controller
    reshaper: Reshaper
    sweeper: Sweeper

    async def close(self, action: str, exit_us: int) -> None:
        """Fail what is held, then `park`, `leave` or `stop` every replica, within `exit_us`.

        Requests in flight are cut after `DRAIN_SHARE` of it, if not sooner by the replica's own drain; what
        has not come to rest by the end is cancelled, once. Idempotent. Cancelled, or after a defect: nothing
        is waited for any more.
        """
        controller = self.controller
        units = list(controller.units.values())
        close = Close(action=action, drain_us=int(exit_us * DRAIN_SHARE))
        for unit in units:
            if not unit.replica.closing:
                controller.submit(unit, close)
        if controller.broken or controller.given_up:
            return
        try:
            async with asyncio.timeout(exit_us / 1e6):
                for unit in units:
                    while not unit.replica.settled:
                        await unit.changed()
        except asyncio.CancelledError:
            controller.given_up = True
            raise
        except TimeoutError:
            controller.log.warning("not everything came to rest in time", seconds=exit_us / 1e6)
            controller.given_up = True
            for unit in units:
                if unit.running is not None:
                    why = "poorwill is shutting down"
                    controller.connections.cut(unit.running.host, unit.running.port, why)
                if unit.job is not None:
                    unit.job.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetParts:
    """What a running fleet is made of; everything it needs from outside."""

    settings: FleetSettings
    plans: Sequence[ModelPlan]
    remembered: Mapping[ReplicaId, Remembered]
    last_seen_us: int
    journal: Journal
    connections: Connections
    guard: SpendGuard
    clock: Clock
    wall_step_us: Callable[[], int]
    log: Log
    feeds: Feeds
    """The journal tells them what is written."""
    leave: Callable[[Sequence[str]], None]
    """Takes, at the end, what runs on although `on_exit` says otherwise, for people."""
    devices: Devices | None = None
    """The accelerators that replicas get; None: the fleet gives none out."""
    freed_s: float = 5.0
    """How long a park may take to free them: a driver frees what a process held after its end."""
    alive_s: float = ALIVE_S
    """Between signs of life while something costs money by itself."""
    sweep_due: Callable[[], Awaitable[None]] = sweep_is_due
    """Returns each time the orphan sweep is due."""


@asynccontextmanager
async def running_fleet(parts: FleetParts) -> AsyncIterator[Fleet]:
    """Recover the fleet and run it until the context ends, then shut it down within its `exit_s`.

    Leaving the context, also by cancellation, closes the replicas as `on_exit` says. A second
    cancellation ends the waiting. What then runs on although `on_exit` says otherwise is told to `leave`.
    """
    async with asyncio.TaskGroup() as tasks:
        sweeper = Sweeper(clock=parts.clock, log=parts.log, reap_orphans=parts.settings.reap_orphans)
        reshaper = await _recovered(parts, sweeper, tasks)
        controller = reshaper.controller
        await parts.guard.attend(controller)  # before a floor may wake what a limit stops
        for unit in controller.units.values():
            if unit.running is not None:
                watch(controller.context, unit, unit.running)
            elif unit.unseen is not None:
                look_out(controller.context, unit)
            controller.arm(unit)
        background = [
            tasks.create_task(_signs_of_life(controller, parts)),
            tasks.create_task(parts.guard.watch(controller)),
            tasks.create_task(sweep_on_time(sweeper, controller.context, parts.sweep_due)),
        ]
        fleet = Fleet(
            activator=FleetActivator(controller=controller),
            bridging=FleetBridging(controller=controller, guard=parts.guard),
            view=OperatorView(
                controller=controller, guard=parts.guard, feeds=parts.feeds, room=reshaper.room
            ),
            controller=controller,
            reshaper=reshaper,
            sweeper=sweeper,
        )
        try:
            yield fleet
        finally:
            try:
                await fleet.close(reshaper.settings.on_exit, reshaper.settings.exit_us)
            finally:
                await _end_the_rest(controller, sweeper, reshaper.settings.on_exit, parts.leave)
                for task in background:
                    task.cancel()
                reshaper.close()
                for unit in controller.units.values():
                    unwatch(unit)
                    if unit.timer is not None:
                        unit.timer.cancel()
                parts.feeds.close()
                await _say_goodbye(controller)


async def _recovered(parts: FleetParts, sweeper: Sweeper, tasks: asyncio.TaskGroup) -> Reshaper:
    """Reconcile the ledger with the machine and return a controller of what there is, and what changes it."""
    recovery = Recovery(
        plans=parts.plans,
        remembered=parts.remembered,
        last_seen_us=parts.last_seen_us,
        clock=parts.clock,
        log=parts.log,
        sweeper=sweeper,
    )
    units = await recovery.units()
    await parts.journal.record([*recovery.entries, Alive(at_us=parts.clock.now_us())])
    room = Room(
        total_bytes=parts.settings.memory_bytes,
        claims={plan.settings.model: plan.claim for plan in parts.plans},
        units=units,
        clock=parts.clock,
        devices=parts.devices,
        freed_s=parts.freed_s,
    )

    def new_context(submit: Submit) -> FleetContext:
        return FleetContext(
            units=units,
            journal=parts.journal,
            connections=parts.connections,
            clock=parts.clock,
            log=parts.log,
            tasks=tasks,
            submit=submit,
            out_of_sight=out_of_sight,
            make_room=room.make,
            leaves=anatomy,
            note_vanished=note_vanished,
            until_freed=partial(until_freed, room, parts.journal),
        )

    controller = Controller(new_context=new_context, wake_began=parts.guard.wake_began)
    room.park = controller.submit
    return Reshaper(
        controller=controller,
        units=units,
        room=room,
        sweeper=sweeper,
        guard=parts.guard,
        settings=parts.settings,
    )


async def _end_the_rest(
    controller: Controller, sweeper: Sweeper, action: str, leave: Callable[[Sequence[str]], None]
) -> None:
    """End at once what `on_exit = "stop"` should have ended; tell what runs on although it should not.

    After a defect nothing is ended: it may be about the very engine. Takes `LAST_RESORT_S` at most.
    Cancelled: what is left is told all the same.
    """
    units = list(controller.units.values())
    known: dict[tuple[str, int, int], str] = {}
    try:
        async with asyncio.timeout(LAST_RESORT_S):
            jobs = [unit.job for unit in units if unit.job is not None and not unit.job.done()]
            for job in jobs:
                job.cancel()
            if jobs:
                await asyncio.wait(jobs)
            if action == "stop" and not controller.broken:
                ends = (
                    end_engine(unit.equipment.processes, unit.running, controller.log)
                    for unit in units
                    if unit.running is not None
                )
                await asyncio.gather(*ends)
            rest = {unit.id: unit for unit in units if _runs_on(unit, action)}
            found = (found for _, found in await sweeper.inventory(rest))
            known = {each.running.key(): each.what for each in found if each.running is not None}
    except TimeoutError:
        controller.log.error("the last attempt to end what runs took too long", seconds=LAST_RESORT_S)
    finally:
        left = [
            f"{unit.id}: {known.get(unit.running.key(), unit.running.where())}"
            for unit in units
            if unit.running is not None and _runs_on(unit, action)
        ]
        if left:
            controller.log.error("engines run on and nobody serves them", left=left, on_exit=action)
        await aside(leave, left)


def _runs_on(unit: Unit, action: str) -> bool:
    """Return whether an engine is there that a shutdown should have parked or stopped."""
    running = unit.running
    if running is None or action == "leave" or (action == "park" and unit.replica.settled):
        return False
    with suppress(HostSilent):
        return unit.equipment.processes.alive(running)
    return True


async def _say_goodbye(controller: Controller) -> None:
    try:
        await controller.journal.record([Alive(at_us=controller.clock.now_us())])
    except PoorwillError as error:
        controller.log.error("the last sign of life is not on disk", why=str(error))


def tell_dropped_rows(controller: Controller) -> None:
    """Note how many request rows the ledger had to drop while it could not be written."""
    dropped = controller.journal.dropped_rows()
    if dropped:
        text = f"{dropped} request rows were dropped while the ledger could not be written"
        controller.log.error("request rows were dropped", rows=dropped)
        at_us = controller.clock.now_us()
        controller.journal.post([Noted(at_us=at_us, kind="request_rows_lost", text=text)])


async def _signs_of_life(controller: Controller, parts: FleetParts) -> None:
    last_us = 0
    while True:
        await asyncio.sleep(parts.alive_s)
        now = controller.clock.now_us()
        stepped = parts.wall_step_us()
        if stepped:
            controller.journal.post([ClockStepped(at_us=now, by_us=stepped)])
        tell_dropped_rows(controller)
        quiet = all(
            unit.replica.state is State.PARKED and unit.replica.load.cause in RELEASED_CAUSES
            for unit in controller.units.values()
        )
        if not quiet or now - last_us >= ALIVE_PARKED_S * 1e6:
            controller.journal.post([Alive(at_us=now)])
            last_us = now
