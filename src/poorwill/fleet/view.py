"""What operators see of the fleet and may ask of it: implements `core.ports.view.FleetView`."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault, TryLater
from poorwill.core.format import counted, money
from poorwill.core.machine.inputs import ParkAsked, WakeAsked
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Replica, next_descent_us
from poorwill.core.machine.transition import idle_cause
from poorwill.core.ports.view import Configuration, ReplicaStatus, WakeInterval
from poorwill.core.spend import LimitState
from poorwill.core.words import FLOOR, TIER_DEPTH, ModelName, ReplicaId, Tier
from poorwill.fleet.controller import Controller
from poorwill.fleet.feeds import Feed, Feeds
from poorwill.fleet.room.room import Room
from poorwill.fleet.room.shown import devices_now, where_it_is
from poorwill.fleet.spending import SpendGuard
from poorwill.fleet.unit import Unit
from poorwill.policies import ShadowAccount, Shadowed


class OperatorView:
    """The fleet as `/status`, `poorwill status`, `wake` and `park` see it."""

    def __init__(self, *, controller: Controller, guard: SpendGuard, feeds: Feeds, room: Room) -> None:
        self._controller = controller
        self._guard = guard
        self._feeds = feeds
        self._room = room
        self._units = controller.units
        self._models = controller.models
        self.loaded = Configuration()
        self.reloads: Callable[[], Awaitable[Configuration]] | None = None
        """Set by whoever can read the configuration again."""

    def status(self) -> Sequence[ReplicaStatus]:
        """Return every replica's status."""
        now = self._controller.clock.now_us()
        return [_status(unit, self._room, now) for unit in self._units.values()]

    async def devices(self) -> Sequence[Mapping[str, object]]:
        """Look at the devices and return how they stand, as `/status` shows them."""
        return await devices_now(self._room)

    def models(self) -> Sequence[ModelName]:
        """Return the configured models, in the configuration's order."""
        return list(self._models)

    def limits(self) -> Sequence[LimitState]:
        """Return how the spend limits stood at the last look."""
        return self._guard.verdict.limits

    async def lift(self, limit: str, by: str) -> LimitState:
        """Lift a spend limit until its window ends; see `FleetView`."""
        return await self._guard.lift(self._controller, limit, by)

    def events(self) -> Feed:
        """Subscribe to what happens from now on."""
        return self._feeds.feed()

    def configuration(self) -> Configuration:
        """Return which configuration is in force."""
        return self.loaded

    async def reload(self) -> Configuration:
        """Read the configuration again and follow it; see `FleetView`."""
        if self.reloads is None:
            raise OperatorFault(ErrorCode.CONFIG_INVALID, "this fleet was not made from a file")
        return await self.reloads()

    async def wake(self, name: str) -> None:
        """Wake a replica, or one of a model if none is ready, as an operator and wait until it is ready.

        Raises TryLater(WAKE_FAILED, SPEND_LIMIT, DRAINING). Cancelled: the wake goes on.
        """
        unit = min(self._named(name), key=_steps_to_ready)
        why = self._controller.journal.unavailable
        if why:
            raise TryLater(
                ErrorCode.LEDGER_UNAVAILABLE, f"the ledger cannot be written: {why}", retry_after_s=10
            )
        self._refuse_if_blocked(unit)
        # A wake that is asked for comes after a park under way.
        await self._reaches(unit, lambda: unit.replica.state is not State.PARKING)
        self._controller.submit(unit, WakeAsked())
        await self._reaches(unit, lambda: unit.replica.state in (State.READY, State.PARKED))
        if unit.replica.closing:
            raise self._later(unit, ErrorCode.DRAINING, "poorwill is shutting down")
        self._refuse_if_blocked(unit)
        if unit.replica.state is State.PARKED:
            why = unit.replica.last_error or "it was parked again at once"
            raise self._later(unit, ErrorCode.WAKE_FAILED, why)

    async def park(self, name: str, tier: Tier | None) -> None:
        """Drain and park a replica, or all of a model, as an operator and wait until that is done.

        Raises RequestFault for a tier the model has no driver for, TryLater(DRAINING) if demand or a
        floor kept it from parking. Cancelled: the park goes on.
        """
        parks = (self._park(unit, tier) for unit in self._named(name))
        for fault in await asyncio.gather(*parks, return_exceptions=True):
            if fault is not None:
                raise fault

    def _named(self, name: str) -> Sequence[Unit]:
        """Return the replicas that a model's or a replica's name means. Raises RequestFault."""
        unit = self._units.get(ReplicaId(name))
        if unit is not None and name not in self._models:
            return [unit]
        return [self._units[cell.id] for cell in self._models[ModelName(name)].cells]

    async def _park(self, unit: Unit, tier: Tier | None) -> None:
        name = unit.name
        if tier is not None and tier not in unit.equipment.drivers:
            known = ", ".join(unit.equipment.drivers)
            raise RequestFault(
                ErrorCode.INVALID_REQUEST, f"{name} cannot be parked {tier}", hint=f"it can be {known}"
            )
        await self._reaches(unit, lambda: unit.replica.state in (State.READY, State.PARKED))
        now = self._controller.clock.now_us()
        floor = unit.replica.floor.at(now)
        if unit.replica.state is State.READY and floor.required:
            why = f"its floor ({floor.name}) holds; to park it, change `floor` in fleet.toml and reload"
            raise self._later(unit, ErrorCode.DRAINING, f"{name} stays ready: {why}")
        self._controller.submit(unit, ParkAsked(tier=tier))
        await self._reaches(unit, lambda: unit.replica.state in (State.READY, State.PARKED))
        if unit.replica.state is State.READY:
            why = unit.replica.last_error or "requests wait for it"
            raise self._later(unit, ErrorCode.DRAINING, f"{name} stays ready: {why}")

    async def _reaches(self, unit: Unit, there: Callable[[], bool]) -> None:
        while not there():
            await unit.changed()

    def _refuse_if_blocked(self, unit: Unit) -> None:
        replica = unit.replica
        if replica.blocked and (replica.must_stop or replica.state is not State.READY):
            raise self._later(unit, ErrorCode.SPEND_LIMIT, replica.blocked.why)

    def _later(self, unit: Unit, code: ErrorCode, message: str) -> TryLater:
        now = self._controller.clock.now_us()
        return TryLater(code, message, retry_after_s=unit.replica.retry_after_s(now))


def _steps_to_ready(unit: Unit) -> tuple[int, int, int]:
    """Order replicas by how near they are to being ready."""
    replica = unit.replica
    order = (State.READY, State.WAKING, State.DRAINING, State.PARKED, State.PARKING)
    return order.index(replica.state), replica.retry_at_us, TIER_DEPTH[replica.tier]


def _status(unit: Unit, room: Room, now_us: int) -> ReplicaStatus:
    replica = unit.replica
    where = where_it_is(room, unit)
    notes = {"devices": where} if where else {}
    keeper = unit.replicas.waking(unit.replicas.cells[0]).id  # of several, one counts those who wait
    if replica.blocked:
        notes["spend"] = "no request is taken" if replica.must_stop else "it is not woken"
        notes["spend"] += f": {replica.blocked.why}"
    if isinstance(replica.policy, Shadowed):
        notes["shadow"] = _in_shadow(replica.policy.account())
    return ReplicaStatus(
        model=replica.model,
        replica=replica.id,
        state=replica.state,
        tier=replica.tier if replica.state in (State.PARKED, State.PARKING, State.WAKING) else None,
        cause=replica.load.cause or "",
        since_us=unit.cell.since_us,
        in_flight=replica.load.in_flight,
        held=len(replica.holds) if keeper == replica.id else 0,
        wake=wake_interval(unit),
        phase=replica.wake.phase if replica.wake else None,
        ready_in_us=replica.ready_in_us(now_us) if replica.wake else None,
        ladder=replica.settings.park.ladder,
        parks_at_us=_parks_at_us(replica, now_us),
        failures=replica.failures,
        retry_at_us=replica.retry_at_us if replica.retry_at_us > now_us else None,
        last_error=replica.last_error,
        last_error_us=replica.last_error_us if replica.last_error else 0,
        pid=(unit.running.pid or None) if unit.running else None,
        port=unit.running.port if unit.running else None,
        policy=replica.policy.name,
        why=_why_ready(replica, now_us),
        notes=notes,
    )


def _why_ready(replica: Replica, now_us: int) -> str:
    """Say why a replica is ready; nothing if it is not."""
    if replica.state is not State.READY:
        return ""
    if replica.load.in_flight:
        return "serving"
    cause, why = idle_cause(replica, now_us)
    return f"floor {why}" if cause == FLOOR else why


def _parks_at_us(replica: Replica, now_us: int) -> int | None:
    """Return when it parks if nobody asks, None if a request or a floor keeps it or will by then."""
    floor = replica.floor.at(now_us)
    if replica.state is not State.READY or replica.load.in_flight or floor.required:
        return None
    due_us = next_descent_us(replica)
    if due_us is not None and floor.until_us is not None and floor.until_us <= due_us:
        return None
    return due_us


def _in_shadow(account: ShadowAccount) -> str:
    """Say what the policy in shadow would have cost over the demand so far."""
    return (
        f"{account.shadow} in shadow would have cost "
        f"{_cost(account.shadow_nusd, account.shadow_wakes, account.shadow_waited_s)} over "
        f"{account.stretches} idle stretches; by the same reckoning {account.running} cost "
        f"{_cost(account.running_nusd, account.running_wakes, account.running_waited_s)}"
    )


def _cost(nusd: int, wakes: int, waited_s: float) -> str:
    waits = f"{counted(wakes, 'wake')}, {waited_s:.3g} s waited"
    return f"{money(nusd)} ({waits})"


def wake_interval(unit: Unit) -> WakeInterval:
    """Return the published wake interval: nearest-rank percentiles of the last thousand real wakes."""
    wakes = sorted(unit.cell.wakes_us)
    budget_us = unit.replica.settings.wake.budget_us

    def rank(share: float) -> float | None:
        return wakes[max(math.ceil(share * len(wakes)), 1) - 1] / 1e6 if wakes else None

    return WakeInterval(
        count=len(wakes),
        p50_s=rank(0.50),
        p95_s=rank(0.95),
        max_s=rank(1.0),
        budget_s=budget_us / 1e6,
        over_budget=sum(took_us > budget_us for took_us in wakes),
    )
