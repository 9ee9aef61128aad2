"""The seam of the bridge: how a request that a hosted API serves is demand for its replica all the same."""

from dataclasses import dataclass
from typing import Protocol

from poorwill.core.words import ModelName, ReplicaId, WakeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridged:
    """The right to send one request to a model's hosted API, as its replica cannot serve it now."""

    model: ModelName
    replica: ReplicaId
    """The one that it would wait for."""
    wake: WakeId | None
    """The wake under way, which it is one reason for; None during a back-off or a park."""
    reservation: int = 0
    """What spend limits know it by until it is over."""
    most_nusd: int = 0
    """What is reserved for it."""


class Bridging(Protocol):
    """The gateway's other door to the fleet. Called on the fleet's own event loop thread."""

    def bridge(self, model: ModelName, *, asked_by: str, key: str, most_nusd: int) -> Bridged | None:
        """Register the demand of a request that a hosted API serves while the model is not ready.

        `most_nusd`, the most that the API may charge for it, is reserved under every spend limit that bounds
        the model or the key, at once, before anything is sent. The wake that the request needs starts as for
        a held one, but after a failed wake not before its back-off is over.

        None if the request must be held as usual: the model is ready or drains, a spend limit allows no wake
        or has no room for `most_nusd`, poorwill shuts down, or the ledger cannot be written. Each `Bridged`
        is handed back through `bridge_over` exactly once. The model must be configured.
        """
        ...

    def bridge_over(self, bridged: Bridged, *, cost_nusd: int) -> None:
        """Settle: what was reserved is free again, and `cost_nusd` is spent. Never raises.

        That is what the API charged if it is known, what was reserved if not (no usage, a client that left),
        and 0 if the API refused or was never reached. The request's row follows within
        milliseconds, with the same cost: its `bridge_nusd` and `bridge_unknown_nusd` together.
        """
        ...
