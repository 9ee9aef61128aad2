"""What a benchmark measured, and how it is told: as text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poorwill.cli.anatomy.waterfall import columns, seconds
from poorwill.coldstart.starts import StartSummary
from poorwill.coldstart.steady_state import Level, Overhead, Percentiles, saturation
from poorwill.core.format import counted
from poorwill.core.words import SECOND_US

Json = dict[str, object]


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
    table = [f"  {line}".rstrip() for line in columns(rows, last_left=False)]
    lines = [f"{result.model}, warm; times are p50/p95/p99:", *table, ""]
    return lines + [f"  {line}" for line in _conclusions(result)]


def bench_json(result: BenchResult) -> Json:
    """Return the result as one JSON document; durations in seconds."""
    saturated = result.saturated
    added = result.overhead
    return {
        "model": result.model,
        "levels": [_level_json(level) for level in result.levels],
        "saturates_at": saturated.concurrency if saturated else None,
        "gateway_overhead_s": None
        if added is None
        else {
            "pairs": added.pairs,
            "median": added.median_us / SECOND_US,
            "low": added.low_us / SECOND_US,
            "high": added.high_us / SECOND_US,
        },
        "kv_cache": dict(result.capacity),
        "baseline_first_token_s": result.baseline_us / SECOND_US,
        "wake_penalty": {
            str(start.kind): {
                "wake_s": start.took.median_us / SECOND_US,
                "times_baseline": start.took.median_us / max(1, result.baseline_us),
            }
            for start in result.wakes
        },
    }


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
            f"a wake from {start.kind} takes {seconds(start.took.median_us)}: {times:.0f} times the warm "
            f"first token ({seconds(result.baseline_us)})"
        )
    return lines


def _overhead(added: Overhead) -> str:
    """Return what the gateway adds; a median that is no larger than the scatter is called what it is."""
    figures = (
        f"median {seconds(added.median_us)}, quartiles {seconds(added.low_us)} .. "
        f"{seconds(added.high_us)}, {counted(added.pairs, 'pair')}"
    )
    if added.low_us <= 0:
        return f"what the gateway adds is less than the requests scatter by themselves ({figures})"
    return f"the gateway adds {seconds(added.median_us)} to a request ({figures})"


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
    """Return the three in the one unit that suits the largest."""
    three = (values.p50_us, values.p95_us, values.p99_us)
    if three[-1] < SECOND_US:
        return "/".join(f"{us / 1000:.{0 if us >= 100_000 else 1}f}" for us in three) + " ms"
    return "/".join(f"{us / SECOND_US:.{0 if us >= 100 * SECOND_US else 2}f}" for us in three) + " s"


def _level_json(level: Level) -> Json:
    return {
        "route": level.route,
        "concurrency": level.concurrency,
        "requests": level.requests,
        "failed": level.failed,
        "took_s": level.took_us / SECOND_US,
        "tokens": level.tokens,
        "tokens_s": level.tokens_s,
        "first_token_s": _percentiles_json(level.first_token),
        "between_tokens_s": _percentiles_json(level.between_tokens),
        "whole_s": _percentiles_json(level.whole),
    }


def _percentiles_json(values: Percentiles) -> Json:
    return {
        "p50": values.p50_us / SECOND_US,
        "p95": values.p95_us / SECOND_US,
        "p99": values.p99_us / SECOND_US,
    }
