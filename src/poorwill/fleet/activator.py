"""The gateway's door to the fleet: leases, claimed synchronously on the warm path, held otherwise."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.machine.inputs import Demand, Withdrawn
from poorwill.core.ports.activator import Lease, WakeNotice
from poorwill.core.words import HoldId, ModelName, ReplicaId, WakeId
from poorwill.fleet.controller import Controller
from poorwill.fleet.unit import Unit


class FleetActivator:
    """Implements `core.ports.activator.Activator` over a controller."""

    def __init__(self, *, controller: Controller) -> None:
        self._controller = controller
        self._units = controller.units
        self._models = controller.models
        self._clock = controller.clock
        self._hold_ids = itertools.count(1)

    def claim(self, model: ModelName, last: Callable[[], ReplicaId | None] | None = None) -> Lease | None:
        """Take a lease now, or return None; while the ledger cannot be written, there is none to be had."""
        replicas = self._models[model]
        if self._controller.journal.unavailable:
            return None
        claimed = replicas.claim(self._clock.now_us(), last)
        if claimed is None:
            return None
        cell, effects = claimed
        unit = self._units[cell.id]
        if effects:
            self._controller.turned(unit)
        return unit.lease()

    def hold(
        self, model: ModelName, *, size_bytes: int, asked_by: str, request: str, priority: int = 0
    ) -> "Held":
        """Register demand, then start a wake if one is needed; return the place in the queue.

        Raises TryLater if the request cannot be held.
        """
        replicas = self._models[model]
        if self._controller.journal.unavailable:
            raise TryLater(
                ErrorCode.LEDGER_UNAVAILABLE,
                "the ledger cannot be written",  # why is for the operator: the log and `status` have it
                hint="nothing is started that could not be accounted for",
                retry_after_s=10,
            )
        unit = self._units[replicas.taker(self._clock.now_us()).id]
        hold = HoldId(next(self._hold_ids))
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        unit.waiting[hold] = future
        demand = Demand(
            hold=hold, size_bytes=size_bytes, asked_by=asked_by, request=request, priority=priority
        )
        self._controller.submit(unit, demand)
        if future.done() and (refused := future.exception()) is not None:
            raise refused
        wake = replicas.waking(unit.cell).wake
        return Held(
            activator=self,
            unit=unit,
            hold=hold,
            future=future,
            arrived_us=self._clock.now_us(),
            wake=wake.id if wake else None,
        )

    def give_back(self, lease: Lease) -> None:
        """Return a lease. A lease of an earlier generation is void already and changes nothing."""
        if (unit := self._units.get(lease.replica)) is not None:  # else it has left meanwhile
            self._controller.give_back(unit, lease.generation)

    def retry_after_s(self, model: ModelName) -> int:
        """Return how soon a client should try again."""
        now = self._clock.now_us()
        return self._models[model].soonest(now).retry_after_s(now)

    def notice(self, held: "Held") -> WakeNotice:
        """Return what to tell a held client now."""
        now = self._clock.now_us()
        replica = held.unit.replicas.waking(held.unit.cell)
        wake = replica.wake
        ends = replica.budget_ends_us or held.arrived_us + replica.settings.hold.age_us
        return WakeNotice(
            wake=wake.id if wake else None,
            phase=wake.phase if wake else None,
            waited_us=now - held.arrived_us,
            ready_in_us=replica.ready_in_us(now) if wake else None,
            left_us=max(ends - now, 0),
        )

    def abandon(self, held: "Held") -> None:
        """Free the place of a client that left; hand back a lease it can no longer use."""
        future = held.future
        if held.hold in held.unit.waiting:
            del held.unit.waiting[held.hold]
            self._controller.submit(held.unit, Withdrawn(hold=held.hold))
        elif future.done() and not future.cancelled() and future.exception() is None:
            self.give_back(future.result())


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """Implements `core.ports.activator.HeldRequest`."""

    activator: FleetActivator
    unit: Unit
    hold: HoldId
    future: asyncio.Future[Lease]
    arrived_us: int
    wake: WakeId | None

    async def lease(self) -> Lease:
        """Wait for the lease. Cancelled: the place is free at once, a lease just granted is handed back."""
        try:
            return await self.future
        except asyncio.CancelledError:
            self.activator.abandon(self)
            raise

    def notice(self) -> WakeNotice:
        """Return what to tell the client now."""
        return self.activator.notice(self)
