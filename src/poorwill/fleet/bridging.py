"""Requests that a hosted API serves, as the fleet sees them: demand without anybody who waits."""

from poorwill.core.machine.inputs import WakeAsked
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.bridging import Bridged
from poorwill.core.ports.clock import Clock
from poorwill.core.spend import HostedCharge
from poorwill.core.words import ModelName
from poorwill.fleet.controller import Controller
from poorwill.fleet.spending import SpendGuard


class FleetBridging:
    """Implements `core.ports.bridging.Bridging` over a controller and its spend breaker."""

    def __init__(self, *, controller: Controller, guard: SpendGuard) -> None:
        self._controller = controller
        self._guard = guard

    def bridge(self, model: ModelName, *, asked_by: str, key: str, most_nusd: int) -> Bridged | None:
        """Register the demand of a request that a hosted API serves meanwhile; None: it must be held.

        A replica that drains is not bridged: held, the request cancels the park and is served at once.
        """
        controller = self._controller
        unit = controller.units[model]
        replica = unit.replica
        if controller.journal.unavailable or replica.closing or replica.blocked:
            return None
        if replica.state in (State.READY, State.DRAINING):
            return None
        reservation = self._guard.reserve(HostedCharge(model=model, key=key, nusd=most_nusd))
        if reservation is None:
            return None
        unit.wanted(self._clock.now_us())
        unit.bridged += 1
        if replica.state is not State.WAKING:
            controller.submit(unit, WakeAsked(asked_by=asked_by, why="demand", demand=True))
        wake = unit.replica.wake.id if unit.replica.wake else None
        return Bridged(model=model, wake=wake, reservation=reservation, most_nusd=most_nusd)

    def bridge_over(self, bridged: Bridged, *, cost_nusd: int) -> None:
        """Take note that a request which a hosted API served is over, and what it cost."""
        self._guard.settle(bridged.reservation, cost_nusd)
        unit = self._controller.units[bridged.model]
        unit.bridged -= 1
        unit.left(self._clock.now_us())

    @property
    def _clock(self) -> Clock:
        return self._controller.clock
