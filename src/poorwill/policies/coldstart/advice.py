"""What to change to make starts faster, each with the seconds it would save. Pure.

Savings are measured if they can be: the difference between two kinds of start that both happened here.
If only one has happened, a saving is computed from its own phases and from bandwidths, and says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poorwill.core.format import duration
from poorwill.core.words import SECOND_US, Phase
from poorwill.policies.coldstart.loaders import GB, USUAL_BANDWIDTH, Storage
from poorwill.policies.coldstart.starts import StartKind, StartSummary

_LOADER_SHARE = 0.8
"""What a fast loader reaches of the storage's bandwidth; see `policies.coldstart.loaders`."""
_LEAST_US = SECOND_US // 10
"""Savings below this are not worth a person's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to change."""

    do: str
    saves_us: int
    measured: bool
    """The saving is the difference between starts that happened; otherwise computed."""
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSetup:
    """What advice depends on besides the starts themselves."""

    ladder: Sequence[str] = ()
    """The tiers the model is configured to park in."""
    bandwidth: float | None = None
    """Measured bytes a second of the storage that holds the weights."""
    remote: str = ""
    """The file system that brings the weights over a network; empty if a drive here has them."""
    engine: str = ""


def advise(starts: Sequence[StartSummary], about: StartSetup) -> list[Advice]:
    """Return what is worth changing, the largest saving first."""
    by_kind = {start.kind: start for start in starts}
    found = [
        _compile_cache(by_kind),
        _local_disk(by_kind, about),
        _page_cache(by_kind),
        _snapshot(by_kind, about),
        _loader(by_kind, about),
        _graphs(by_kind),
        _imports(by_kind),
    ]
    worth = [advice for advice in found if advice is not None and advice.saves_us >= _LEAST_US]
    return sorted(worth, key=lambda advice: -advice.saves_us)


Kinds = Mapping[StartKind, StartSummary]


def _cold(kinds: Kinds) -> StartSummary | None:
    return kinds.get(StartKind.COLD) or kinds.get(StartKind.CACHE_WARM)


def _compile_cache(kinds: Kinds) -> Advice | None:
    """The last start compiled anew; both hit and miss seen: measured, else a hit is taken at 45 % of a miss,
    as vLLM's logs show it (coldstart.engine_times)."""
    cold = _cold(kinds)
    if cold is None or Phase.COMPILE_MISS not in cold.latest:
        return None
    missed = cold.phases[Phase.COMPILE_MISS].high_us
    hits = [
        kind.phases[Phase.COMPILE_HIT].high_us for kind in kinds.values() if Phase.COMPILE_HIT in kind.phases
    ]
    hit = min(hits) if hits else round(missed * 0.45)
    return Advice(
        do="keep the engine's compile caches on storage that outlives it: poorwill sets their variables to "
        "the fleet's cache directory, so look for what clears it or changes the cache key (a new engine "
        "version, other flags)",
        saves_us=missed - hit,
        measured=bool(hits),
        evidence=f"compilation without a cache took {duration(missed)}, with one {duration(hit)}",
    )


def _local_disk(kinds: Kinds, about: StartSetup) -> Advice | None:
    """Weights downloaded at each start, or read over a network; a download's own time is what is saved."""
    cold = _cold(kinds)
    if cold is None:
        return None
    do = "keep the weights on a disk of this machine"
    if Phase.DOWNLOAD in cold.latest:
        took = cold.phases[Phase.DOWNLOAD].median_us
        return Advice(
            do=f"{do}, so that a start need not download them",
            saves_us=took,
            measured=True,
            evidence=f"the download took {duration(took)}",
        )
    slow = kinds.get(StartKind.COLD)
    if not about.remote or slow is None or not slow.must_read_bytes:
        return None
    rate = USUAL_BANDWIDTH[Storage.NVME] * _LOADER_SHARE
    local_us = round(slow.must_read_bytes / rate * SECOND_US)
    return Advice(
        do=f"{do}, not on {about.remote}",
        saves_us=_weights_us(slow) - local_us,
        measured=False,
        evidence=f"weights took {duration(_weights_us(slow))}; a local drive of 5 GB/s takes "
        f"{duration(local_us)}",
    )


def _page_cache(kinds: Kinds) -> Advice | None:
    cold, warm = kinds.get(StartKind.COLD), kinds.get(StartKind.CACHE_WARM)
    if cold is None or warm is None:
        return None
    slow, fast = _weights_us(cold), _weights_us(warm)
    return Advice(
        do="leave enough memory for the weights to stay in the page cache between starts",
        saves_us=slow - fast,
        measured=True,
        evidence=f"weights took {duration(slow)} from storage and {duration(fast)} from the page cache",
    )


def _snapshot(kinds: Kinds, about: StartSetup) -> Advice | None:
    cold = _cold(kinds)
    if cold is None:
        return None
    parked = [kinds[k] for k in kinds if k not in (StartKind.COLD, StartKind.CACHE_WARM)]
    if parked:
        best = min(parked, key=lambda kind: kind.took.median_us)
        do = f"let wakes come from {best.kind}: give the ladder that rung and enough room to keep it"
        if best.kind in about.ladder:
            do = f"keep wakes coming from {best.kind}: " + _kept(kinds)
        return Advice(
            do=do,
            saves_us=cold.took.median_us - best.took.median_us,
            measured=True,
            evidence=f"a start takes {duration(cold.took.median_us)}, a wake from {best.kind} "
            f"{duration(best.took.median_us)}",
        )
    if "frozen" in about.ladder or about.bandwidth is None or not cold.must_read_bytes:
        return None
    restore_us = round(cold.must_read_bytes / min(about.bandwidth, 1.2 * GB) * SECOND_US)
    return Advice(
        do="park by snapshot: add `frozen` to the model's ladder (poorwill doctor tells whether it works)",
        saves_us=cold.took.median_us - restore_us,
        measured=False,
        evidence=f"reading back a snapshot the size of the weights would take {duration(restore_us)}",
    )


def _kept(kinds: Kinds) -> str:
    """Say how many wakes were starts although the ladder has a better tier."""
    starts = sum(kinds[k].count for k in kinds if k in (StartKind.COLD, StartKind.CACHE_WARM))
    everything = sum(kind.count for kind in kinds.values())
    return (
        f"{starts} of {everything} were cold starts (the first of a model always is); look in the log for why"
        if starts > 1
        else "only the first start was cold, as it must be"
    )


def _loader(kinds: Kinds, about: StartSetup) -> Advice | None:
    """Weights slower than storage allows: the loader is the limit, or the storage is far away."""
    cold = kinds.get(StartKind.COLD)
    if cold is None or about.bandwidth is None or not cold.must_read_bytes:
        return None
    took = _weights_us(cold)
    reachable = round(cold.must_read_bytes / (about.bandwidth * _LOADER_SHARE) * SECOND_US)
    do = "use a loader that reads with several streams (vLLM: --load-format runai_streamer or instanttensor)"
    if about.engine in ("llama.cpp", "ollama"):
        do = "try load_mode = 'direct_io' or 'mmap', or weights on a faster local drive"
    rate = cold.must_read_bytes / (took / SECOND_US) / GB if took else 0.0
    return Advice(
        do=do,
        saves_us=took - reachable,
        measured=False,
        evidence=f"weights came at {rate:.2g} GB/s from storage that was measured at "
        f"{about.bandwidth / GB:.2g} GB/s",
    )


def _graphs(kinds: Kinds) -> Advice | None:
    cold = _cold(kinds)
    if cold is None or Phase.GRAPHS not in cold.phases:
        return None
    took = cold.phases[Phase.GRAPHS].median_us
    return Advice(
        do="capture fewer batch sizes (vLLM: --max-num-seqs or cudagraph_capture_sizes; "
        "SGLang: --cuda-graph-bs)",
        saves_us=took // 2,
        measured=False,
        evidence=f"graph capture takes {duration(took)}, and half of it for half as many sizes",
    )


def _imports(kinds: Kinds) -> Advice | None:
    cold = _cold(kinds)
    if cold is None or Phase.IMPORTS not in cold.phases:
        return None
    imports = cold.phases[Phase.IMPORTS]
    return Advice(
        do="keep the engine's environment on a local drive, with its bytecode compiled and in the page cache",
        saves_us=imports.high_us - imports.low_us if cold.count > 1 else 0,
        measured=True,
        evidence=f"imports took between {duration(imports.low_us)} and {duration(imports.high_us)}",
    )


def _weights_us(start: StartSummary) -> int:
    weights = start.phases.get(Phase.WEIGHTS)
    return weights.median_us if weights else 0
