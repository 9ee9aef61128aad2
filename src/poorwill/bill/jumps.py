"""An unexpected jump of the bill, noticed while it happens.

A model's cost since midnight is compared with what the days before had cost by the same time of day. Bursty
models have quiet and loud hours, so an hour says little and the day so far says much. Pure but for the
query; whoever runs the fleet asks every few minutes and posts what is found.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poorwill.core.entries import Noted
from poorwill.core.format import DAY_US, money
from poorwill.core.words import ModelName
from poorwill.ledger.costs.items import items
from poorwill.ledger.dates import Period

DAYS_BEFORE = 7
DAYS_NEEDED = 3
FACTOR_PERCENT = 150
"""A jump is more than this share of the dearest of the days before ..."""

LEAST_NUSD = 100_000_000
"""... and more than it by at least this: ten cents are nobody's emergency."""

Costs = Mapping[str, int]
"""Cause to nano-dollars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """A day that has cost far more by now than any of the days before had."""

    model: str
    spent_nusd: int
    usual_nusd: int
    """The dearest of the days before, by the same time of day."""
    cause: str
    """What grew most."""
    grew_nusd: int

    def noted(self, at_us: int) -> Noted:
        """Return the event to post."""
        return Noted(
            at_us=at_us,
            kind="spend_jump",
            model=ModelName(self.model),
            text=(
                f"{self.model} has cost {money(self.spent_nusd)} today, on no day before more than "
                f"{money(self.usual_nusd)} by this time; {self.cause} grew most, "
                f"by {money(self.grew_nusd)}"
            ),
            detail={
                "spent_nusd": str(self.spent_nusd),
                "usual_nusd": str(self.usual_nusd),
                "cause": self.cause,
            },
        )


def detect(model: str, today: Costs, before: Sequence[Costs]) -> Jump | None:
    """Return the jump, if there is one. `before` are the days before, each up to the same time of day."""
    if len(before) < DAYS_NEEDED:
        return None
    spent, usual = sum(today.values()), max(sum(day.values()) for day in before)
    if spent * 100 <= usual * FACTOR_PERCENT or spent - usual < LEAST_NUSD:
        return None
    mean = {cause: sum(day.get(cause, 0) for day in before) // len(before) for cause in today}
    cause = max(sorted(today), key=lambda name: today[name] - mean[name])
    return Jump(
        model=model,
        spent_nusd=spent,
        usual_nusd=usual,
        cause=cause,
        grew_nusd=today[cause] - mean[cause],
    )


def jumps(db: sqlite3.Connection, *, now_us: int) -> list[Jump]:
    """Look for a jump of each model's bill now. Days before the model's first are no history."""
    midnight_us = now_us // DAY_US * DAY_US
    first = dict(db.execute("SELECT model, min(created_us) FROM lives GROUP BY model"))
    days = [
        _costs(db, midnight_us - back * DAY_US, now_us - back * DAY_US) for back in range(DAYS_BEFORE + 1)
    ]
    found = []
    for model, created_us in sorted(first.items()):
        lived = (midnight_us - created_us) // DAY_US
        before = [day.get(model, {}) for day in days[1 : 1 + max(lived, 0)]]
        jump = detect(model, days[0].get(model, {}), before)
        if jump is not None:
            found.append(jump)
    return found


def _costs(db: sqlite3.Connection, from_us: int, to_us: int) -> dict[str, dict[str, int]]:
    costs: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    if from_us < to_us:
        for item in items(db, Period(from_us=from_us, to_us=to_us)):
            costs[item.model][item.cause] += item.nusd
    return costs
