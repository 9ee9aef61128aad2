"""Metrics as Prometheus text: counters and histograms of requests, gauges of the fleet at scrape time.

Small on purpose: three kinds of series, no registry at import, no locks (one event loop thread), a fraction
of a microsecond for each count on the warm path. Names and buckets are listed only here. Format: Prometheus
text exposition 0.0.4.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from poorwill.core.entries import Entry, Noted, RequestEnded, WakeEnded
from poorwill.core.errors import ErrorCode
from poorwill.core.money import NUSD
from poorwill.core.ports.view import Configuration, FleetView, ReplicaStatus
from poorwill.core.spend import LimitState, Standing
from poorwill.core.words import SECOND_US, ModelName

Labels = tuple[str, ...]

SECONDS: tuple[float, ...] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600,
)  # fmt: skip
"""Bucket bounds, from a warm first byte to a cold start."""


class Counter:
    """A count that only grows, by label values."""

    def __init__(self, *, name: str, help_text: str, labels: Labels) -> None:
        self.name = name
        self._help = help_text
        self._labels = labels
        self._values: dict[Labels, float] = {}

    def add(self, values: Labels, amount: float = 1) -> None:
        """Add to the series with these label values."""
        try:
            self._values[values] += amount
        except KeyError:
            self._values[values] = amount

    def lines(self) -> Iterable[str]:
        """Return its lines of exposition."""
        yield from _head(self.name, "counter", self._help)
        for values, value in self._values.items():
            yield f"{self.name}{_braces(self._labels, values)} {_number(value)}"


class Histogram:
    """A distribution over fixed buckets, by label values."""

    def __init__(
        self, *, name: str, help_text: str, labels: Labels, bounds: Sequence[float] = SECONDS
    ) -> None:
        self.name = name
        self._help = help_text
        self._labels = labels
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, values: Labels, value: float) -> None:
        """Count one observation."""
        try:
            self._sums[values] += value
        except KeyError:
            self._sums[values] = value
            self._counts[values] = [0] * (len(self._bounds) + 1)
        self._counts[values][bisect_left(self._bounds, value)] += 1

    def lines(self) -> Iterable[str]:
        """Return its lines of exposition; buckets are cumulative."""
        yield from _head(self.name, "histogram", self._help)
        labels = (*self._labels, "le")
        for values, counts in self._counts.items():
            total = 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                total += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f"{self.name}_bucket{_braces(labels, (*values, le))} {total}"
            braces = _braces(self._labels, values)
            yield f"{self.name}_sum{braces} {_number(self._sums[values])}"
            yield f"{self.name}_count{braces} {total}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """What others measured: values by label values."""

    name: str
    help_text: str
    labels: Labels
    rows: Sequence[tuple[Labels, float]]


COSTS_WAIT_S = 1.0
"""A scrape does not wait longer for costs: it shows the last ones known."""


class GatewayMetrics:
    """The gateway's counters. Implements the gateway's `Metrics`."""

    def __init__(self) -> None:
        self.costs: Sequence[Gauge] = ()
        """What the ledger last said of costs."""
        self.costs_asked, self.costs_fresh = asyncio.Event(), asyncio.Event()
        self.costs_fresh.set()
        self._requests = Counter(
            name="poorwill_requests_total",
            help_text="Finished requests for a model, by outcome (ok or an error code).",
            labels=("model", "outcome", "status"),
        )
        self._refused = Counter(
            name="poorwill_refused_total",
            help_text="Rejected requests, by error code.",
            labels=("code",),
        )
        self._tokens = Counter(
            name="poorwill_tokens_total",
            help_text="Tokens as the engines reported them.",
            labels=("model", "direction"),
        )
        self._notes = Counter(
            name="poorwill_notes_total",
            help_text="Notes for the operator, by kind: spend_jump, spend_tripped, engine_lost, ...",
            labels=("kind", "model"),
        )
        self._wakes = Counter(
            name="poorwill_wakes_total",
            help_text="Wakes that are over, by outcome: ok or failed.",
            labels=("model", "outcome"),
        )
        self._bridged = Counter(
            name="poorwill_bridged_total",
            help_text="Requests that a hosted API served; usage: whether it reported the tokens, so that the "
            "cost is known.",
            labels=("model", "api", "usage"),
        )
        self._bridge_usd = Counter(
            name="poorwill_bridge_cost_usd_total",
            help_text="The known cost of requests that hosted APIs served.",
            labels=("model", "api"),
        )
        self._bridge_failures = Counter(
            name="poorwill_bridge_failures_total",
            help_text="Requests that a hosted API did not answer; they were then held, or failed.",
            labels=("model", "why"),
        )
        self._first_byte = _seconds("first_byte", "From a request's arrival to the first byte.")
        self._duration = _seconds("request", "From a request's arrival to its last byte.")
        self._held = _seconds("held", "From a held request's arrival to its lease.")

    def ended(self, row: RequestEnded) -> None:
        """Count a finished request."""
        model = (row.model,)
        arrived = row.arrived_us
        self._requests.add((row.model, row.outcome, str(row.status)))
        self._duration.observe(model, (row.ended_us - arrived) / SECOND_US)
        if row.first_byte_us is not None:
            self._first_byte.observe(model, (row.first_byte_us - arrived) / SECOND_US)
        if row.bridge:
            self._count_bridged(row)
        elif row.wake is not None and row.leased_us is not None:
            self._held.observe(model, (row.leased_us - arrived) / SECOND_US)
        if row.tokens_in is not None:
            self._tokens.add((row.model, "in"), row.tokens_in)
        if row.tokens_out is not None:
            self._tokens.add((row.model, "out"), row.tokens_out)

    def _count_bridged(self, row: RequestEnded) -> None:
        self._bridged.add((row.model, row.bridge, "no" if row.bridge_untold else "yes"))
        if row.bridge_nusd:
            self._bridge_usd.add((row.model, row.bridge), row.bridge_nusd / NUSD)

    def bridge_failed(self, model: ModelName, why: str) -> None:
        """Count a request that a hosted API did not answer."""
        self._bridge_failures.add((model, why))

    def refused(self, code: ErrorCode) -> None:
        """Count a rejected request."""
        self._refused.add((code.value,))

    def count_entry(self, entry: Entry) -> None:
        """Count a wake or a note for the operator; nothing else. A listener of the journal."""
        if isinstance(entry, Noted):
            self._notes.add((entry.kind, entry.model or ""))
        elif isinstance(entry, WakeEnded):
            self._wakes.add((entry.replica.rpartition("-")[0], "ok" if entry.ok else "failed"))

    async def refresh(self) -> None:
        """Have old costs asked for anew and wait a moment for them. Cancelled: they are still asked for."""
        self.costs_asked.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(COSTS_WAIT_S):
                await self.costs_fresh.wait()

    def exposition(self, fleet: FleetView) -> str:
        """Return everything in Prometheus' text format."""
        for replica in fleet.status():  # a series that begins at one would hide its first wake from rates
            self._wakes.add((replica.model, "ok"), 0)
            self._wakes.add((replica.model, "failed"), 0)
        series = (
            self._requests,
            self._refused,
            self._tokens,
            self._notes,
            self._wakes,
            self._bridged,
            self._bridge_usd,
            self._bridge_failures,
            self._first_byte,
            self._duration,
            self._held,
        )
        lines = [line for one in series for line in one.lines()]
        lines += _fleet_lines(fleet.status())
        lines += _limit_lines(fleet.limits())
        lines += _configuration_lines(fleet.configuration())
        lines += _gauge_lines(self.costs)
        return "\n".join(lines) + "\n"


def _seconds(what: str, help_text: str) -> Histogram:
    return Histogram(name=f"poorwill_{what}_seconds", help_text=help_text, labels=("model",))


def _fleet_lines(replicas: Sequence[ReplicaStatus]) -> Iterable[str]:
    """Return the gauges of the fleet, including the published wake interval."""
    labels = ("model", "replica")

    def gauge(name: str, help_text: str, values: Iterable[tuple[ReplicaStatus, float | None]]) -> None:
        lines.extend(_head(name, "gauge", help_text))
        for replica, value in values:
            if value is not None:
                braces = _braces(labels, (replica.model, replica.replica))
                lines.append(f"{name}{braces} {_number(value)}")

    lines: list[str] = []
    gauge("poorwill_in_flight", "Requests in flight.", ((r, r.in_flight) for r in replicas))
    gauge("poorwill_held", "Requests held.", ((r, r.held) for r in replicas))
    gauge("poorwill_failures", "Failed wakes in a row.", ((r, r.failures) for r in replicas))
    gauge("poorwill_wakes", "Wakes in the interval.", ((r, r.wake.count) for r in replicas))
    gauge("poorwill_wake_p50_seconds", "Wake, median.", ((r, r.wake.p50_s) for r in replicas))
    gauge("poorwill_wake_p95_seconds", "Wake, 95 %.", ((r, r.wake.p95_s) for r in replicas))
    gauge("poorwill_wake_max_seconds", "Longest wake.", ((r, r.wake.max_s) for r in replicas))
    gauge("poorwill_wake_budget_seconds", "The budget.", ((r, r.wake.budget_s) for r in replicas))
    gauge(
        "poorwill_wakes_over_budget",
        "Wakes in the interval that took longer than the budget.",
        ((r, r.wake.over_budget) for r in replicas),
    )
    lines.extend(_head("poorwill_state", "gauge", "1 for the state a replica is in."))
    for r in replicas:
        values = (r.model, r.replica, r.state, r.tier or "", r.cause)
        braces = _braces(("model", "replica", "state", "tier", "cause"), values)
        lines.append(f"poorwill_state{braces} 1")
    return lines


def _gauge_lines(gauges: Sequence[Gauge]) -> Iterable[str]:
    for gauge in gauges:
        yield from _head(gauge.name, "gauge", gauge.help_text)
        for values, value in gauge.rows:
            yield f"{gauge.name}{_braces(gauge.labels, values)} {_number(value)}"


def _configuration_lines(now: Configuration) -> Iterable[str]:
    for name, help_text, value in (
        (
            "last_reload_successful",
            "0: the file was refused when last read.",
            now.refused_us is None,
        ),
        ("loaded_timestamp_seconds", "Since when the configuration holds.", now.since_us / SECOND_US),
        ("needs_restart", "Keys whose new value waits for a restart.", len(now.needs_restart)),
    ):
        yield from _head(f"poorwill_config_{name}", "gauge", help_text)
        yield f"poorwill_config_{name} {_number(value)}"


def _limit_lines(limits: Sequence[LimitState]) -> Iterable[str]:
    """Return the gauges of the spend limits, as last computed."""
    gauges: tuple[tuple[str, str, Callable[[LimitState], float | None]], ...] = (
        ("spent_usd", "Spent in the window so far.", lambda one: one.spent_nusd / NUSD),
        ("limit_usd", "The limit.", lambda one: one.limit_nusd / NUSD),
        (
            "ahead_usd",
            "Spending in the window that can no longer be avoided.",
            lambda one: one.ahead_nusd / NUSD,
        ),
        (
            "forecast_usd",
            "Spent by the window's end at the pace so far; absent in the first 24th of the window.",
            lambda one: None if one.forecast_nusd is None else one.forecast_nusd / NUSD,
        ),
        (
            "tripped",
            "1 if the limit stops wakes or requests.",
            lambda one: one.standing is Standing.TRIPPED,
        ),
        ("lifts_timestamp_seconds", "When the window ends.", lambda one: one.ends_us / SECOND_US),
    )
    for what, help_text, measure in gauges if limits else ():
        name = f"poorwill_spend_{what}"
        yield from _head(name, "gauge", help_text)
        for limit in limits:
            value = measure(limit)
            if value is not None:
                braces = _braces(("scope", "name", "window"), (limit.scope, limit.name, limit.window))
                yield f"{name}{braces} {_number(value)}"


def _head(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def _braces(names: Labels, values: Labels) -> str:
    pairs = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
