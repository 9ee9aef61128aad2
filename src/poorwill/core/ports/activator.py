"""The gateway's door to the fleet: leases and held requests.

Cancellation: as in `core.ports.driver`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from poorwill.core.words import ModelName, Phase, ReplicaId, WakeId


class Connections(Protocol):
    """The gateway's keep-alive connections to replicas. A replica cannot be parked while any is open."""

    async def close(self, host: str, port: int) -> None:
        """Close every idle connection to this address and return when they are closed."""
        ...

    def cut(self, host: str, port: int, why: str, *, again: bool = False) -> None:
        """Abort requests in flight there with `draining`; `again`: those without a byte go elsewhere."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to send one request to one replica. Give it back exactly once through the Activator."""

    model: ModelName
    replica: ReplicaId
    generation: int
    host: str
    port: int
    engine_model: str = ""
    """What the engine calls the model, if that is another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeNotice:
    """What a held client may be told meanwhile."""

    wake: WakeId | None
    phase: Phase | None
    waited_us: int
    ready_in_us: int | None
    """When the replica is expected to be ready, from now: by measured wakes, before the first one by
    prediction; None if neither is known."""
    left_us: int  # until the held request fails


class HeldRequest(Protocol):
    """One request's place in the hold queue."""

    async def lease(self) -> Lease:
        """Wait for the lease. Raises TryLater or EngineFault if the hold ends without one.

        Cancelled: the place is free at once; a lease granted in the same tick is handed back.
        """
        ...

    def notice(self) -> WakeNotice:
        """Return what to tell the client now."""
        ...

    @property
    def wake(self) -> WakeId | None:
        """The wake it waited for, if any."""
        ...


class Activator(Protocol):
    """The gateway's door to the fleet. All methods are called on the fleet's own event loop thread."""

    def claim(self, model: ModelName, last: Callable[[], ReplicaId | None] | None = None) -> Lease | None:
        """Take a lease now, or return None: the model is not ready, at its limit, or others wait.

        `last` says who served the conversation last; it is asked if that can matter. Synchronous: the warm
        path. Raises RequestFault(MODEL_NOT_FOUND) for an unknown model.
        """
        ...

    def hold(
        self, model: ModelName, *, size_bytes: int, asked_by: str, request: str, priority: int = 0
    ) -> HeldRequest:
        """Register demand, then start a wake if one is needed; return the place in the queue.

        Raises TryLater (hold_queue_full, spend_limit, wake_failed during back-off, draining).
        """
        ...

    def give_back(self, lease: Lease) -> None:
        """Return a lease. Never raises; must be called exactly once for each lease."""
        ...

    def retry_after_s(self, model: ModelName) -> int:
        """Return how soon a client should try again, from measured wakes."""
        ...
