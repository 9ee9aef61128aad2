"""What the metrics say of costs, from the ledger."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence

from poorwill.core.errors import PoorwillError
from poorwill.core.format import DAY_US
from poorwill.core.money import NUSD
from poorwill.core.ports.log import Log
from poorwill.core.words import SECOND_US
from poorwill.ledger.history.views import Costs, ModelCost
from poorwill.telemetry.metrics import GatewayMetrics, Gauge

EVERY_S = 10.0
"""How old what the metrics say may be."""
REST = 50
"""So many times as long as a look took, no other is begun: it takes as long as the month has spans, and a
fleet of many small replicas has millions."""


async def follow_costs(
    look: Callable[[], Awaitable[Costs]], metrics: GatewayMetrics, log: Log, *, every_s: float = EVERY_S
) -> None:
    """Keep what the metrics say of costs up to date while somebody asks for it, until cancelled."""
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            metrics.costs = cost_gauges(await look())
        except (PoorwillError, sqlite3.Error) as error:
            log.warning("cannot look at what was spent, for the metrics", why=str(error))
        metrics.costs_fresh.set()
        await asyncio.sleep(max(every_s, REST * (clock() - began)))
        metrics.costs_fresh.clear()
        metrics.costs_asked.clear()
        await metrics.costs_asked.wait()


def cost_gauges(costs: Costs) -> Sequence[Gauge]:
    """Return what the ledger says of costs as gauges."""
    midnight_us = costs.now_us // DAY_US * DAY_US
    by_cause = Gauge(
        name="poorwill_cost_today",
        help_text="The cost since midnight UTC, by cause.",
        labels=("cause", "currency"),
        rows=[((cause, costs.currency), nusd / NUSD) for at, cause, nusd in costs.days if at == midnight_us],
    )
    measures: tuple[tuple[str, str, Callable[[ModelCost], float]], ...] = (
        ("model_cost_today", "The cost since midnight UTC.", lambda one: one.today_nusd / NUSD),
        ("model_cost_month", "The cost of this month (UTC).", lambda one: one.month_nusd / NUSD),
        ("model_rate", "What an hour costs now.", lambda one: one.now_nusd_h / NUSD),
        ("paid_month_seconds", "Paid seconds of this month (UTC).", lambda one: one.paid_us / SECOND_US),
        ("useful_month_seconds", "Those with a request in flight.", lambda one: one.useful_us / SECOND_US),
    )
    by_model = [
        Gauge(
            name=f"poorwill_{what}",
            help_text=help_text,
            labels=("model",),
            rows=[((one.model,), measure(one)) for one in costs.models],
        )
        for what, help_text, measure in measures
    ]
    return [by_cause, *by_model]
