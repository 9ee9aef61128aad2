"""Notes are counted by kind and model, spend limits are gauges, and costs are added up when asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.kept_log import KeptLog
from tests.waiting import until

from poorwill.bill.cost_gauges import follow_costs
from poorwill.core.entries import Alive, Noted
from poorwill.core.money import NUSD
from poorwill.core.ports.view import Configuration
from poorwill.core.settings import SpendSettings
from poorwill.core.spend import CostAhead, LimitState, Spent, Window, judge
from poorwill.core.words import SECOND_US, ModelName
from poorwill.fleet.journal import Journal
from poorwill.ledger.history.views import Costs
from poorwill.telemetry.metrics import GatewayMetrics


class NoReplicas:
    def status(self) -> tuple[()]:
        return ()

    def configuration(self) -> Configuration:
        return Configuration()

    def limits(self) -> tuple[()]:
        return ()


class TwoLimits(NoReplicas):
    def limits(self) -> tuple[LimitState, ...]:
        settings = SpendSettings(day_nusd=2 * NUSD, key_month_nusd={"ann": NUSD})
        day = Spent(
            window=Window.DAY,
            began_us=0,
            ends_us=86_400 * SECOND_US,
            total_nusd=NUSD // 2,
            models_nusd={},
            keys_nusd={"ann": NUSD},
            ahead={"m": CostAhead(certain_nusd=3 * NUSD // 2)},
        )
        month = replace(day, window=Window.MONTH, ends_us=31 * 86_400 * SECOND_US)
        return judge(settings, [day, month], now_us=43_200 * SECOND_US).limits


class Nowhere:
    unavailable = ""

    def post(self, entries: object) -> None:
        pass

    async def record(self, entries: object) -> None:
        pass


def test_only_notes_are_counted() -> None:
    metrics = GatewayMetrics()
    journal = Journal(ledger=Nowhere(), listeners=(metrics.count_entry,))
    journal.post([Noted(at_us=1, kind="spend_jump", model=ModelName("m"), text="jumps")])
    journal.post([Noted(at_us=2, kind="spend_tripped"), Noted(at_us=3, kind="spend_tripped")])
    journal.post([Alive(at_us=4)])
    lines = metrics.exposition(NoReplicas()).splitlines()
    assert [line for line in lines if line.startswith("poorwill_notes_total")] == [
        'poorwill_notes_total{kind="spend_jump",model="m"} 1',
        'poorwill_notes_total{kind="spend_tripped",model=""} 2',
    ]


def test_every_spend_limit_is_a_gauge() -> None:
    lines = GatewayMetrics().exposition(TwoLimits()).splitlines()
    day, ann = 'scope="total",name="",window="day"', 'scope="key",name="ann",window="month"'
    assert [line for line in lines if line.startswith("poorwill_spend_")] == [
        f"poorwill_spend_spent_usd{{{day}}} 0.5",
        f"poorwill_spend_spent_usd{{{ann}}} 1",
        f"poorwill_spend_limit_usd{{{day}}} 2",
        f"poorwill_spend_limit_usd{{{ann}}} 1",
        f"poorwill_spend_ahead_usd{{{day}}} 1.5",
        f"poorwill_spend_ahead_usd{{{ann}}} 0",
        f"poorwill_spend_forecast_usd{{{day}}} 1",
        f"poorwill_spend_tripped{{{day}}} 1",
        f"poorwill_spend_tripped{{{ann}}} 1",
        f"poorwill_spend_lifts_timestamp_seconds{{{day}}} 86400",
        f"poorwill_spend_lifts_timestamp_seconds{{{ann}}} 2678400",
    ]


def test_no_limits_no_gauges() -> None:
    assert "poorwill_spend_" not in GatewayMetrics().exposition(NoReplicas())


class Purse:
    """A ledger whose bill takes until it is let go."""

    def __init__(self) -> None:
        self.looks = 0
        self.open = asyncio.Event()
        self.open.set()

    async def look(self) -> Costs:
        self.looks += 1
        await self.open.wait()
        return Costs(now_us=self.looks, currency="EUR", models=(), days=[(0, "linger", self.looks)], hours=())

    @asynccontextmanager
    async def followed(self, metrics: GatewayMetrics) -> AsyncIterator[asyncio.TaskGroup]:
        """Yields once the first look is over and nobody has asked for another."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(follow_costs(self.look, metrics, KeptLog(), every_s=0.0))
            await until(lambda: not metrics.costs_fresh.is_set())
            yield group
            task.cancel()

    def shown(self, metrics: GatewayMetrics) -> float:
        (gauge,) = (each for each in metrics.costs if each.name == "poorwill_cost_today")
        return gauge.rows[0][1] * NUSD


async def test_costs_are_added_up_only_for_a_scrape() -> None:
    metrics, purse = GatewayMetrics(), Purse()
    async with purse.followed(metrics):
        assert (purse.looks, purse.shown(metrics)) == (1, 1), "the first look; nobody has asked since"
        await metrics.refresh()
        assert (purse.looks, purse.shown(metrics)) == (2, 2), "who asks sees them as they are"


async def test_a_scrape_that_is_given_up_leaves_the_look() -> None:
    metrics, purse = GatewayMetrics(), Purse()
    async with purse.followed(metrics) as group:
        purse.open.clear()
        scrape = group.create_task(metrics.refresh())
        await until(lambda: purse.looks == 2)
        scrape.cancel()
        purse.open.set()
        await metrics.refresh()
        assert (purse.looks, purse.shown(metrics)) == (2, 2)
