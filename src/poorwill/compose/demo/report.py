"""The demo's report, read back from the ledger it left: the same facts any verb would find."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low

import msgspec
import numpy as np
from msgspec import Struct

from poorwill.bill.bill import Axis, Bill, make_bill
from poorwill.compose.demo.replay import Answer
from poorwill.compose.drivers.fleet_drivers import Fallback
from poorwill.core.format import counted, duration, money, percent, table
from poorwill.core.settings import FleetSettings
from poorwill.core.words import SECOND_US, Tier
from poorwill.ledger.dates import between
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.policies import Timed, fixed_idle
from poorwill.policies.coldstart.leaves import totals
from poorwill.policies.coldstart.starts import FinishedWake


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

    wakes: Sequence[FinishedWake]
    requests: int
    failed: int
    held_us: tuple[int, ...]
    bill: Bill
    cold_start_us: int | None
    """The last start from cold, of an earlier run if need be."""
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
        known = finished_wakes(db)
        wakes = [wake for wake in known if wake.began_us >= since_us]
        bill = make_bill(db, between(since_us, last_us), [Axis.CAUSE])
    held = sorted(leased - arrived for arrived, leased, _, _ in rows if leased - arrived > 2_000)
    return Facts(
        wakes=wakes,
        requests=len(rows),
        failed=sum(status >= 400 for *_, status in rows),
        held_us=tuple(held),
        bill=bill,
        cold_start_us=(start_us := _cold_start_us(known)),
        alternatives=alternatives(settings, rows, start_us, since_us, last_us) if start_us and rows else (),
        span_us=last_us - since_us,
    )


def report(
    settings: FleetSettings, facts: Facts, fallbacks: Sequence[Fallback], *, directory: str
) -> list[str]:
    """Return the report's lines."""
    ran = f"{counted(facts.requests, 'request')} in {duration(facts.span_us)}"
    lines = ["", f"{ran}, {facts.failed} failed"]
    tiers = sorted({wake.from_tier for wake in facts.wakes} - {Tier.COLD})
    if tiers:
        lines.append(f"Parked and woken by snapshot: {', '.join(tiers)}")
    lines += [f"Not by snapshot: {fallback}" for fallback in fallbacks]
    fleet = shlex.quote(str(directory))
    lines += ["", "Starts and wakes"]
    lines += table([_wake_row(*one) for one in enumerate(facts.wakes, start=1)], "><><", indent="  ")
    lines += ["", *_held_lines(facts), *_bill_lines(settings, facts)]
    lines += [
        *_compared(facts),
        "",
        "Look further:",
        f"  poorwill bill --fleet {fleet}",
        f"  poorwill anatomy --fleet {fleet}",
        f"  poorwill serve --fleet {fleet}",
    ]
    return lines


class DemoWakeDocument(Struct, frozen=True, kw_only=True):
    """A start or wake, with its phases."""

    from_tier: Tier
    why: str
    ok: bool
    took_us: int
    phases_us: Mapping[str, int] = msgspec.field(default_factory=dict)


class DemoCostDocument(Struct, frozen=True, kw_only=True):
    """Time with one cause and what it cost."""

    us: int = msgspec.field(name="time_us")
    nusd: int = msgspec.field(name="cost_nusd")


class AlternativeDocument(Struct, frozen=True, kw_only=True):
    """The same requests served in another way."""

    name: str
    active_us: int
    nusd: int = msgspec.field(name="cost_nusd")
    longest_wait_us: int


class DemoDocument(Struct, frozen=True, kw_only=True):
    """What the demo did and what it cost."""

    requests: int
    failed: int
    span_us: int
    wakes: tuple[DemoWakeDocument, ...]
    held_us: tuple[int, ...]
    alternatives: tuple[AlternativeDocument, ...]
    duty_cycle: float | None = None
    cost_nusd: int = 0
    by_cause: Mapping[str, DemoCostDocument] = msgspec.field(default_factory=dict)
    first_token_us: tuple[int, ...] = ()
    fallbacks: tuple[str, ...] = ()


def report_document(facts: Facts, answers: Sequence[Answer], fallbacks: Sequence[Fallback]) -> DemoDocument:
    """Return the report for JSON."""
    by_cause = {line.names[0]: line for line in facts.bill.lines}
    found = msgspec.convert(facts, DemoDocument, from_attributes=True)
    return msgspec.structs.replace(
        found,
        wakes=tuple(
            msgspec.structs.replace(document, phases_us=totals(wake.spans))
            for document, wake in zip(found.wakes, facts.wakes, strict=True)
        ),
        duty_cycle=facts.bill.figures[0].duty_cycle,
        cost_nusd=facts.bill.figures[0].nusd,
        by_cause=msgspec.convert(by_cause, Mapping[str, DemoCostDocument], from_attributes=True),
        first_token_us=tuple(round(answer.first_token_s * SECOND_US) for answer in answers),
        fallbacks=tuple(map(str, fallbacks)),
    )


def _cold_start_us(wakes: Sequence[FinishedWake]) -> int | None:
    took = [wake.took_us for wake in wakes if wake.from_tier is Tier.COLD and wake.ok]
    return took[-1] if took else None


def alternatives(
    settings: FleetSettings,
    rows: Sequence[tuple[int, int, int, int]],
    start_us: int,
    since_us: int,
    last_us: int,
) -> tuple[Alternative, ...]:
    """Replay the served requests through the planner, with the same limit and the same serving times: run
    continuously, and from cold each time."""
    (model,), rate = settings.models, settings.rates[0]
    cold = TierTimes(
        tier=Tier.COLD, wake_us=(start_us,), park_us=0, parked_nusd_h=rate.parked_nusd_h.get(Tier.COLD, 0)
    )
    scenario = Scenario(
        span_us=last_us - since_us,
        active_nusd_h=rate.active_nusd_h,
        tiers=(cold,),
        max_concurrency=model.replica.max_concurrency,
    )
    arrivals = np.array([row[0] - since_us for row in rows], np.int64)
    served = np.array([row[2] - row[1] for row in rows], np.int64)
    always = Timed(name="continuous", after_us=(), why="never parks")
    parked = fixed_idle(((Tier.COLD, model.policy.idle_us or 2 * SECOND_US),))
    others = (
        ("run continuously", simulate(arrivals, served, replace(scenario, starts_ready=True), always)),
        (f"parked cold, {duration(start_us)} a start", simulate(arrivals, served, scenario, parked)),
    )
    return tuple(
        Alternative(
            name=name,
            active_us=outcome.active_us,
            nusd=outcome.cost_nusd,
            longest_wait_us=outcome.waits.max_us,
        )
        for name, outcome in others
    )


def _compared(facts: Facts) -> list[str]:
    """Say what the same requests cost as they were served and otherwise, and what freezing gains."""
    figures = facts.bill.figures[0]
    rows = [("The same requests", "paid", "cost", "longest wait")]
    ways = [("as served just now", figures.paid_us, figures.nusd, max(facts.held_us, default=0))]
    ways += [(other.name, other.active_us, other.nusd, other.longest_wait_us) for other in facts.alternatives]
    rows += [(f"  {name}", duration(paid), money(nusd), duration(wait)) for name, paid, nusd, wait in ways]
    lines = ["", *table(rows, "<>")]
    if facts.alternatives:
        lines.append("The last ones are computed: the same arrivals, serving times and requests at once.")
    thawed = [wake.took_us for wake in facts.wakes if wake.ok and wake.from_tier is not Tier.COLD]
    if facts.cold_start_us and thawed:
        start_us, wake_us = facts.cold_start_us, median_low(thawed)
        lines += ["", f"A start takes {duration(start_us)}, a wake by snapshot {duration(wake_us)}."]
        if wake_us * 2 > start_us:
            lines.append("This engine starts too fast to gain by freezing; one that starts slowly does:")
            lines.append("  poorwill demo --dir slow-start --engine transformers")
    return lines


def _wake_row(number: int, wake: FinishedWake) -> tuple[str, ...]:
    phases = ", ".join(f"{name} {duration(us)}" for name, us in totals(wake.spans).items() if us >= 500)
    how = "" if wake.ok else "FAILED  "
    return (str(number), f"{how}from {wake.from_tier}", duration(wake.took_us), phases)


def _held_lines(facts: Facts) -> list[str]:
    held = facts.held_us
    if not held:
        return ["Held         none"]
    middle, longest = duration(held[len(held) // 2]), duration(held[-1])
    return [f"Held         {len(held)} of {facts.requests} requests; p50 {middle}, longest {longest}"]


def _bill_lines(settings: FleetSettings, facts: Facts) -> list[str]:
    figures = facts.bill.figures[0]
    useful, paid = duration(figures.useful_us), duration(figures.paid_us)
    rows = [(line.names[0], duration(line.us), money(line.nusd)) for line in facts.bill.lines]
    return [
        f"Duty cycle   {percent(figures.duty_cycle)}: {useful} useful of {paid} paid",
        "",
        f"The bill, at {money(settings.rates[0].active_nusd_h)} an hour while not parked",
        *table([*rows, ("total", "", money(figures.nusd))], "<>", indent="  "),
    ]
