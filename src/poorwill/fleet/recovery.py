"""Recovery at start: reconciles what the ledger says with what exists on the machine.

A running engine that answers is adopted, anything else of ours is ended; what is on a host that is silent
is adopted or ended when that is back; a snapshot that is still there is kept. The time in which poorwill was
down while the replica was not is `unobserved`. A replica that was parked and still is has simply been
parked: nothing about it needed to be observed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from poorwill.core.entries import (
    Entry,
    Noted,
    ReplicaCreated,
    ReplicaEnded,
    SpanOpened,
    WakeEnded,
)
from poorwill.core.errors import PoorwillError
from poorwill.core.launch import Parked, Running
from poorwill.core.machine.cell import Cell
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.replica import Load, Replica
from poorwill.core.machine.transition import REMEMBERED_WAKES
from poorwill.core.policy import FloorSchedule, Policy
from poorwill.core.ports.activator import Lease
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.log import Log
from poorwill.core.ports.silence import HostSilent
from poorwill.core.settings import ReplicaSettings
from poorwill.core.words import (
    ORPHAN,
    PARKED_CAUSES,
    RELEASED_CAUSES,
    UNOBSERVED,
    Cause,
    HoldId,
    ModelName,
    ReplicaId,
    Tier,
    WakeId,
    parked,
    replica_id,
)
from poorwill.fleet.room.residents import Claim
from poorwill.fleet.sweeps.judgement import may_exist
from poorwill.fleet.sweeps.sweeper import Sweeper
from poorwill.fleet.unit import Equipment, Unit, end_engine, still_answers
from poorwill.policies.dispatch import Replicas

ADOPTION_S = 10.0
"""How long an engine that is to be adopted may take to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPlan:
    """One level of a model's demand; it has as many as replicas."""

    policy: Policy
    floor: FloorSchedule
    gaps_us: Sequence[int] = ()
    """How long its quiet stretches were so far, the latest last; for eviction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """One configured model with everything its replicas need."""

    settings: ReplicaSettings
    levels: Sequence[LevelPlan]
    equipment: Equipment
    driver: str
    """Name of the driver it is started by, for the ledger's rates."""
    claim: Claim = field(default_factory=Claim)
    generation: int = 0
    """Of new replicas: leases of namesakes that have left are void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What the ledger knows of a replica that has not ended."""

    replica: ReplicaId
    model: ModelName
    generation: int
    cause: Cause
    since_us: int
    """Of the open span."""
    open_wake: WakeId | None = None
    running: Running | None = None
    parked: Parked | None = None
    wakes_us: Mapping[Tier, tuple[int, ...]] = field(default_factory=dict)
    """Durations of its successful wakes, the latest last, by the tier woken from."""
    idle_since_us: int = 0

    @property
    def machine(self) -> str:
        """The rented machine that it was on, or the host that it runs on; empty: this machine."""
        held = self.running or (self.parked if self.parked and self.parked.path is None else None)
        return held.machine if held is not None else ""


@dataclass(slots=True, kw_only=True)
class Recovery:
    """One recovery, from what is remembered to units ready to be controlled."""

    plans: Sequence[ModelPlan]
    remembered: Mapping[ReplicaId, Remembered]
    last_seen_us: int
    clock: Clock
    log: Log
    sweeper: Sweeper
    entries: list[Entry] = field(default_factory=list)

    async def units(self) -> dict[ReplicaId, Unit]:
        """Return a unit for every replica, in the order of the plans; ends what belongs to none.

        `entries` then holds what must be recorded before anything else. Cancelled: processes already
        ended stay ended; calling it again is safe.
        """
        units = {unit.id: unit for plan in self.plans for unit in await self.units_of(plan)}
        known = units.keys()
        for gone in self.remembered.values():
            if gone.replica not in known:
                self._end(gone)
        # What is left over of replicas in the ledger is ours to end; of others the operator decides.
        self.entries += await self.sweeper.sweep(units, ended=known | self.remembered.keys())
        return units

    async def units_of(self, plan: ModelPlan) -> Sequence[Unit]:
        """Return the units of one plan; `entries` gets what must be recorded of them."""
        queue, waiting = HoldQueue(), dict[HoldId, asyncio.Future[Lease]]()
        cells = [self._cell(plan, number, queue) for number in range(len(plan.levels))]
        replicas = Replicas(cells)
        units = [
            Unit(cell=cell, replicas=replicas, equipment=plan.equipment, driver=plan.driver, waiting=waiting)
            for cell in cells
        ]
        for unit in units:
            await self._found(unit)
        return units

    def _cell(self, plan: ModelPlan, number: int, queue: HoldQueue) -> Cell:
        """Return a replica's cell as the ledger remembers it."""
        replica_of, level = replica_id(plan.settings.model, number), plan.levels[number]
        known = self.remembered.get(replica_of)
        now = self.clock.now_us()
        wakes_us = known.wakes_us if known else {}
        recent = {tier: wakes[-REMEMBERED_WAKES:] for tier, wakes in wakes_us.items()}
        replica = Replica(
            id=replica_of,
            settings=plan.settings,
            policy=level.policy,
            floor=level.floor,
            generation=known.generation if known else plan.generation,
            load=Load(0, (known.idle_since_us or known.since_us) if known else now),
            # What the policy predicted for the time before is past: only later wakes are due.
            park_began_us=now,
            recent_wakes_us=MappingProxyType(recent),
        )
        return Cell(
            replica,
            queue,
            quiet_since_us=(known.idle_since_us or None) if known else None,
            gaps_us=level.gaps_us,
            wakes_us=[wake for wakes in wakes_us.values() for wake in wakes],
        )

    async def _found(self, unit: Unit) -> None:
        """Find out where a replica is now; a new one is parked cold."""
        known, now = self.remembered.get(unit.id), self.clock.now_us()
        if known is not None:
            await self._resume(unit, known)
            return
        self.entries += [
            ReplicaCreated(replica=unit.id, model=unit.model, driver=unit.driver, at_us=now),
            unit.cell.found_parked(Tier.COLD, now),
        ]

    async def _resume(self, unit: Unit, known: Remembered) -> None:
        """Keep what sleeps, adopt what serves, keep what is on disk, or give up: in this order."""
        gap_us, now = max(self.last_seen_us, known.since_us), self.clock.now_us()
        if known.open_wake is not None:
            self.entries.append(
                WakeEnded(
                    wake=known.open_wake,
                    replica=known.replica,
                    at_us=gap_us,
                    ok=False,
                    why="poorwill ended while it was under way",
                )
            )
        if (mine := unit.equipment.machine) and known.machine and known.machine != mine:
            text = f"{mine} in place of {known.machine}, which may run on, and be billed"
            self._note("machine_changed", unit.id, unit.model, text)
            self.entries.append(unit.placed(now))
        kept = known.parked if known.cause in PARKED_CAUSES else None
        sleeps = kept is not None and kept.running is not None
        try:
            await self._find(unit, known, kept, gap_us, sleeps=sleeps)
        except HostSilent as silence:
            self._unobserved(known, gap_us)
            since_us = known.since_us if known.cause == UNOBSERVED else gap_us
            unit.cell.found_parked(Tier.COLD, since_us, UNOBSERVED)
            assert known.running is not None
            unit.unseen = known.running, kept if sleeps else None
            self._note("host_silent", unit.id, unit.model, str(silence))

    async def _find(
        self, unit: Unit, known: Remembered, kept: Parked | None, gap_us: int, *, sleeps: bool
    ) -> None:
        """As `_resume`. Raises HostSilent if nobody can tell."""
        if known.running is not None and not sleeps:
            answers = await still_answers(unit, known.running, within_s=ADOPTION_S)
            if unit.equipment.processes.alive(known.running) and answers:
                self._unobserved(known, gap_us)
                self._adopt(unit, known.running)
                return
            await end_engine(unit.equipment.processes, known.running, self.log)
        if kept is not None and await self._still_there(unit, kept):
            unit.parked, unit.running = kept, kept.running
            self._stay(unit, known, kept.tier, gap_us)
            return
        if sleeps and known.running is not None:
            await end_engine(unit.equipment.processes, known.running, self.log)
        self._stay(unit, known, Tier.COLD, gap_us)

    def _adopt(self, unit: Unit, running: Running) -> None:
        now = self.clock.now_us()
        unit.running = replace(running, generation=unit.replica.generation)
        self.entries.append(unit.cell.found_ready(now))
        text = running.where()
        if not _up_to_date(unit, running):
            text += "; started before its configuration, model or program changed: it is parked cold next"
        self._note("adopted", unit.id, unit.model, text)

    def _stay(self, unit: Unit, known: Remembered, tier: Tier, gap_us: int) -> None:
        """Be parked. Unobserved time lies before, unless it was parked on disk all along."""
        now = self.clock.now_us()
        if known.cause == parked(tier):
            unit.cell.found_parked(tier, known.since_us)  # its span goes on
            return
        if known.cause not in RELEASED_CAUSES:  # what is on disk alone costs no more for being lost
            self._unobserved(known, gap_us)
        self.entries += [
            unit.cell.found_parked(tier, now),
            unit.placed(now),
        ]

    def _unobserved(self, known: Remembered, gap_us: int) -> None:
        if known.cause != UNOBSERVED:
            why = "poorwill was not running"
            self.entries.append(SpanOpened(replica=known.replica, at_us=gap_us, cause=UNOBSERVED, why=why))

    def _end(self, gone: Remembered) -> None:
        self._unobserved(gone, max(self.last_seen_us, gone.since_us))
        self.entries.append(ReplicaEnded(replica=gone.replica, at_us=self.clock.now_us()))
        if gone.cause != ORPHAN:  # the sweep that follows finds it anew, if it is there still
            runs_on = f"; {gone.machine} may run on, and be billed" if gone.machine else ""
            self._note("model_removed", gone.replica, gone.model, "no longer configured" + runs_on)

    async def _still_there(self, unit: Unit, kept: Parked) -> bool:
        driver = unit.equipment.drivers.get(kept.tier)
        if driver is None:
            return False
        if kept.running is not None:
            alive = unit.equipment.processes.alive(kept.running)
            return alive and _up_to_date(unit, kept.running)
        try:
            return may_exist(kept, await driver.inventory())
        except (DriverError, OSError) as error:
            # Not to be able to look says nothing of the image; a wake refuses one that is gone.
            self.log.error("cannot look for what is parked", replica=unit.id, why=str(error))
            return True

    def _note(self, kind: str, replica: ReplicaId, model: ModelName | None, text: str) -> None:
        self.entries.append(
            Noted(at_us=self.clock.now_us(), kind=kind, replica=replica, model=model, text=text)
        )


def _up_to_date(unit: Unit, running: Running) -> bool:
    """Return whether the engine is what would be started now."""
    try:
        return running.launched == unit.launch().identity()
    except (PoorwillError, OSError):
        return False
