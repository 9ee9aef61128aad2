"""`poorwill status`: what every replica does now, and whether the published wake interval is met."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.cli.parsing.admin import ServedFleet, ServedFleetArgument, ask
from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.core.errors import PoorwillError
from poorwill.core.format import duration, money, table
from poorwill.core.spend import LimitDocument
from poorwill.core.words import SECOND_US
from poorwill.ledger.history.views import Costs
from poorwill.telemetry.dashboard.documents import ReplicaNow, StatusDocument, capture_lines, place_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions:
    """The options of `poorwill status`."""

    where: ServedFleetArgument = field(default_factory=ServedFleetArgument)
    json: JsonOption = False


async def _run(options: StatusOptions, streams: Streams) -> int:
    if options.json:
        streams.say_json(await ask(options.where, streams.env, "GET", "/status", StatusDocument))
    else:
        streams.say(*await told(options.where, streams.env))
    return 0


async def told(where: ServedFleet, env: Mapping[str, str]) -> list[str]:
    """Ask how a fleet is, and what it cost today; return lines for people. Raises as `ask`."""
    answer = await ask(where, env, "GET", "/status", StatusDocument)
    try:
        costs = await ask(where, env, "GET", "/history/costs", Costs)
    except PoorwillError:  # the ledger cannot be read just now
        return status_lines(answer)
    return status_lines(answer, costs)


def status_lines(answer: StatusDocument, costs: Costs | None = None) -> list[str]:
    """Return how a fleet is, and what its models cost today, as lines for people."""
    lines = _table(answer.replicas, answer.now_us, costs)
    lines += [_last_error(replica, answer.now_us) for replica in answer.replicas if replica.last_error]
    notes: dict[tuple[str, str], set[str]] = {}  # what all replicas have to say is said once
    for replica in answer.replicas:
        for note in replica.notes.values():
            notes.setdefault((replica.model, note), set()).add(_name(replica))
    lines += [f"{min(names) if len(names) < 2 else model}: {note}" for (model, note), names in notes.items()]
    lines += [f"{bridge.model}: {bridge.what}" for bridge in answer.bridges]
    lines += capture_lines(answer.captures)
    return [*lines, *place_lines(answer), *_fleet_trouble(answer), *_limits(answer.limits)]


def _table(replicas: Sequence[ReplicaNow], now_us: int, costs: Costs | None) -> list[str]:
    head = ("MODEL", "STATE", "SINCE", "IN FLIGHT", "HELD", "WAKE p50", "p95", "max", "BUDGET")
    rows: list[tuple[str, ...]] = [(*head, "TODAY", "LADDER")]
    several = Counter(replica.model for replica in replicas)
    currency = costs.currency if costs else "USD"
    today = {model.model: money(model.today_nusd, currency) for model in costs.models} if costs else {}
    for replica in replicas:
        wake = replica.wake
        rows.append(
            (
                replica.replica if several[replica.model] > 1 else replica.model,
                state_of(replica, now_us),
                _seconds(replica.since_s),
                str(replica.in_flight),
                str(replica.held),
                _seconds(wake.p50_s),
                _seconds(wake.p95_s),
                _seconds(wake.max_s),
                _seconds(wake.budget_s) + (" MISSED" if wake.over_budget else ""),
                today.pop(replica.model, ""),  # once: it is what all its replicas cost together
                " > ".join(replica.ladder),
            )
        )
    return table(rows)


def state_of(replica: ReplicaNow, now_us: int) -> str:
    """Say what a replica does, why it is ready or not, and when that changes."""
    state = replica.state + (f" {replica.tier}" if replica.tier else "")
    if replica.failures and replica.state == "parked":
        row = f" {replica.failures} times" if replica.failures > 1 else ""
        again = "tried again when it is wanted"
        if replica.retry_at_us:
            again = f"not tried again for {duration(replica.retry_at_us - now_us)}"
        return f"FAILED{row}, {again}"
    if replica.phase is not None:
        left_us = replica.ready_in_us
        ready = "" if left_us is None else f", ready in about {duration(_whole_s(left_us))}"
        return f"{state} ({replica.phase}{ready})"
    why = [replica.why] if replica.why else []
    if replica.parks_at_us is not None:
        why.append(f"parks in {duration(max(replica.parks_at_us - now_us, 0))}")
    return f"{state} ({', '.join(why)})" if why else state


def _whole_s(left_us: int) -> int:
    return max(round(left_us / SECOND_US), 1) * SECOND_US


def _last_error(replica: ReplicaNow, now_us: int) -> str:
    """Say what went wrong last and when, and, if wakes fail, how long none is tried."""
    ago = duration(now_us - replica.last_error_us)
    row = f", failed wake {replica.failures} in a row" if replica.failures > 1 else ""
    retry_us = replica.retry_at_us
    again = f" (the next wake may begin in {duration(retry_us - now_us)})" if retry_us else ""
    return f"{_name(replica)}: {ago} ago{row}: {replica.last_error}{again}"


def _name(replica: ReplicaNow) -> str:
    return replica.model if replica.replica == f"{replica.model}-0" else replica.replica


def _fleet_trouble(answer: StatusDocument) -> list[str]:
    """Say what keeps the fleet as a whole from waking or serving."""
    lines = [] if answer.status == "ok" else [f"the fleet is {answer.status}: new requests are refused"]
    if answer.ledger != "ok":
        lines.append(
            f"the ledger cannot be written: {answer.ledger}; until it can, nothing wakes or parks, new "
            "requests get 503, and requests in flight finish"
        )
    if answer.configuration.refused_us is not None:
        ago = duration(answer.now_us - answer.configuration.refused_us)
        lines.append(f"fleet.toml was refused {ago} ago, and nothing was changed:")
        lines += [f"  {problem}" for problem in answer.configuration.problems]
    if answer.configuration.needs_restart:
        lines.append(f"waits for a restart: {', '.join(answer.configuration.needs_restart)}")
    return ["", *lines] if lines else []


def _limits(limits: Sequence[LimitDocument]) -> list[str]:
    """Say how every spend limit stands; of one that stops requests, or soon will, also how it lifts."""
    lines: list[str] = []
    for limit in limits:
        lines.append(f"{limit.standing}: {limit.what}")
        if limit.to_lift:
            left = duration(limit.lifts_in_s * SECOND_US)
            lines.append(f"  lifts by itself at {limit.lifts}, in {left}; {limit.to_lift}")
    return ["", "SPEND LIMITS", *lines] if lines else []


def _seconds(seconds: float | None) -> str:
    return duration(None if seconds is None else round(seconds * SECOND_US))


VERB = new_verb(
    StatusOptions,
    _run,
    StatusDocument,
    epilog="FAILED: the last wake failed. TODAY is what the whole model cost since midnight UTC.\n"
    "WAKE is measured over the last real wakes; MISSED: at least one took longer than its budget.\n"
    "SPEND LIMITS stand as of the last look, at most 10 s ago.\n"
    "Exit 4 if no poorwill serves the fleet.",
)
