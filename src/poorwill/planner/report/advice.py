"""What another idle time would have changed in a fleet's own history: the last sentence of such a plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from poorwill.core.format import DAY_US, counted, duration, money
from poorwill.core.settings import PolicyName
from poorwill.core.words import SECOND_US
from poorwill.planner.simulation.hindsight import Curve
from poorwill.planner.simulation.outcome import Outcome

LEAST_US, LEAST_REQUESTS = DAY_US, 20
"""A history shorter than this, or with fewer requests, says nothing about the next month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentPolicy:
    """What the operator runs now, and the period of the history."""

    model: str
    period: str
    """As it stands in the sentence: `last month`, `in the last 23m`."""
    policy: PolicyName | Literal[""] = ""
    """The policy in `fleet.toml`; empty when there is only a ledger."""
    idle_us: int | None = None
    """Its fixed idle time, if it has one."""


def advice(own: CurrentPolicy, outcomes: Mapping[str, Outcome], curve: Curve) -> str:
    """Return what another idle time than the operator's own would have changed.

    The alternative is the best idle time in hindsight that is not below the break-even: `check` refuses
    shorter ones.
    """
    even = outcomes["break-even"].idle_us or 0
    best = curve.least_from(even)
    best_s = f"{curve.idles_us[best] / SECOND_US:g}"
    if own.idle_us is not None:
        at = curve.idles_us.index(own.idle_us)
        name, mine, held = f"your idle_s is {own.idle_us / SECOND_US:g}", *_at(curve, at)
        if at == best:
            return f"{name}; no other would have saved anything {own.period}"
    else:
        now = outcomes[own.policy or "continuous"]
        mine, held = now.cost_nusd, len(now.waits.held_us)
        name = f"your policy is {own.policy}" if own.policy else "beside running continuously"
        best_s = f"a fixed idle_s of {best_s}"
    theirs, theirs_held = _at(curve, best)
    saved, more = mine - theirs, theirs_held - held
    change = f"saved {money(saved)}" if saved >= 0 else f"cost {money(-saved)} more"
    waits = f"{more:,} more" if more >= 0 else f"{-more:,} fewer"
    return f"{name}; {best_s} would have {change} {own.period} and made {waits} requests wait"


def reservation(requests: int, span_us: int) -> str:
    """Return why a history is too short to advise on; empty if it is long enough."""
    if span_us >= LEAST_US and requests >= LEAST_REQUESTS:
        return ""
    return (
        f"too little history to advise: {counted(requests, 'request')} in {duration(span_us)}; a day and "
        f"{LEAST_REQUESTS} requests are the least. What follows is arithmetic on these alone"
    )


def _at(curve: Curve, index: int) -> tuple[int, int]:
    return curve.cost_nusd[index], curve.held[index]
