"""What a benchmark measured, as text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from poorwill.core.format import counted, duration, table
from poorwill.policies.coldstart.starts import StartSummary
from poorwill.policies.coldstart.steady_state import Level, Overhead, Percentiles, saturation


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """Everything one run measured."""

    model: str
    levels: Sequence[Level]
    overhead: Overhead | None
    capacity: Mapping[str, int]
    wakes: Sequence[StartSummary]

    def by_route(self, route: str) -> list[Level]:
        """Return the levels of one way, by rising concurrency."""
        return [level for level in self.levels if level.route == route]

    @property
    def saturated(self) -> Level | None:
        """Return where continuous batching saturates, seen directly or, failing that, through the gateway."""
        return saturation(self.by_route("direct") or self.by_route("gateway"))

    @property
    def baseline_us(self) -> int:
        """Return the warm time to first token of a lone request through the gateway."""
        return self.by_route("gateway")[0].first_token.p50_us


def bench_lines(result: BenchResult) -> list[str]:
    """Return the result for people."""
    rows = [_HEAD, *map(_row, result.levels)]
    lines = [f"{result.model}, warm; times are p50/p95/p99:", *table(rows, "<>", indent="  "), ""]
    return lines + [f"  {line}" for line in _conclusions(result)]


class PercentilesDocument(Struct, frozen=True, kw_only=True):
    """Percentiles of a time."""

    p50_us: int
    p95_us: int
    p99_us: int


class LevelDocument(Struct, frozen=True, kw_only=True):
    """So many clients at once by one way, `gateway` or `direct`."""

    route: str
    concurrency: int
    requests: int
    failed: int
    took_us: int
    tokens: int
    tokens_s: float = msgspec.field(name="tokens_per_s")
    first_token: PercentilesDocument
    between_tokens: PercentilesDocument
    whole: PercentilesDocument


class OverheadDocument(Struct, frozen=True, kw_only=True):
    """What the gateway adds to a request: median and quartiles."""

    pairs: int
    median_us: int
    low_us: int
    high_us: int


class WakePenaltyDocument(Struct, frozen=True, kw_only=True):
    """What a wake takes, also in warm first tokens."""

    wake_us: int
    times_baseline: float


class BenchDocument(Struct, frozen=True, kw_only=True):
    """What a benchmark measured."""

    model: str
    levels: tuple[LevelDocument, ...]
    saturates_at: int | None
    overhead: OverheadDocument | None = msgspec.field(name="gateway_overhead")
    kv_cache: Mapping[str, int]
    baseline_us: int = msgspec.field(name="baseline_first_token_us")
    wake_penalty: Mapping[str, WakePenaltyDocument]


def bench_document(result: BenchResult) -> BenchDocument:
    """Return the result for JSON."""
    return BenchDocument(
        model=result.model,
        levels=msgspec.convert(result.levels, tuple[LevelDocument, ...], from_attributes=True),
        saturates_at=result.saturated.concurrency if result.saturated else None,
        overhead=msgspec.convert(result.overhead, OverheadDocument | None, from_attributes=True),
        kv_cache=dict(result.capacity),
        baseline_us=result.baseline_us,
        wake_penalty={
            str(start.kind): WakePenaltyDocument(
                wake_us=start.took.median_us, times_baseline=start.took.median_us / max(1, result.baseline_us)
            )
            for start in result.wakes
        },
    )


def _conclusions(result: BenchResult) -> list[str]:
    lines = []
    saturated = result.saturated
    if saturated is not None:
        lines.append(
            f"batching saturates at {saturated.concurrency} at once: {saturated.tokens_s:,.0f} tokens/s; "
            "more clients only wait longer"
        )
    elif len({level.concurrency for level in result.levels}) > 1:
        lines.append("throughput still grew at the highest concurrency: try --concurrency higher")
    added = result.overhead
    if added is not None:
        lines.append(_overhead(added))
    capacity = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in result.capacity.items())
    lines.append(f"KV cache, as the engine reports it: {capacity or 'it reports none'}")
    for start in result.wakes:
        times = start.took.median_us / max(1, result.baseline_us)
        lines.append(
            f"a wake from {start.kind} takes {duration(start.took.median_us)}: {times:.0f} times the warm "
            f"first token ({duration(result.baseline_us)})"
        )
    return lines


def _overhead(added: Overhead) -> str:
    """Return what the gateway adds; a median that is no larger than the scatter is called what it is."""
    figures = (
        f"median {duration(added.median_us)}, quartiles {duration(added.low_us)} .. "
        f"{duration(added.high_us)}, {counted(added.pairs, 'pair')}"
    )
    if added.low_us <= 0:
        return f"what the gateway adds is less than the requests scatter by themselves ({figures})"
    return f"the gateway adds {duration(added.median_us)} to a request ({figures})"


_HEAD = (*("at once", "way", "requests", "tokens/s"), *("first token", "between tokens", "whole"))


def _row(level: Level) -> tuple[str, ...]:
    return (
        str(level.concurrency),
        level.route,
        f"{level.requests:,}" + (f" ({level.failed:,} failed)" if level.failed else ""),
        f"{level.tokens_s:,.0f}",
        _three(level.first_token),
        _three(level.between_tokens),
        _three(level.whole),
    )


def _three(values: Percentiles) -> str:
    return " / ".join(map(duration, (values.p50_us, values.p95_us, values.p99_us)))
