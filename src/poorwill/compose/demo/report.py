"""The demo's report, read back from the ledger it left: the same facts any verb would find."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import msgspec
from msgspec import Struct

from poorwill.bill.bill import Axis, Bill, make_bill
from poorwill.compose.demo.replay import COLD, FROZEN, Answer
from poorwill.compose.drivers.fleet_drivers import Fallback
from poorwill.core.format import counted, duration, money, percent, table
from poorwill.core.settings import FleetSettings
from poorwill.core.words import SECOND_US, Tier
from poorwill.ledger.dates import between
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.schema import reading
from poorwill.policies.coldstart.leaves import totals
from poorwill.policies.coldstart.starts import FinishedWake


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedWay:
    """What the requests cost in one way of serving them, and how long their first tokens took."""

    name: str
    paid_us: int
    nusd: int
    mean_first_token_us: int = 0
    """0: not known."""
    longest_first_token_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the report prints."""

    wakes: Sequence[FinishedWake]
    requests: int
    """Of each model: both got the same."""
    failed: int
    held_us: tuple[int, ...]
    """Of those that waited for the model that is frozen."""
    bill: Bill
    ways: tuple[ServedWay, ...]
    """Frozen and cold while idle, both measured, and running continuously, by the rates."""
    span_us: int


def facts_of(ledger_file: str, answers: Sequence[Answer], *, since_us: int) -> Facts:
    """Read what happened since an instant back from the ledger, beside what the client saw."""
    with reading(ledger_file) as db:
        (last_us,) = db.execute("SELECT last_us FROM alive").fetchone()
        held = db.execute(
            "SELECT leased_us - arrived_us FROM request_rows WHERE arrived_us >= ? AND model = ? "
            "AND leased_us - arrived_us > 2000 ORDER BY 1",
            (since_us, FROZEN),
        ).fetchall()
        wakes = [wake for wake in finished_wakes(db) if wake.began_us >= since_us]
        bill = make_bill(db, between(since_us, last_us), [Axis.MODEL, Axis.CAUSE])
    return Facts(
        wakes=wakes,
        requests=sum(answer.model == FROZEN for answer in answers),
        failed=sum(bool(answer.error) for answer in answers),
        held_us=tuple(us for (us,) in held),
        bill=bill,
        ways=ways(bill, answers, {wake.model: wake.from_tier for wake in wakes if wake.ok}),
        span_us=last_us - since_us,
    )


def ways(bill: Bill, answers: Sequence[Answer], woken: Mapping[str, Tier]) -> tuple[ServedWay, ...]:
    """Return what the requests cost and waited as each model served them, and if one had run continuously.

    `woken` are the tiers that the models were woken from last.
    """
    found = []
    figures = {each.model: each for each in bill.figures}
    for model in (FROZEN, COLD):
        first = [answer.first_token_s for answer in answers if answer.model == model and not answer.error]
        found.append(
            ServedWay(
                name=f"{model}, parked {woken.get(model, Tier.COLD)}",
                paid_us=figures[model].paid_us,
                nusd=figures[model].nusd,
                mean_first_token_us=round(fmean(first or [0]) * SECOND_US),
                longest_first_token_us=round(max(first, default=0) * SECOND_US),
            )
        )
    always = figures[FROZEN]
    lived_us = always.paid_us + always.parked_us
    return (*found, ServedWay(name="run continuously", paid_us=lived_us, nusd=always.always_on_nusd))


def report(settings: FleetSettings, facts: Facts, fallbacks: Sequence[Fallback], *, prompt: str) -> list[str]:
    """Return the report's lines."""
    ran = f"{counted(facts.requests, 'request')} to each of two models in {duration(facts.span_us)}"
    lines = ["", f"{ran}, {facts.failed} failed"]
    tiers = sorted({wake.from_tier for wake in facts.wakes} - {Tier.COLD})
    if tiers:
        lines.append(f"Parked and woken by snapshot: {', '.join(tiers)}")
    lines += [f"Not by snapshot: {fallback}" for fallback in fallbacks]
    fleet = shlex.quote(str(settings.directory))
    lines += ["", "Starts and wakes"]
    lines += table([_wake_row(*one) for one in enumerate(facts.wakes, start=1)], "><<><", indent="  ")
    lines += ["", *_held_lines(facts), *_bill_lines(settings, facts)]
    lines += [
        *_compared(facts, prompt),
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


class WayDocument(Struct, frozen=True, kw_only=True):
    """One way of serving the requests; the times are 0 where they were not measured."""

    name: str
    paid_us: int
    nusd: int = msgspec.field(name="cost_nusd")
    mean_first_token_us: int
    longest_first_token_us: int


class DemoDocument(Struct, frozen=True, kw_only=True):
    """What the demo did and what it cost."""

    requests: int
    failed: int
    span_us: int
    wakes: tuple[DemoWakeDocument, ...]
    held_us: tuple[int, ...]
    ways: tuple[WayDocument, ...]
    duty_cycle: float | None = None
    cost_nusd: int = 0
    by_cause: Mapping[str, DemoCostDocument] = msgspec.field(default_factory=dict)
    first_token_us: tuple[int, ...] = ()
    fallbacks: tuple[str, ...] = ()


def report_document(facts: Facts, answers: Sequence[Answer], fallbacks: Sequence[Fallback]) -> DemoDocument:
    """Return the report for JSON."""
    by_cause = {line.names[1]: line for line in facts.bill.lines if line.names[0] == FROZEN}
    figures = facts.bill.figures[0]
    found = msgspec.convert(facts, DemoDocument, from_attributes=True)
    return msgspec.structs.replace(
        found,
        wakes=tuple(
            msgspec.structs.replace(document, phases_us=totals(wake.spans))
            for document, wake in zip(found.wakes, facts.wakes, strict=True)
        ),
        duty_cycle=figures.duty_cycle,
        cost_nusd=figures.nusd,
        by_cause=msgspec.convert(by_cause, Mapping[str, DemoCostDocument], from_attributes=True),
        first_token_us=tuple(round(answer.first_token_s * SECOND_US) for answer in answers),
        fallbacks=tuple(map(str, fallbacks)),
    )


def _compared(facts: Facts, prompt: str) -> list[str]:
    """Say what the same requests cost in each way, and whether freezing gained."""
    rows = [("The same requests", "paid", "cost", "first token", "longest")]
    for way in facts.ways:
        mean, longest = way.mean_first_token_us, way.longest_first_token_us
        waited = (duration(mean), duration(longest)) if longest else ("", "")
        rows.append((f"  {way.name}", duration(way.paid_us), money(way.nusd), *waited))
    lines = ["", *table(rows, "<>")]
    lines.append("The first two were served side by side just now, by the same engine at the same limits.")
    return [*lines, "", *verdict(facts.ways, {wake.from_tier for wake in facts.wakes if wake.ok}, prompt)]


def verdict(ways: Sequence[ServedWay], woken: Collection[Tier], prompt: str) -> list[str]:
    """Say whether freezing gained, and why, by what wakes succeeded from."""
    if not set(woken) - {Tier.COLD}:
        return ["Nothing was woken by snapshot: both were parked cold. Why stands above."]
    frozen, cold, *_ = ways
    if frozen.nusd >= cold.nusd or frozen.mean_first_token_us >= cold.mean_first_token_us:
        return [
            "This engine starts too fast to gain by freezing here. One that starts slowly does:",
            "  poorwill demo --dir slow-start --engine transformers",
        ]
    less = percent(1 - frozen.nusd / cold.nusd)
    kept = (
        f"what it read of the {len(prompt):,} characters that each request begins with" if prompt else "all"
    )
    return [
        f"Freezing gains here: {less} less cost, and a first token after "
        f"{duration(frozen.mean_first_token_us)} on average, not {duration(cold.mean_first_token_us)}.",
        f"A thawed engine still has {kept}; one that starts cold begins anew.",
    ]


def _wake_row(number: int, wake: FinishedWake) -> tuple[str, ...]:
    phases = ", ".join(f"{name} {duration(us)}" for name, us in totals(wake.spans).items() if us >= 500)
    how = "" if wake.ok else "FAILED  "
    return (str(number), wake.model, f"{how}from {wake.from_tier}", duration(wake.took_us), phases)


def _held_lines(facts: Facts) -> list[str]:
    held = facts.held_us
    if not held:
        return ["Held         none"]
    middle, longest = duration(held[len(held) // 2]), duration(held[-1])
    return [f"Held         {len(held)} of {facts.requests} requests; p50 {middle}, longest {longest}"]


def _bill_lines(settings: FleetSettings, facts: Facts) -> list[str]:
    (figures,) = (each for each in facts.bill.figures if each.model == FROZEN)
    useful, paid = duration(figures.useful_us), duration(figures.paid_us)
    lines = [line for line in facts.bill.lines if line.names[0] == FROZEN]
    rows = [(line.names[1], duration(line.us), money(line.nusd)) for line in lines]
    return [
        f"Duty cycle   {percent(figures.duty_cycle)}: {useful} useful of {paid} paid",
        "",
        f"The bill of {FROZEN}, at {money(settings.rates[0].active_nusd_h)} an hour while not parked",
        *table([*rows, ("total", "", money(figures.nusd))], "<>", indent="  "),
    ]
