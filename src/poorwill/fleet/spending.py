"""Runs the spend breaker: checks what was spent, blocks and unblocks replicas and keys, reports changes, and
reserves what requests over a bridge may cost."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest

from poorwill.core.entries import Noted
from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.machine.inputs import SpendChanged
from poorwill.core.machine.replica import Blocked
from poorwill.core.ports.bridging import Bridged
from poorwill.core.ports.keys import KeyLimits, KeyRing
from poorwill.core.spend import HostedCharge, LimitState, Standing, Verdict, utc_minute
from poorwill.core.words import ModelName
from poorwill.fleet.controller import Controller

JUMPS_EVERY = 30
"""Checks between two searches for an unexpected jump of the bill: jumps grow slowly and cost more to find."""

ROWS_WAIT_S = 0.05
"""The gateway hands over a request's row within this, in batches."""

OPERATOR = "operator"
"""Whose requests from the dashboard are; no key may have this name."""

Look = Callable[[], Awaitable[Verdict]]
FindJumps = Callable[[], Awaitable[Sequence[Noted]]]


@dataclass(slots=True, kw_only=True)
class SpendGuard:
    """What the last check found. Made before the fleet, so that the gateway's keys can ask it."""

    look: Look
    find_jumps: FindJumps
    every_s: float
    verdict: Verdict = field(default_factory=lambda: Verdict(at_us=0))
    _controller: Controller | None = None
    _begun: list[ModelName] = field(default_factory=list)
    """Models that began to wake during or since the last check."""
    _paid: list[HostedCharge] = field(default_factory=list)
    """What hosted APIs were paid during or since the last check."""
    _reserved: dict[int, HostedCharge] = field(default_factory=dict)
    """What hosted APIs may charge for the requests that are there now."""
    _reservations: int = 0
    _reported: dict[str, Standing] = field(default_factory=dict)
    _reported_jumps: set[str] = field(default_factory=set)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def attend(self, controller: Controller) -> None:
        """Check once before any timer runs, so that whatever a limit stopped stays stopped across a
        restart.

        From then on wakes count at once, between two checks. Raises OperatorFault if the ledger cannot be
        read.
        """
        self._controller = controller
        await self.look_again(controller)

    async def watch(self, controller: Controller) -> None:
        """Check at regular intervals until cancelled. A failed check changes nothing and is logged."""
        looks = 0
        while True:
            await asyncio.sleep(self.every_s)
            looks += 1
            try:
                await self.look_again(controller)
                if looks % JUMPS_EVERY == 0:
                    self._report_jumps(controller, await self.find_jumps())
            except PoorwillError as error:
                controller.log.warning("cannot look at what was spent", why=str(error))
            except Exception as error:  # a defect in the bill must not end the fleet
                controller.log.error("cannot look at what was spent", error=repr(error))

    async def look_again(self, controller: Controller) -> None:
        """Check once, then block or unblock.

        It reads the ledger after every earlier entry is in it, and adds wakes that begin meanwhile. Raises
        OperatorFault if the ledger cannot be written or read.
        """
        async with self._looking:
            await self._look(controller)

    async def lift(self, controller: Controller, limit: str, by: str) -> LimitState:
        """Lift a limit until its window ends; see `FleetView.lift`. The ledger has it before it holds."""
        named = {one.name_in_file: one for one in self.verdict.limits}
        if (found := named.get(limit)) is None:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"there is no spend limit {limit[:100]!r}",
                hint=f"there are {', '.join(named)}" if named else "[spend] sets none",
            )
        until = f"lifted until {utc_minute(found.ends_us)} by {by}"
        note = Noted(
            at_us=controller.clock.now_us(),
            kind="spend_lifted",
            text=f"{found.what}; {until}",
            detail={"limit": limit, "until_us": str(found.ends_us), "by": by},
        )
        await controller.journal.record([note])
        await self.look_again(controller)
        return next((one for one in self.verdict.limits if one.name_in_file == limit), found)

    async def _look(self, controller: Controller) -> None:
        self._begun, self._paid = [], []
        if self.verdict.limits:
            await asyncio.sleep(ROWS_WAIT_S)  # what was paid just before must not fall between the two
            await controller.journal.record([])
        found = await self.look()
        for model in self._begun:
            found = found.with_wake(model)
        for payment in self._paid:
            found = found.with_paid(payment)
        for charge in self._reserved.values():
            found = found.with_reserved(charge)
        self.verdict = found
        self.block(controller)
        for limit in found.limits:
            self._report(controller, limit)

    def wake_began(self, model: ModelName) -> None:
        """Count what a wake may cost at once, not at the next check."""
        self._begun.append(model)
        if self.verdict.limits and self._controller is not None:
            self.verdict = self.verdict.with_wake(model)
            self.block(self._controller)

    def reserve(self, charge: HostedCharge) -> int | None:
        """Reserve the most that a hosted API may charge for a request; None if a limit has no room for it.

        The number returned settles it.
        """
        if not self.verdict.has_room(charge):
            return None
        self._reservations += 1
        self._reserved[self._reservations] = charge
        self._change(self.verdict.with_reserved(charge))
        return self._reservations

    def settle(self, reservation: int, cost_nusd: int) -> None:
        """Free what was reserved, and count what the request did cost at once."""
        charge = self._reserved.pop(reservation)
        paid = replace(charge, nusd=cost_nusd)
        self._paid.append(paid)
        freed = self.verdict.with_reserved(replace(charge, nusd=-charge.nusd))
        self._change(freed.with_paid(paid))

    def _change(self, verdict: Verdict) -> None:
        self.verdict = verdict
        if verdict.limits and self._controller is not None:
            self.block(self._controller)

    def block(self, controller: Controller) -> None:
        """Pass the last verdict on to the replicas."""
        for unit in controller.units.values():
            blocked = self._verdict_on(unit.model)
            if blocked != unit.replica.blocked:
                controller.submit(unit, SpendChanged(blocked=blocked))

    def _verdict_on(self, model: ModelName) -> Blocked | None:
        used_up = self.verdict.stops_model(model)
        stop = used_up or self.verdict.stops_wake(model)
        if stop is None:
            return None
        return Blocked(until_us=stop.ends_us, why=stop.why, wakes_only=used_up is None)

    def _report(self, controller: Controller, limit: LimitState) -> None:
        """Report a change of a limit's standing, once."""
        name = limit.name_in_file
        before = self._reported.get(name, Standing.WITHIN)
        if limit.standing is before:
            return
        self._reported[name] = limit.standing
        if limit.standing is Standing.LIFTED:
            return  # whoever lifted it is in the ledger
        kind = f"spend_{limit.standing}"
        text = limit.what
        if limit.standing is not Standing.WITHIN:
            text = f"{limit.why}; {limit.how_to_lift}"
        controller.journal.post([Noted(at_us=controller.clock.now_us(), kind=kind, text=text)])

    def _report_jumps(self, controller: Controller, found: Sequence[Noted]) -> None:
        new = [note for note in found if note.text and str(note.model) not in self._reported_jumps]
        self._reported_jumps = {str(note.model) for note in found}
        if new:
            controller.journal.post(new)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedKeys:
    """A key ring whose keys are refused while their spend limit is reached, with the operator's own."""

    keys: KeyRing
    guard: SpendGuard
    now_us: Callable[[], int]
    operator: bytes
    """The secret of requests from the dashboard; it lasts as long as the process."""

    @property
    def required(self) -> bool:
        """Whether a request must bring a key."""
        return self.keys.required

    def in_use(self, name: str) -> bool:
        """Return whether there is a key of this name that is not revoked."""
        return name == OPERATOR or self.keys.in_use(name)

    def limits(self, name: str) -> KeyLimits:
        """Return what a key may do."""
        return self.keys.limits(name)

    def name_of(self, credential: bytes) -> str | None:
        """Return the key's name. Raises TryLater(SPEND_LIMIT) if its limit is reached."""
        if compare_digest(credential, self.operator):
            return OPERATOR
        name = self.keys.name_of(credential)
        if name is not None and self.guard.verdict.limits:
            stop = self.guard.verdict.stops_key(name)
            if stop is not None:
                raise stop.refusal(self.now_us())
        return name


class FleetBridging:
    """Implements `core.ports.bridging.Bridging`: its requests are demand that nobody waits for."""

    def __init__(self, *, controller: Controller, guard: SpendGuard) -> None:
        self._controller = controller
        self._guard = guard

    def bridge(self, model: ModelName, *, asked_by: str, key: str, most_nusd: int) -> Bridged | None:
        """Register the demand of a request that a hosted API serves meanwhile; None if it must be held."""
        controller = self._controller
        replicas = controller.models.get(model)  # None: it has left meanwhile
        if controller.journal.unavailable or replicas is None or not replicas.may_bridge:
            return None
        reservation = self._guard.reserve(HostedCharge(model=model, key=key, nusd=most_nusd))
        if reservation is None:
            return None
        unit = controller.bridge(replicas, asked_by)
        if unit is None:  # the reservation was the last that the limit allows
            self._guard.settle(reservation, 0)
            return None
        wake = unit.replica.wake.id if unit.replica.wake else None
        return Bridged(model=model, replica=unit.id, wake=wake, reservation=reservation, most_nusd=most_nusd)

    def bridge_over(self, bridged: Bridged, *, cost_nusd: int) -> None:
        """End a request that a hosted API served, and count its cost."""
        self._guard.settle(bridged.reservation, cost_nusd)
        controller = self._controller
        if (unit := controller.units.get(bridged.replica)) is not None:  # else it has left meanwhile
            unit.replicas.bridge_over(unit.cell, controller.clock.now_us())
