"""Has a running fleet follow a changed configuration: models come, go, change, and start anew.

A model that did not change is not touched. One that is no longer configured serves nobody new, finishes what
it has within its drain, and is gone. One whose engine is configured otherwise drains, however much is asked
of it, and its next start is of the new kind; who asks meanwhile is held for that. All else holds at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from poorwill.core.entries import Noted, ReplicaEnded
from poorwill.core.machine.inputs import Close, ParkAsked
from poorwill.core.machine.lifecycle import State
from poorwill.core.settings import FleetSettings
from poorwill.core.words import SECOND_US, ModelName, ReplicaId, Tier
from poorwill.fleet.controller import Controller
from poorwill.fleet.lost import unwatch
from poorwill.fleet.recovery import ModelPlan, Recovery
from poorwill.fleet.room.room import Room
from poorwill.fleet.spending import SpendGuard
from poorwill.fleet.sweeps.sweeper import Sweeper
from poorwill.fleet.unit import Unit, end_engine
from poorwill.fleet.wake import discard

RECHECK_S = 1.0
"""How often a replica is looked at that would not be parked: what passes by itself is not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshaping:
    """What becomes of the models of a fleet."""

    settings: FleetSettings
    """What is in force from now on."""
    added: Sequence[ModelPlan] = ()
    removed: Sequence[ModelName] = ()
    adjusted: Sequence[ModelPlan] = ()
    """What is changed about them is poorwill's own business: the engine runs on."""
    renewed: Sequence[ModelPlan] = ()
    """Their engines are started in another way."""


@dataclass(slots=True, kw_only=True)
class Reshaper:
    """Changes the units of a controller while it runs."""

    controller: Controller
    units: dict[ReplicaId, Unit]
    """The controller's own."""
    room: Room
    sweeper: Sweeper
    guard: SpendGuard
    settings: FleetSettings
    """What is in force."""
    coming: dict[ModelName, ModelPlan] = field(default_factory=dict)
    """Models that are there as soon as their predecessors of the same name have left."""
    generations: dict[ModelName, int] = field(default_factory=dict)
    """With which the replicas of a namesake of a model that has left begin."""
    jobs: dict[ModelName, asyncio.Task[None]] = field(default_factory=dict)
    """The last thing begun about a model; it waits for what was begun before."""

    async def reshape(self, to: Reshaping) -> None:
        """Begin what is to be done. On return, models that were added serve; drains go on.

        Cancelled: some models may not have been added.
        """
        self.settings = to.settings
        self.room.total_bytes = to.settings.memory_bytes
        self.sweeper.reap_orphans = to.settings.reap_orphans
        for model in to.removed:
            if self.coming.pop(model, None) is None:
                self._leave(model)
        for plan in (*to.adjusted, *to.renewed):
            self._make_room_for(plan)
            model = plan.settings.model
            if model in self.coming:
                self.coming[model] = plan
            elif len(self.controller.models[model].cells) != len(plan.levels):
                self._leave(model)  # with another number of replicas it is another model
                self._come(plan)
            else:
                levels = [(level.policy, level.floor) for level in plan.levels]
                self.controller.configure(plan.settings, levels)
                for unit in self._units_of(model):
                    self._equip(unit, plan, anew=plan in to.renewed)
        for plan in to.added:
            self._make_room_for(plan)
            if self._units_of(plan.settings.model):
                self._come(plan)
            else:
                self.coming[plan.settings.model] = plan
                await self._join(plan.settings.model)
        models = self.controller.models
        for model in [each.name for each in to.settings.models]:  # in the configuration's order
            self.units.update({unit.id: self.units.pop(unit.id) for unit in self._units_of(model)})
            if model in models:
                models[model] = models.pop(model)

    def close(self) -> None:
        """Give up what is not done. Called when the fleet has been closed."""
        for job in self.jobs.values():
            job.cancel()

    def _make_room_for(self, plan: ModelPlan) -> None:
        self.room.claims[plan.settings.model] = plan.claim

    def _units_of(self, model: ModelName) -> Sequence[Unit]:
        return [unit for unit in self.units.values() if unit.model == model]

    def _come(self, plan: ModelPlan) -> None:
        """Have a model serve as soon as its namesake has left."""
        model = plan.settings.model
        self.coming[model] = plan
        self._after(model, partial(self._join, model))

    def _after(self, model: ModelName, work: Callable[[], Awaitable[None]]) -> None:
        before = self.jobs.get(model)

        async def then() -> None:
            if before is not None:
                await asyncio.wait([before])
            await work()

        self.jobs[model] = self.controller.tasks.create_task(then(), name=f"reshape {model}")

    def _equip(self, unit: Unit, plan: ModelPlan, *, anew: bool) -> None:
        """Give a unit its drivers; those that it has stay, for what they have parked."""
        drivers = {**unit.equipment.drivers, **plan.equipment.drivers}
        if not anew:
            unit.equipment = replace(unit.equipment, drivers=drivers)
            if unit.next_equipment is not None:
                unit.next_equipment = replace(unit.next_equipment, drivers=drivers)
            return
        unit.next_equipment = replace(plan.equipment, drivers=drivers)
        self._put_down(unit)  # at once: no request may wake an image of the old engine
        self._after(unit.model, partial(self._renew, unit))

    async def _renew(self, unit: Unit) -> None:
        """See to it that a replica starts anew, with its new equipment, before long."""
        while unit.next_equipment is not None and not unit.replica.closing:
            try:
                async with asyncio.timeout(RECHECK_S):
                    await unit.changed()
            except TimeoutError:
                pass
            self._put_down(unit)

    def _put_down(self, unit: Unit) -> None:
        """Park a replica cold for its new equipment, unless it wakes or parks just now."""
        replica = unit.replica
        if unit.next_equipment is None or replica.closing:
            return
        if replica.state is State.PARKED and replica.tier is Tier.COLD:
            unit.renew()
        elif replica.state in (State.READY, State.PARKED):
            if self.controller.clock.now_us() >= replica.park_after_us:
                why = "its engine is configured otherwise"
                self.controller.submit(unit, ParkAsked(tier=Tier.COLD, why=why, firm=True))

    async def _join(self, model: ModelName) -> None:
        plan = self.coming.pop(model, None)
        if plan is None or self._units_of(model):
            return
        controller = self.controller
        clock, log = controller.clock, controller.log
        plan = replace(plan, generation=self.generations.get(model, 0))
        recovery = Recovery(
            plans=[plan], remembered={}, last_seen_us=0, clock=clock, log=log, sweeper=self.sweeper
        )
        units = await recovery.units_of(plan)
        controller.journal.post(recovery.entries)
        self.units.update({unit.id: unit for unit in units})
        controller.models[model] = units[0].replicas
        self.guard.block(controller)  # before a floor may wake what a limit stops
        for unit in units:
            controller.arm(unit)

    def _leave(self, model: ModelName) -> None:
        del self.controller.models[model]
        for unit in self._units_of(model):
            self.controller.submit(unit, Close(action="stop", why=f"{model} is no longer configured"))
            self._after(model, partial(self._go, unit))

    async def _go(self, unit: Unit) -> None:
        """Wait until a replica serves nobody; end what is left of it, and its life in the ledger."""
        context, park = self.controller.context, unit.replica.settings.park
        try:
            async with asyncio.timeout((park.drain_us + park.limit_us) / SECOND_US):
                while not unit.replica.settled:
                    await unit.changed()
        except TimeoutError:
            context.log.warning("a model that leaves did not come to rest", model=unit.model)
        if unit.job is not None and not unit.job.done():
            unit.job.cancel()
            await asyncio.wait([unit.job])
        unwatch(unit)
        if unit.timer is not None:
            unit.timer.cancel()
        if unit.parked is not None:
            await discard(context, unit, unit.parked)
        if unit.running is not None:
            await end_engine(unit.equipment.processes, unit.running, context.log)
        del self.units[unit.id]
        following = unit.replica.generation + 1
        self.generations[unit.model] = max(self.generations.get(unit.model, 0), following)
        now = context.clock.now_us()
        text = "no longer configured"
        gone = Noted(at_us=now, kind="model_removed", replica=unit.id, model=unit.model, text=text)
        context.journal.post([ReplicaEnded(replica=unit.id, at_us=now), gone])


@dataclass(slots=True)
class Hangups:
    """Asks for a reload at each SIGHUP; one that comes before the fleet is served is not lost."""

    asked: bool = False
    reload: Callable[[], None] | None = None

    def one(self) -> None:
        """Ask, now or as soon as somebody can be asked."""
        self.asked = True
        if self.reload is not None:
            self.reload()

    def pass_on(self, reload: Callable[[], None]) -> None:
        """Ask here from now on."""
        self.reload = reload
        if self.asked:
            reload()
