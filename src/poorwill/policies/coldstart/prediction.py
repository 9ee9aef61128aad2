"""How long a start or wake will take, phase by phase, with an interval; it learns from measured ones. Pure.

A prediction starts from what is known without trying: bytes, bandwidths, the engine's constants. The first
measured wake from the same tier puts history in its place, by medians, so that no freak rules it; how far off
it may be is the prediction's own doubt at first and what was measured later on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from types import MappingProxyType

from poorwill.core.entries import PhaseSpan
from poorwill.core.format import size
from poorwill.core.words import SECOND_US, Phase, Tier
from poorwill.policies.coldstart.engine_times import (
    ANY_ENGINE,
    ENGINE_TIMES,
    USUAL_HOST,
    CompileCache,
    EngineTimes,
    ModelShare,
)
from poorwill.policies.coldstart.leaves import totals
from poorwill.policies.coldstart.loaders import GB, LOADERS, Storage, layers_of, weight_rate

GIB = 2**30

_ENGINE_SPREAD = (0.55, 3.9)
_READ_SPREAD = (0.4, 2.9)
_REMOTE_SPREAD = (0.4, 3.65)
_UNMEASURED_SPREAD = (0.32, 10.0)
_LINK_SPREAD = (0.97, 1.25)
"""Factors around the expected time: what the figures needed that the model had not seen (docs/anatomy.md has
the rule, and how it does for publishers that it was not made from)."""
_LEARNT_SPREAD = (0.8, 1.25)
"""The same for a phase that this host was measured in with another model."""

_SLEEP_FIXED_S = (0.05, 0.2, 1.2)
"""The least, the usual and the most a wake from an engine's sleep takes for no bytes at all."""
_SLEEP_RATE = 25 * GB
_SLEEP_RATE_ALL = 45 * GB

PRIOR_WEIGHT = 1.5
"""The prior's doubt counts as so many measured wakes."""
MOST_MEASURED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The expected time of one phase and the interval it should fall in, in microseconds."""

    phase: Phase
    expected_us: int
    low_us: int
    high_us: int
    why: str = ""
    """What it was computed from, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is known of the machine. Rates in bytes a second; None: not measured."""

    storage: Storage = Storage.NVME
    bandwidth: float | None = None
    """Of the storage as this host sees it: for a network drive the least of the drive and the host's link."""
    link: float | None = None
    """Where weights are downloaded from; None: they are on storage already."""
    bus: float = 24 * GB
    """From memory to one accelerator: 12 GB/s for PCIe 3, 24 for 4, 52 for 5."""
    host: float = USUAL_HOST
    """How much longer this host takes for what its CPU does than the one the constants come from."""
    phases: Mapping[Phase, float] = field(default_factory=lambda: MappingProxyType({}))
    """How much longer this host was measured to take for each phase, with this engine, than predicted."""
    provision_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPace:
    """How long a host takes for an engine's phases, beside what is predicted."""

    factor: float = USUAL_HOST
    """As in `Machine.host`, for phases that were not measured."""
    phases: Mapping[Phase, float] = field(default_factory=lambda: MappingProxyType({}))
    """As in `Machine.phases`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is to be started."""

    parameters: float
    bits: float = 16.0
    bytes: int | None = None
    """Of the weights on storage, if known; else parameters times bits."""
    layers: int | None = None
    engine: str = "vllm"
    loader: str = ""
    streams: int | None = None
    ranks: int = 1
    """Accelerators the model is spread over."""
    stages: int = 1
    """How many of them follow each other, each with its own layers (pipeline parallelism)."""
    active: float | None = None
    """The parameters that take part in a token: fewer in a mixture of experts. None: all."""
    experts_apart: bool = False
    """Every accelerator holds whole experts (expert parallelism)."""
    compile_cache: CompileCache = CompileCache.HIT
    eager: bool = False
    """The engine was told neither to compile nor to capture graphs."""

    @property
    def weight_bytes(self) -> float:
        """Return the bytes that have to be read."""
        return self.bytes if self.bytes is not None else self.parameters * self.bits / 8

    @property
    def device_bytes(self) -> float:
        """Return the part of the weights that is in an accelerator's memory."""
        return self.weight_bytes if ENGINE_TIMES.get(self.engine, ANY_ENGINE).accelerated else 0.0

    @property
    def experts(self) -> bool:
        """Return whether it is a mixture of experts."""
        return self.active is not None and self.active < self.parameters

    @property
    def depth(self) -> int:
        """Return its layers, estimated from the active parameters if unknown."""
        return self.layers or layers_of(self.active or self.parameters)


def predict_start(start: Start, machine: Machine) -> tuple[Estimate, ...]:
    """Return the phases of a cold start in order. Phases that take no time are left out."""
    times = ENGINE_TIMES.get(start.engine, ANY_ENGINE)
    found: dict[Phase, Estimate] = {}
    if machine.provision_us:
        found[Phase.PROVISION] = _estimate(
            Phase.PROVISION, machine.provision_us / SECOND_US, _ENGINE_SPREAD, "as configured"
        )
    if machine.link:
        seconds = start.weight_bytes / machine.link
        why = f"{size(start.weight_bytes)} over {size(machine.link)}/s"
        found[Phase.DOWNLOAD] = _estimate(Phase.DOWNLOAD, seconds, _LINK_SPREAD, why)
    found[Phase.WEIGHTS] = _weights(start, machine, times)
    found |= _engine(start, machine, times)
    return tuple(_learnt(found[phase], machine) for phase in Phase if phase in found)


def predict_wake(
    tier: Tier,
    *,
    image_bytes: float,
    machine: Machine,
    device_bytes: float = 0,
    ranks: int = 1,
    reload: Start | None = None,
) -> tuple[Estimate, ...]:
    """Return the phases of a wake from a snapshot or an engine's sleep.

    `image_bytes` is what is read back (the snapshot, or the weights in memory); `device_bytes` the part that
    returns to the accelerator. `reload`: the engine sleeps without its weights (vLLM's level 2) and loads
    them as that start would. Constants: cuda-checkpoint restores 9.2 GiB/s (ai-dynamo/snapshot, B200); CRIU
    reads 1.1 GiB/s a process; QEMU maps a file at the storage's speed.
    """
    disk = machine.bandwidth or 5 * GB
    if tier is Tier.ASLEEP:
        return _from_sleep(image_bytes, machine, ranks=ranks, reload=reload)
    if tier in (Tier.HIBERNATED, Tier.COLD):
        raise ValueError(f"a wake from {tier} is a start")
    restore_rate = min(disk, 1.2 * GB) if tier is Tier.FROZEN else min(disk, 8 * GB)
    found = [
        _estimate(
            Phase.READ_IMAGE,
            image_bytes / restore_rate,
            _READ_SPREAD,
            f"{size(image_bytes)} at {size(restore_rate)}/s",
        ),
        _estimate(Phase.RESTORE_PROCESS, 0.06, _ENGINE_SPREAD, "measured on CPU engines"),
    ]
    if device_bytes:
        seconds = 0.05 + 0.109 * device_bytes / GIB
        why = f"{size(device_bytes)} at 9.2 GiB/s"
        found.append(_estimate(Phase.RESTORE_DEVICE, seconds, _READ_SPREAD, why))
    found.append(_estimate(Phase.VERIFY, 0.05 * machine.host, _ENGINE_SPREAD, "eight tokens"))
    return tuple(found)


def _from_sleep(
    image_bytes: float, machine: Machine, *, ranks: int, reload: Start | None
) -> tuple[Estimate, ...]:
    """Return the wake of an engine that kept its process: memory is mapped anew, then the weights come back.

    To one accelerator 22 GB/s over PCIe 4 and 25 over PCIe 5, 45 GB/s to all together (vLLM blog 2025-10-26,
    llm-d). What does not depend on the size is 0.1 to 1.2 s by what is published.
    """
    held = 0.0 if reload is not None else image_bytes
    rate = min(min(0.92 * machine.bus, _SLEEP_RATE) * ranks, _SLEEP_RATE_ALL)
    least, usual, most = _SLEEP_FIXED_S
    low, high = _READ_SPREAD
    woken = Estimate(
        phase=Phase.ENGINE_WAKE,
        expected_us=round((usual + held / rate) * SECOND_US),
        low_us=round((least + low * held / rate) * SECOND_US),
        high_us=round((most + high * held / rate) * SECOND_US),
        why="memory mapped anew" if reload is not None else f"{size(held)} at {size(rate)}/s",
    )
    if reload is None:
        return (woken,)
    return (woken, _weights(reload, machine, ENGINE_TIMES.get(reload.engine, ANY_ENGINE)))


def wakes_by_tier(
    start: Sequence[Estimate],
    *,
    image_bytes: float,
    machine: Machine,
    device_bytes: float = 0,
    ranks: int = 1,
) -> dict[Tier, tuple[Estimate, ...]]:
    """Return the phases of a wake from each tier for a model whose start is predicted already.

    `image_bytes` is what a snapshot or a sleeping engine holds, `device_bytes` the part of it that returns to
    an accelerator. Of `hibernated` only its cloud knows.
    """
    found = {
        tier: predict_wake(
            tier,
            image_bytes=image_bytes,
            machine=machine,
            device_bytes=device_bytes,
            ranks=ranks,
        )
        for tier in (Tier.ASLEEP, Tier.FROZEN, Tier.SUSPENDED)
    }
    return found | {Tier.COLD: tuple(start)}


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Return the whole as one estimate; the bounds are added up, as if all went well or all ill together."""
    known = list(estimates)
    return Estimate(
        phase=Phase.UNATTRIBUTED,
        expected_us=sum(e.expected_us for e in known),
        low_us=sum(e.low_us for e in known),
        high_us=sum(e.high_us for e in known),
        why="all phases",
    )


@dataclass(slots=True)
class Learned:
    """What measured wakes of one model taught, by tier. Feed it finished wakes in order."""

    _seen: dict[Tier, list[dict[Phase, int]]] = field(default_factory=dict)

    def observe(self, tier: Tier, spans: Sequence[PhaseSpan]) -> None:
        """Learn from one successful wake; only the last fifty of each tier count."""
        seen = self._seen.setdefault(tier, [])
        seen.append(totals(spans))
        del seen[:-MOST_MEASURED]

    def count(self, tier: Tier) -> int:
        """Return how many wakes from this tier were learned from."""
        return len(self._seen.get(tier, ()))

    def expect(self, tier: Tier, prior: Sequence[Estimate] = ()) -> tuple[Estimate, ...]:
        """Return what was measured, with the prior's doubt while that was little; else the prior."""
        seen = self._seen.get(tier, [])
        if not seen:
            return tuple(prior)
        by_phase = {estimate.phase: estimate for estimate in prior}
        phases = [p for p in Phase if any(p in wake for wake in seen)]
        return tuple(
            _blended(phase, [wake.get(phase, 0) for wake in seen], by_phase.get(phase)) for phase in phases
        )


def host_factor(start: Start, measured: Mapping[Phase, int]) -> float:
    """Return how much longer this host took for an engine's own phases than the constants say.

    For predicting other models on the same host. 1.0 is the host the constants come from.
    """
    times = ENGINE_TIMES.get(start.engine, ANY_ENGINE)
    base = _engine(start, Machine(host=1.0), times)
    both = [phase for phase in base if measured.get(phase)]
    expected = sum(base[phase].expected_us for phase in both)
    return sum(measured[phase] for phase in both) / expected if expected else USUAL_HOST


def phase_factors(
    start: Start, machine: Machine, measured: Mapping[Phase, int], *, cached: bool
) -> dict[Phase, float]:
    """Return how much longer each phase of a start took than predicted, for other models on the same host.

    `cached`: the weights came from the page cache, so their time says nothing of the storage.
    """
    plain = replace(machine, host=1.0, phases=MappingProxyType({}))
    found: dict[Phase, float] = {}
    for cache in (CompileCache.MISS, CompileCache.HIT):  # whichever it was then, it may be otherwise by now
        for each in predict_start(replace(start, compile_cache=cache), plain):
            if measured.get(each.phase) and each.expected_us:
                found[each.phase] = measured[each.phase] / each.expected_us
    for phase in (Phase.PROVISION, Phase.DOWNLOAD, *((Phase.WEIGHTS,) if cached else ())):
        found.pop(phase, None)
    return found


def _learnt(estimate: Estimate, machine: Machine) -> Estimate:
    """Return an estimate at the pace that was measured on this host, if its phase was."""
    factor = machine.phases.get(estimate.phase)
    if factor is None:
        return estimate
    host = 1.0 if estimate.phase is Phase.WEIGHTS else machine.host
    why = f"{estimate.why}, as fast as other starts here"
    seconds = estimate.expected_us * factor / host / SECOND_US
    return _estimate(estimate.phase, seconds, _LEARNT_SPREAD, why)


def _blended(phase: Phase, seen: list[int], prior: Estimate | None) -> Estimate:
    """Return the median, and an interval that is the prior's around it while few were measured."""
    ordered = sorted(seen)
    tail = len(ordered) // 10
    middle = median(ordered)
    low, high = float(ordered[tail]), float(ordered[-1 - tail])
    if prior is not None and prior.expected_us:
        doubt = PRIOR_WEIGHT / (len(seen) + PRIOR_WEIGHT)
        low = min(low, middle * (1 - doubt * (1 - prior.low_us / prior.expected_us)))
        high = max(high, middle * (1 + doubt * (prior.high_us / prior.expected_us - 1)))
    return Estimate(
        phase=phase,
        expected_us=round(middle),
        low_us=round(low),
        high_us=round(high),
        why=f"{len(seen)} measured",
    )


def _weights(start: Start, machine: Machine, times: EngineTimes) -> Estimate:
    name = start.loader or times.loader
    loader = LOADERS[name]
    rate = weight_rate(
        loader,
        machine.storage,
        bandwidth=machine.bandwidth,
        streams=start.streams,
        ranks=start.ranks,
        apart=start.experts_apart or start.stages > 1,
        bus=machine.bus,
    )
    why = f"{size(start.weight_bytes)} at {size(rate)}/s ({name})"
    return _estimate(Phase.WEIGHTS, loader.setup_s + start.weight_bytes / rate, _spread(machine), why)


def _spread(machine: Machine) -> tuple[float, float]:
    """Return how far off a load may be: most for storage that was not measured."""
    if machine.storage is Storage.CACHE:
        return _READ_SPREAD
    if machine.bandwidth is None:
        return _UNMEASURED_SPREAD
    return _REMOTE_SPREAD if machine.storage in (Storage.NETWORK, Storage.OBJECT) else _READ_SPREAD


def _engine(start: Start, machine: Machine, times: EngineTimes) -> dict[Phase, Estimate]:
    missed = start.compile_cache is CompileCache.MISS
    compiled = times.compiles and not start.eager and start.compile_cache is not CompileCache.NONE
    skipped = {Phase.COMPILE_HIT, Phase.COMPILE_MISS}
    if compiled:
        skipped = {Phase.COMPILE_HIT if missed else Phase.COMPILE_MISS}
    elif start.eager and times.loader == "safetensors":
        skipped |= {Phase.GRAPHS}
    share = ModelShare(
        layers=start.depth / start.stages,
        billions=start.parameters / 1e9 / start.ranks,
        gigabytes=start.weight_bytes / GB / start.ranks,
        ranks=start.ranks,
        experts=start.experts,
        compiled=compiled,
    )
    seconds = {p: line.seconds(share) for p, line in times.phases.items() if p not in skipped}
    eight_bit = start.experts and 7 < start.weight_bytes * 8 / start.parameters < 12
    if times.expert_kernels and eight_bit and missed:
        seconds[Phase.WARMUP] += times.expert_kernels.seconds(share)
    why = f"{start.engine}, {start.depth} layers"
    return {p: _estimate(p, machine.host * s, _ENGINE_SPREAD, why) for p, s in seconds.items()}


def _estimate(phase: Phase, seconds: float, spread: tuple[float, float], why: str) -> Estimate:
    low, high = spread
    return Estimate(
        phase=phase,
        expected_us=round(seconds * SECOND_US),
        low_us=round(seconds * low * SECOND_US),
        high_us=round(seconds * high * SECOND_US),
        why=why,
    )
