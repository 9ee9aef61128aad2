"""The report of `plan`: which policies are worth considering, and the figures as JSON and as a table."""

from collections.abc import Sequence

from poorwill.core.money import NUSD
from poorwill.core.words import SECOND_US
from poorwill.planner.outcome import Outcome

PERCENTILES = (50, 95, 99)


def frontier(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that no other beats in cost and in 95th-percentile wait, cheapest first."""
    points = [(outcome.cost_nusd, outcome.waits.percentile_us(95)) for outcome in outcomes]

    def beaten(point: tuple[int, int]) -> bool:
        return any(
            other != point and other[0] <= point[0] and other[1] <= point[1] for other in points
        )

    kept = [outcome for outcome, point in zip(outcomes, points, strict=True) if not beaten(point)]
    return sorted(kept, key=lambda outcome: outcome.cost_nusd)


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return one policy's figures as `plan --json` prints them."""
    waits = outcome.waits
    return {
        "name": outcome.policy,
        "idle_s": None if outcome.idle_us is None else outcome.idle_us / SECOND_US,
        "wakes": outcome.wakes,
        "active_s": outcome.active_us / SECOND_US,
        "useful_s": outcome.useful_us / SECOND_US,
        "duty_cycle": outcome.duty_cycle,
        "cost_usd": outcome.cost_nusd / NUSD,
        "held_share": len(waits.held_us) / waits.requests if waits.requests else 0.0,
        "wait_s": {
            "mean": waits.total_us / waits.requests / SECOND_US if waits.requests else 0.0,
            **{f"p{p}": waits.percentile_us(p) / SECOND_US for p in PERCENTILES},
            "max": waits.max_us / SECOND_US,
        },
    }
