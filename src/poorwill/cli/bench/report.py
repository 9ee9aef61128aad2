"""What a benchmark measured, as text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from poorwill.coldstart.starts import StartSummary
from poorwill.coldstart.steady_state import Level, Overhead, Percentiles, saturation
from poorwill.core.format import counted, duration, table
from poorwill.core.words import SECOND_US


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
        """Return where continuous batching saturates, seen directly, else through the gateway."""
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

    p50_s: float
    p95_s: float
    p99_s: float


class LevelDocument(Struct, frozen=True, kw_only=True):
    """So many clients at once by one way, `gateway` or `direct`."""

    route: str
    concurrency: int
    requests: int
    failed: int
    took_s: float
    tokens: int
    tokens_per_s: float
    first_token: PercentilesDocument
    between_tokens: PercentilesDocument
    whole: PercentilesDocument


class OverheadDocument(Struct, frozen=True, kw_only=True):
    """What the gateway adds to a request: median and quartiles."""

    pairs: int
    median_s: float
    low_s: float
    high_s: float


class WakePenaltyDocument(Struct, frozen=True, kw_only=True):
    """What a wake takes, also in warm first tokens."""

    wake_s: float
    times_baseline: float


class BenchDocument(Struct, frozen=True, kw_only=True):
    """What a benchmark measured."""

    model: str
    levels: tuple[LevelDocument, ...]
    saturates_at: int | None
    gateway_overhead: OverheadDocument | None
    kv_cache: Mapping[str, int]
    baseline_first_token_s: float
    wake_penalty: Mapping[str, WakePenaltyDocument]


def bench_document(result: BenchResult) -> BenchDocument:
    """Return the result for JSON."""
    saturated, added = result.saturated, result.overhead
    return BenchDocument(
        model=result.model,
        levels=tuple(map(_level, result.levels)),
        saturates_at=saturated.concurrency if saturated else None,
        gateway_overhead=None
        if added is None
        else OverheadDocument(
            pairs=added.pairs,
            median_s=added.median_us / SECOND_US,
            low_s=added.low_us / SECOND_US,
            high_s=added.high_us / SECOND_US,
        ),
        kv_cache=dict(result.capacity),
        baseline_first_token_s=result.baseline_us / SECOND_US,
        wake_penalty={
            str(start.kind): WakePenaltyDocument(
                wake_s=start.took.median_us / SECOND_US,
                times_baseline=start.took.median_us / max(1, result.baseline_us),
            )
            for start in result.wakes
        },
    )


def _level(level: Level) -> LevelDocument:
    return LevelDocument(
        route=level.route,
        concurrency=level.concurrency,
        requests=level.requests,
        failed=level.failed,
        took_s=level.took_us / SECOND_US,
        tokens=level.tokens,
        tokens_per_s=level.tokens_s,
        first_token=_percentiles(level.first_token),
        between_tokens=_percentiles(level.between_tokens),
        whole=_percentiles(level.whole),
    )


def _percentiles(values: Percentiles) -> PercentilesDocument:
    return PercentilesDocument(
        p50_s=values.p50_us / SECOND_US,
        p95_s=values.p95_us / SECOND_US,
        p99_s=values.p99_us / SECOND_US,
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


_HEAD = (
    *("at once", "way", "requests", "tokens/s"),
    *("first token", "between tokens", "whole"),
)


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
