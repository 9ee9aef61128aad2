"""Requests that a hosted API serves: for the fleet they are demand that nobody waits for."""

from poorwill.core.ports.bridging import Bridged
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
        """Register the demand of a request that a hosted API serves meanwhile; None if it must be held."""
        controller = self._controller
        unit = controller.units[model]
        if controller.journal.unavailable or not unit.cell.may_bridge:
            return None
        reservation = self._guard.reserve(HostedCharge(model=model, key=key, nusd=most_nusd))
        if reservation is None:
            return None
        if not controller.bridge(unit, asked_by):  # the reservation was the last that the limit allows
            self._guard.settle(reservation, 0)
            return None
        wake = unit.replica.wake.id if unit.replica.wake else None
        return Bridged(model=model, wake=wake, reservation=reservation, most_nusd=most_nusd)

    def bridge_over(self, bridged: Bridged, *, cost_nusd: int) -> None:
        """End a request that a hosted API served, and count its cost."""
        self._guard.settle(bridged.reservation, cost_nusd)
        controller = self._controller
        controller.units[bridged.model].cell.bridge_over(controller.clock.now_us())
