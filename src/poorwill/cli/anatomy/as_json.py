"""Starts as JSON documents, for `poorwill anatomy --json`. Durations in seconds, money in nano-dollars."""

from collections.abc import Sequence

from poorwill.coldstart.advice import Advice
from poorwill.coldstart.anatomy import Branch, tree
from poorwill.coldstart.prediction import Estimate, total
from poorwill.coldstart.starts import FinishedWake, Spread, StartSummary
from poorwill.core.words import SECOND_US
from poorwill.engines.measured.storage_speed import StorageSpeed

Json = dict[str, object]


def wake_json(wake: FinishedWake) -> Json:
    """Return one wake with its leaves and its tree."""
    return {
        "wake": wake.wake,
        "model": wake.model,
        "replica": wake.replica,
        "kind": wake.kind,
        "from_tier": wake.from_tier,
        "began_us": wake.began_us,
        "took_s": wake.took_us / SECOND_US,
        "budget_s": None if wake.budget_us is None else wake.budget_us / SECOND_US,
        "ok": wake.ok,
        "failure": wake.failure,
        "why": wake.why,
        "asked_by": wake.asked_by,
        "held": wake.held,
        "served": wake.served,
        "price_nusd": wake.price_nusd,
        "floor_bytes": wake.floor_bytes,
        "phases": [
            {
                "phase": span.phase,
                "start_s": (span.began_us - wake.began_us) / SECOND_US,
                "took_s": (span.ended_us - span.began_us) / SECOND_US,
                "bytes_read": span.bytes_read,
                "detail": span.detail,
                "price_nusd": price,
            }
            for span, price in zip(wake.spans, wake.prices_nusd, strict=True)
        ],
        "tree": _branch_json(tree(wake.spans)),
    }


def comparison_json(start: StartSummary, bandwidth: float | None) -> Json:
    """Return one kind of start: medians, spread, floor and price."""
    floor = start.floor_us(bandwidth) if bandwidth else None
    return {
        "kind": start.kind,
        "count": start.count,
        "took_s": _spread_json(start.took),
        "phases": {str(phase): _spread_json(spread) for phase, spread in start.phases.items()},
        "phase_prices_nusd": {str(p): price for p, price in start.phase_prices_nusd.items()},
        "price_nusd": start.price_nusd,
        "floor_bytes": start.floor_bytes,
        "floor_s": None if floor is None else floor / SECOND_US,
        "ratio_to_floor": start.took.median_us / floor if floor else None,
    }


def advice_json(advice: Advice) -> Json:
    """Return one piece of advice."""
    return {
        "do": advice.do,
        "saves_s": advice.saves_us / SECOND_US,
        "measured": advice.measured,
        "evidence": advice.evidence,
    }


def speed_json(speed: StorageSpeed | None) -> Json | None:
    """Return the measured storage, None where there is none."""
    if speed is None:
        return None
    return {
        "path": speed.path,
        "bytes_s": speed.bytes_s,
        "direct": speed.direct,
        "measured_us": speed.at_us,
    }


def estimates_json(estimates: Sequence[Estimate]) -> Json:
    """Return a prediction: the whole and its phases."""
    return {
        "total": _estimate_json(total(estimates)),
        "phases": {str(e.phase): _estimate_json(e) for e in estimates},
    }


def _estimate_json(estimate: Estimate) -> Json:
    return {
        "expected_s": estimate.expected_us / SECOND_US,
        "low_s": estimate.low_us / SECOND_US,
        "high_s": estimate.high_us / SECOND_US,
        "because": estimate.why,
    }


def _spread_json(spread: Spread) -> Json:
    return {
        "median": spread.median_us / SECOND_US,
        "low": spread.low_us / SECOND_US,
        "high": spread.high_us / SECOND_US,
    }


def _branch_json(branch: Branch) -> Json:
    children = [_branch_json(child) for child in branch.children]
    return {
        "name": branch.name,
        "took_s": branch.took_us / SECOND_US,
        "bytes_read": branch.bytes_read,
    } | ({"children": children} if children else {})
