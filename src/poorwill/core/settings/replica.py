"""The settings that the machine of a replica runs by: bounds of holds, wakes and parks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from poorwill.core.settings.notation import Bounds, FileKey, Mark, OrZero
from poorwill.core.words import SECOND_US, ModelName, Phase, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """Bounds of the hold queue."""

    count: Annotated[int, Bounds(most=1_000_000)] = 256
    """How many requests may wait for a wake; beyond it they get 429. 0 holds nothing: the first request is
    refused, and the wake starts all the same."""
    bytes: int = 64 * 2**20
    """How much the bodies of held requests may take together."""
    age_us: int = 600 * SECOND_US
    """How long one request may be held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeSettings:
    """Bounds and back-off of wakes."""

    budget_us: Annotated[int, FileKey("wake_budget_s")] = 300 * SECOND_US
    """The hard bound on a wake, from the first held request to readiness. Then held requests get 504, and
    the wake goes on."""
    cap_us: Annotated[int, FileKey("wake_cap_s")] = 900 * SECOND_US
    """When a wake that outlived its budget is torn down."""
    backoff_us: Annotated[OrZero, FileKey("wake_backoff_s")] = 5 * SECOND_US
    """Pause after a failed wake; doubles with each failure in a row."""
    backoff_max_us: Annotated[OrZero, FileKey("wake_backoff_max_s")] = 900 * SECOND_US
    """The longest such pause."""
    stable_us: OrZero = 60 * SECOND_US
    """An engine that dies sooner than this after a wake counts as a failed wake."""
    phase_limits_us: Annotated[Mapping[Phase, int], Mark.MERGES] = field(default_factory=dict)
    """How long single phases of a wake may take; a phase that takes longer fails the wake."""
    expected_us: Annotated[Mapping[Tier, int], Mark.NOT_A_KEY] = field(default_factory=dict)
    """The predicted duration of a wake from a tier, until one has been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkSettings:
    """How a replica is parked."""

    ladder: Annotated[tuple[Tier, ...], Bounds(least=1)] = (Tier.COLD,)
    """The tiers a replica goes down as it stays idle, from shallow to deep, ending in `cold`. A tier that
    does not work on this machine is skipped, and poorwill says so. A model with a `cloud` has `hibernated`
    and `cold`, one without all the others."""
    drain_us: OrZero = 60 * SECOND_US
    """How long a park waits for requests in flight."""
    limit_us: Annotated[int, FileKey("park_limit_s")] = 120 * SECOND_US
    """A park that takes longer has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """Everything `core.machine.step` needs to know about one replica."""

    model: Annotated[ModelName, Mark.NOT_A_KEY]
    max_concurrency: Annotated[int, Bounds(most=1_000_000)] = 0
    """Requests the engine gets at once; 0 is unlimited. Without it: as many as the engine works on at once,
    as far as that is known (reliability.md)."""
    target_concurrency: Annotated[int, Bounds(most=1_000_000)] = 0
    """Of several replicas: how many requests one should have before another is woken, for engines without a
    limit. 0 is `max_concurrency`. When no other can be woken, a replica gets more."""
    prefix_affinity: bool = True
    """Of several replicas that are equally full: prefer the one that served the conversation last, as its
    KV cache has the prefix. docs/replicas.md says more."""
    affinity_slack: Annotated[OrZero, Bounds(most=1_000_000)] = 0
    """How many requests fewer than the fullest a busy replica may have to be preferred so."""
    wake: Annotated[WakeSettings, Mark.SPREAD] = field(default_factory=WakeSettings)
    hold: Annotated[HoldSettings, Mark.MERGES] = field(default_factory=HoldSettings)
    """Bounds of the hold queue; beyond them a request gets 429 with Retry-After."""
    park: Annotated[ParkSettings, Mark.SPREAD] = field(default_factory=ParkSettings)

    def limit(self, *, helped: bool) -> int:
        """Return how many requests a replica may have, if another could take more or not; 0 is unlimited."""
        target = self.target_concurrency if helped else 0
        return min(filter(None, (self.max_concurrency, target)), default=0)
