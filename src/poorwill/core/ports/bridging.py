"""The seam of the bridge: how a request that a hosted API serves is demand for its replica all the same."""

from dataclasses import dataclass
from typing import Protocol

from poorwill.core.words import ModelName, WakeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridged:
    """The right to send one request to a model's hosted API, as its replica cannot serve it now."""

    model: ModelName
    wake: WakeId | None
    """The wake under way, which it is one of the reasons for; None during a back-off or a park."""


class Bridging(Protocol):
    """The gateway's other door to the fleet. Called on the fleet's own event loop thread."""

    def bridge(self, model: ModelName, *, asked_by: str) -> Bridged | None:
        """Register the demand of a request that a hosted API serves while the model is not ready.

        The wake that it needs starts as for a held request, but after a failed one not before its back-off is
        over. None where the request must be held as ever: the model is ready or drains, a spend limit allows
        no wake, poorwill shuts down, or the ledger cannot be written. Each `Bridged` is handed back through
        `bridge_over` exactly once. The model must be configured.
        """
        ...

    def bridge_over(self, bridged: Bridged) -> None:
        """Take note that a request which a hosted API served is over. Never raises."""
        ...
