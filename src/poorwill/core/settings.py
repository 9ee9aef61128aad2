"""What a model and a fleet are configured to do, as plain values. `config` reads them from TOML."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from poorwill.core.words import SECOND_US, ModelName, Phase, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """Bounds of the hold queue of one model; beyond them a request gets 429."""

    count: int = 256
    """0 holds nothing: a request for a parked model is refused, and the wake starts all the same."""
    bytes: int = 64 * 2**20
    age_us: int = 600 * SECOND_US


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeSettings:
    """Bounds and back-off of wakes."""

    budget_us: int = 300 * SECOND_US
    """From the first held request to readiness; absolute."""
    cap_us: int = 900 * SECOND_US
    """Where a wake that outlived its budget is torn down."""
    backoff_us: int = 5 * SECOND_US
    """After the first failure; doubles with each one."""
    backoff_max_us: int = 900 * SECOND_US
    stable_us: int = 60 * SECOND_US
    """An engine that dies sooner than this after a wake counts as one more failed wake in a row."""
    phase_limits_us: Mapping[Phase, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkSettings:
    """How a replica is parked."""

    ladder: tuple[Tier, ...] = (Tier.COLD,)
    """Tiers from shallow to deep; the last one is where a replica ends up."""
    drain_us: int = 60 * SECOND_US
    limit_us: int = 120 * SECOND_US
    """A park that takes longer has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """Everything `core.step` needs to know about one replica."""

    model: ModelName
    max_concurrency: int = 0
    """Leases at once; 0 is unlimited."""
    hold: HoldSettings = field(default_factory=HoldSettings)
    wake: WakeSettings = field(default_factory=WakeSettings)
    park: ParkSettings = field(default_factory=ParkSettings)
