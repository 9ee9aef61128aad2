"""What a fleet has measured of its machine, for predictions: how fast its storage is, how slow its CPU."""

import os.path
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from poorwill.compose.hub.on_disk import located
from poorwill.compose.paths import ledger_path
from poorwill.core.settings import FleetSettings
from poorwill.core.words import Phase, Tier
from poorwill.engines.measured.expectation import known_machine, known_start
from poorwill.engines.measured.storage_speed import (
    StorageSpeed,
    keep_speed,
    kept_speed,
    measure_storage,
)
from poorwill.engines.weights.files import hub_cache, weights_of
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.policies.coldstart.engine_times import USUAL_HOST
from poorwill.policies.coldstart.leaves import totals
from poorwill.policies.coldstart.prediction import HostPace, host_factor, phase_factors
from poorwill.policies.coldstart.starts import FinishedWake, StartKind

HOST_WAKES = 200
"""How many of a fleet's last wakes are used to find how slow its host is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHost:
    """What the starts and the storage of one fleet say of the machine."""

    factors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """For each kind of engine, how much longer each start took here than `engine_times` predicts."""
    phases: Mapping[str, Mapping[Phase, float]] = field(default_factory=dict)
    """The same for each phase, in the median of the starts."""
    speed: StorageSpeed | None = None

    def pace(self, engine: str) -> HostPace:
        """Return how long the host takes for what this kind of engine does."""
        return HostPace(factor=self.factor(engine), phases=self.phases.get(engine, {}))

    def factor(self, engine: str) -> float:
        """Return how slow the host's CPU is for this kind of engine; starts of other kinds do not count."""
        known = self.factors.get(engine, ())
        return median(known) if known else USUAL_HOST


def known_host(fleet: FleetSettings, wakes: Iterable[FinishedWake], *, env: Mapping[str, str]) -> KnownHost:
    """Return what the fleet's finished starts and its record of the storage tell. Blocks for file headers."""
    starts = {model.name: known_start(model, directory=fleet.directory, env=env) for model in fleet.models}
    factors: dict[str, list[float]] = {}
    ratios: dict[str, dict[Phase, list[float]]] = {}
    machine = known_machine(fleet.directory)
    for wake in wakes:
        start = starts.get(wake.model)
        if wake.ok and wake.from_tier is Tier.COLD and start is not None:
            took, cached = totals(wake.spans), wake.kind is StartKind.CACHE_WARM
            factors.setdefault(start.engine, []).append(host_factor(start, took))
            for phase, ratio in phase_factors(start, machine, took, cached=cached).items():
                ratios.setdefault(start.engine, {}).setdefault(phase, []).append(ratio)
    return KnownHost(
        factors={engine: tuple(each) for engine, each in factors.items()},
        phases={
            engine: {phase: median(each) for phase, each in phases.items()}
            for engine, phases in ratios.items()
        },
        speed=kept_speed(fleet.directory),
    )


def storage_speed(
    fleet: FleetSettings, *, env: Mapping[str, str], at_us: int, anew: bool = False
) -> StorageSpeed | None:
    """Return the bandwidth of the storage that holds the fleet's largest weights.

    The record, or a measurement that then becomes the record; None if there are no weights to read. Blocks
    for up to a second. A record that cannot be written is no error: the next one measures again.
    """
    kept = None if anew else kept_speed(fleet.directory)
    if kept is not None:
        return kept
    cache = hub_cache(env)
    found = [weights_of(located(model, env).engine.path, cache=cache) for model in fleet.models]
    for weights in sorted(found, key=lambda weights: -weights.bytes):
        largest = _largest(weights.path)
        speed = measure_storage(str(largest), at_us=at_us) if largest else None
        if speed is not None:
            with suppress(OSError):
                keep_speed(fleet.directory, speed)
            return speed
    return None


def _largest(path: str | None) -> Path | None:
    if path is None:
        return None
    place = Path(path)
    files = [place] if place.is_file() else [file for file in place.iterdir() if file.is_file()]
    return max(files, key=lambda file: file.stat().st_size, default=None)


def measured_host(fleet: FleetSettings, *, env: Mapping[str, str]) -> KnownHost:
    """Return what a fleet has measured of its machine so far, if it has a ledger."""
    path = ledger_path(fleet)
    wakes: Sequence[FinishedWake] = ()
    if os.path.exists(path):
        with reading(path) as db:
            wakes = finished_wakes(db, last=HOST_WAKES)
    return known_host(fleet, wakes, env=env)
