"""What the dashboard may ask of the past: the ledger's time, money, wakes and requests, and engines' logs.

Instants are microseconds since the Unix epoch, money integer nano-dollars. Every question may block on the
disk for milliseconds, off the event loop; a cancelled one runs to its end and its answer is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
class LogPiece:
    """Some of an engine's log, and where the next piece begins."""

    text: str
    next: int


class FleetHistory(Protocol):
    """The past of a fleet."""

    async def ribbons(self, from_us: int, to_us: int) -> Ribbons:
        """Return every replica's time within a window; stretches too short to be seen in it are merged."""
        ...

    async def costs(self) -> Costs:
        """Return what the models cost today, this month and by day."""
        ...

    async def wakes(self, model: str | None, last: int) -> Sequence[PastWake]:
        """Return the last finished wakes, the newest first."""
        ...

    async def requests(self, last: int) -> Sequence[PastRequest]:
        """Return the last finished requests, the newest first."""
        ...

    async def explain(self, model: str, at_us: int) -> Sequence[str]:
        """Say why a second was paid, as `poorwill bill --explain` does. Raises RequestFault."""
        ...

    async def compare(self, this: tuple[int, int], last: tuple[int, int]) -> Sequence[str]:
        """Say why one period cost more than another. Raises RequestFault."""
        ...

    async def log(self, replica: str, start: int | None) -> LogPiece:
        """Return an engine's log from a byte on, at most 64 KiB; None is near its end. It may be empty."""
        ...
