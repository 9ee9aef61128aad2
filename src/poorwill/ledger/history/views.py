"""What the dashboard shows of the past: time, money, wakes, requests and logs.

Instants are microseconds since the Unix epoch, money integer nano-dollars.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Stretch = tuple[int, int | None, str, int, int]
"""Began, ended (None while it lasts), cause, price of an hour, how many shorter stretches are in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ribbon:
    """One replica's time within a window, and when it was woken: (began, ended, whether it came up)."""

    replica: str
    model: str
    stretches: Sequence[Stretch]
    wakes: Sequence[tuple[int, int | None, bool | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ribbons:
    """Every replica's time within a window, which begins no earlier than the first of them lived."""

    from_us: int
    to_us: int
    rows: Sequence[Ribbon]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """What a model cost today and this month (UTC), and what it would have cost awake all the time."""

    model: str
    today_nusd: int
    today_awake_nusd: int
    month_nusd: int
    month_awake_nusd: int
    paid_us: int
    """Seconds of this month at the active rate; `useful_us` of them had a request in flight."""
    useful_us: int
    now_nusd_h: int
    now_awake_nusd_h: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HourOfUse:
    """What the requests that ended in one hour add up to; `at_us` is its start."""

    at_us: int
    requests: int
    failed: int
    tokens_in: int
    tokens_out: int
    held_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The bill as a dashboard shows it."""

    now_us: int
    currency: str
    models: Sequence[ModelCost]
    days: Sequence[tuple[int, str, int]]
    """(start of the day, cause, cost)."""
    hours: Sequence[HourOfUse]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastWake:
    """A finished wake and its phases: (phase, began, ended)."""

    wake: str
    model: str
    replica: str
    from_tier: str
    why: str
    asked_by: str
    began_us: int
    ended_us: int
    ok: bool
    failure: str
    held: int
    budget_us: int | None
    phases: Sequence[tuple[str, int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRequest:
    """A finished request. No prompt and no answer: the ledger has none."""

    request: str
    model: str
    key: str
    path: str
    outcome: str
    status: int
    replica: str | None
    wake: str | None
    arrived_us: int
    leased_us: int | None
    first_byte_us: int | None
    ended_us: int
    tokens_in: int | None
    tokens_out: int | None
    bridge: str | None
    bridge_nusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCost:
    """What one request cost: its part of serving, its part of its wake, and what a hosted API charged."""

    arrived_us: int
    leased_us: int | None
    first_byte_us: int | None
    ended_us: int
    tokens_in: int | None
    tokens_out: int | None
    currency: str
    serving_nusd: int
    wake_nusd: int
    wake_us: int
    """Its part of the wake's time."""
    hosted_nusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """Some of an engine's log, and where the next piece begins."""

    text: str
    next: int
