"""Notes are counted by kind and model, and spend limits are gauges."""

from dataclasses import replace

from poorwill.core.entries import Alive, Noted
from poorwill.core.money import NUSD
from poorwill.core.ports.view import Configuration
from poorwill.core.settings import SpendSettings
from poorwill.core.spend import CostAhead, LimitState, Spent, Window, judge
from poorwill.core.words import SECOND_US, ModelName
from poorwill.fleet.journal import Journal
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
