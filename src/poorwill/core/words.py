"""The words of the project as types: one word per idea, the same in code, ledger, CLI and docs."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NewType

ModelName = NewType("ModelName", str)
"""What a client names in `model=`."""

ReplicaId = NewType("ReplicaId", str)
"""One running or parked instance of a model."""

WakeId = NewType("WakeId", str)
HoldId = NewType("HoldId", int)
"""Grows with arrival, so that the order of ids is the order of service."""

Cause = NewType("Cause", str)
"""Why a stretch of a replica's time was paid; `ALL_CAUSES` is the closed list."""

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US


class Tier(StrEnum):
    """How deep a replica is parked."""

    ASLEEP = "asleep"  # the engine's own sleep; the host is still paid for
    FROZEN = "frozen"  # the process image on disk
    SUSPENDED = "suspended"  # a virtual machine's memory image on disk
    HIBERNATED = "hibernated"  # parked by a cloud
    COLD = "cold"  # nothing but weights on disk


TIER_DEPTH: Mapping[Tier, int] = MappingProxyType({tier: depth for depth, tier in enumerate(Tier)})
"""Shallow to deep; moving down a ladder increases the depth."""

RESUMING_TIERS = frozenset({Tier.ASLEEP, Tier.FROZEN, Tier.SUSPENDED})
"""A wake from these goes on with the same engine; from the others an engine starts anew."""


class Phase(StrEnum):
    """One named part of a cold start or a wake: the closed list for all engines and tiers."""

    # cold start
    PROVISION = "provision"
    DOWNLOAD = "download"
    SPAWN = "spawn"
    IMPORTS = "imports"
    CONTEXT = "context"
    WEIGHTS = "weights"
    COMPILE_HIT = "compile_hit"
    COMPILE_MISS = "compile_miss"
    KV_CACHE = "kv_cache"
    GRAPHS = "graphs"
    WARMUP = "warmup"
    READY = "ready"  # from the engine's own readiness to poorwill's having seen it
    # wake from a tier
    READ_IMAGE = "read_image"
    RESTORE_PROCESS = "restore_process"
    RESTORE_DEVICE = "restore_device"
    ENGINE_WAKE = "engine_wake"
    VERIFY = "verify"
    # what no source explains
    UNATTRIBUTED = "unattributed"


SERVING = Cause("serving")
LINGER = Cause("linger")
FLOOR = Cause("floor")
DRAIN = Cause("drain")
PARK = Cause("park")
FAILED_WAKE = Cause("failed_wake")
UNOBSERVED = Cause("unobserved")
ORPHAN = Cause("orphan")


def replica_id(model: ModelName, number: int = 0) -> ReplicaId:
    """Return the id of one of a model's replicas; they are numbered from 0."""
    return ReplicaId(f"{model}-{number}")


def waking(phase: Phase) -> Cause:
    """Return the cause of time spent in `phase` of a wake."""
    return Cause(f"wake.{phase}")


def parked(tier: Tier) -> Cause:
    """Return the cause of time spent parked in `tier`."""
    return Cause(f"parked.{tier}")


ALL_CAUSES: tuple[Cause, ...] = (
    *(waking(phase) for phase in Phase),
    SERVING,
    LINGER,
    FLOOR,
    DRAIN,
    PARK,
    *(parked(tier) for tier in Tier),
    FAILED_WAKE,
    UNOBSERVED,
    ORPHAN,
)

USEFUL_CAUSES: frozenset[Cause] = frozenset({SERVING, DRAIN})
"""Causes under which at least one request is in flight: a drain only lasts while leases are out."""

PARKED_CAUSES: frozenset[Cause] = frozenset(parked(tier) for tier in Tier)
"""Causes billed at the tier's parked rate; every other cause is billed at the active rate."""

RELEASED_CAUSES = PARKED_CAUSES - {parked(Tier.ASLEEP)}
"""Under these the host is released: the first of them ends the stretch that the provider meters."""

READ_PHASES = frozenset({Phase.WEIGHTS, Phase.DOWNLOAD, Phase.READ_IMAGE, Phase.ENGINE_WAKE})
"""Phases whose bytes make up the floor: what must be read whatever the software does."""
