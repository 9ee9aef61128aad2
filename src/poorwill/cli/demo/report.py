"""What the demo says in the end, read back from the ledger it left: the same facts any verb would find."""

import shlex
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poorwill.cli.demo.replay import Answer
from poorwill.compose.workshop import Fallback
from poorwill.core.format import duration
from poorwill.core.money import dollars
from poorwill.core.policy import FixedIdle
from poorwill.core.settings import FleetSettings
from poorwill.core.words import SECOND_US, Tier
from poorwill.ledger.bill.bill import Axis, Bill, make_bill
from poorwill.ledger.dates import between
from poorwill.ledger.schema import reading
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.policies import Timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """One start or wake, with its phases in order."""

    from_tier: Tier
    why: str
    took_us: int
    ok: bool
    phases: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The same requests served in another way."""

    name: str
    active_us: int
    nusd: int
    longest_wait_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the report prints."""

    wakes: tuple[Wake, ...]
    requests: int
    failed: int
    held_us: tuple[int, ...]
    bill: Bill
    alternatives: tuple[Alternative, ...]
    span_us: int


def facts_of(settings: FleetSettings, ledger_file: str, *, since_us: int) -> Facts:
    """Read what happened since an instant back from the ledger."""
    with reading(ledger_file) as db:
        (last_us,) = db.execute("SELECT last_us FROM alive").fetchone()
        rows = db.execute(
            "SELECT arrived_us, leased_us, ended_us, status FROM request_rows "
            "WHERE arrived_us >= ? ORDER BY arrived_us",
            (since_us,),
        ).fetchall()
        wakes = _wakes(db, since_us)
        bill = make_bill(db, between(since_us, last_us), [Axis.CAUSE])
    held = sorted(leased - arrived for arrived, leased, _, _ in rows if leased - arrived > 2_000)
    return Facts(
        wakes=wakes,
        requests=len(rows),
        failed=sum(status >= 400 for *_, status in rows),
        held_us=tuple(held),
        bill=bill,
        alternatives=_alternatives(settings, rows, wakes, since_us, last_us),
        span_us=last_us - since_us,
    )


def report(
    settings: FleetSettings, facts: Facts, fallbacks: Sequence[Fallback], *, directory: str
) -> list[str]:
    """Return the report's lines."""
    lines = ["", f"{facts.requests} requests in {facts.span_us / 1e6:.0f} s, {facts.failed} failed"]
    tiers = sorted({wake.from_tier for wake in facts.wakes} - {Tier.COLD})
    if tiers:
        lines.append(f"Parked and woken by snapshot: {', '.join(tiers)}")
    lines += [f"Not by snapshot: {fallback}" for fallback in fallbacks]
    fleet = shlex.quote(str(directory))
    lines += ["", "Starts and wakes"]
    lines += [f"  {_wake_line(number, wake)}" for number, wake in enumerate(facts.wakes, start=1)]
    lines += ["", *_held_lines(facts), *_bill_lines(settings, facts)]
    lines += ["", "The same requests, served otherwise         paid        cost  longest wait"]
    lines += [
        f"  {other.name:<36} {other.active_us / 1e6:8.1f} s  {dollars(other.nusd, places=6):>10}"
        f"  {other.longest_wait_us / 1e6:10.2f} s"
        for other in facts.alternatives
    ]
    lines += [
        "",
        "Look further:",
        f"  poorwill bill --fleet {fleet}",
        f"  poorwill anatomy --fleet {fleet}",
        f"  poorwill serve --fleet {fleet}",
    ]
    return lines


def report_json(facts: Facts, answers: Sequence[Answer], fallbacks: Sequence[Fallback]) -> Mapping[str, Any]:
    """Return the report as one document; durations in seconds, money in nano-dollars."""
    figures = facts.bill.figures[0]
    return {
        "requests": facts.requests,
        "failed": facts.failed,
        "span_s": facts.span_us / 1e6,
        "wakes": [
            {
                "from_tier": wake.from_tier,
                "why": wake.why,
                "ok": wake.ok,
                "took_s": wake.took_us / 1e6,
                "phases_s": {phase: us / 1e6 for phase, us in wake.phases},
            }
            for wake in facts.wakes
        ],
        "held_s": [us / 1e6 for us in facts.held_us],
        "duty_cycle": figures.duty_cycle,
        "bill": {
            "total_nusd": figures.nusd,
            "by_cause": {line.names[0]: {"s": line.us / 1e6, "nusd": line.nusd} for line in facts.bill.lines},
        },
        "alternatives": [
            {
                "name": other.name,
                "active_s": other.active_us / 1e6,
                "cost_nusd": other.nusd,
                "longest_wait_s": other.longest_wait_us / 1e6,
            }
            for other in facts.alternatives
        ],
        "first_token_s": [answer.first_token_s for answer in answers],
        "fallbacks": [str(fallback) for fallback in fallbacks],
    }


def _wakes(db: sqlite3.Connection, since_us: int) -> tuple[Wake, ...]:
    wakes = []
    for wake, tier, why, ok, began_us, ended_us in db.execute(
        "SELECT id, from_tier, why, ok, began_us, ended_us FROM wakes "
        "WHERE began_us >= ? AND ended_us IS NOT NULL ORDER BY began_us",
        (since_us,),
    ).fetchall():
        phases: dict[str, int] = {}
        for phase, began, ended in db.execute(
            "SELECT phase, began_us, ended_us FROM spans WHERE wake = ? ORDER BY began_us", (wake,)
        ):
            phases[phase] = phases.get(phase, 0) + ended - began
        wakes.append(
            Wake(
                from_tier=Tier(tier),
                why=why,
                took_us=ended_us - began_us,
                ok=bool(ok),
                phases=tuple(phases.items()),
            )
        )
    return tuple(wakes)


def _alternatives(
    settings: FleetSettings,
    rows: Sequence[tuple[int, int, int, int]],
    wakes: Sequence[Wake],
    since_us: int,
    last_us: int,
) -> tuple[Alternative, ...]:
    """Replay the served requests through the planner: run continuously, and from cold each time."""
    starts = [wake.took_us for wake in wakes if wake.from_tier is Tier.COLD and wake.ok]
    if not starts or not rows:
        return ()
    rate = settings.rates[0]
    cold = TierTimes(
        tier=Tier.COLD,
        wake_us=(starts[0],),
        park_us=0,
        parked_nusd_h=rate.parked_nusd_h.get(Tier.COLD, 0),
    )
    scenario = Scenario(span_us=last_us - since_us, active_nusd_h=rate.active_nusd_h, tiers=(cold,))
    arrivals = np.array([row[0] - since_us for row in rows], np.int64)
    served = np.array([row[2] - row[1] for row in rows], np.int64)
    always = Timed(name="continuous", after_us=(), why="never parks")
    idle_us = settings.models[0].policy.idle_us or 2 * SECOND_US
    continuous = Scenario(
        span_us=scenario.span_us,
        active_nusd_h=scenario.active_nusd_h,
        tiers=scenario.tiers,
        starts_ready=True,
    )
    return tuple(
        Alternative(
            name=name,
            active_us=outcome.active_us,
            nusd=outcome.cost_nusd,
            longest_wait_us=outcome.waits.max_us,
        )
        for name, outcome in (
            ("run continuously", simulate(arrivals, served, continuous, always)),
            (
                f"parked cold, {starts[0] / 1e6:.2f} s a start",
                simulate(arrivals, served, scenario, FixedIdle(((Tier.COLD, idle_us),))),
            ),
        )
    )


def _wake_line(number: int, wake: Wake) -> str:
    phases = "  ".join(f"{name} {us / 1e3:.0f}" for name, us in wake.phases if us >= 500)
    how = "" if wake.ok else "FAILED  "
    return f"{number:>2}  {how}from {wake.from_tier:<7} {wake.took_us / 1e6:6.2f} s   ms: {phases}"


def _held_lines(facts: Facts) -> list[str]:
    held = facts.held_us
    if not held:
        return ["Held         none"]
    middle, longest = held[len(held) // 2] / 1e6, held[-1] / 1e6
    return [
        f"Held         {len(held)} of {facts.requests} requests; p50 {middle:.2f} s, longest {longest:.2f} s"
    ]


def _bill_lines(settings: FleetSettings, facts: Facts) -> list[str]:
    figures = facts.bill.figures[0]
    duty = f"{figures.duty_cycle:.0%}" if figures.duty_cycle is not None else "-"
    rate = dollars(settings.rates[0].active_nusd_h)
    lines = [
        f"Duty cycle   {duty}: {figures.useful_us / 1e6:.1f} s useful of {figures.paid_us / 1e6:.1f} s paid",
        "",
        f"The bill, at {rate} an hour while not parked",
    ]
    lines += [
        f"  {line.names[0]:<24} {duration(line.us):>11}  {dollars(line.nusd, places=6):>11}"
        for line in facts.bill.lines
    ]
    return [*lines, f"  {'total':<36}  {dollars(figures.nusd, places=6):>11}"]
