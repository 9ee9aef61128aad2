"""`poorwill status`: what every replica does now, and whether the published wake interval is met."""

import argparse
from collections.abc import Mapping
from typing import Any

from poorwill.cli.parsing.target import add_fleet_option, add_json_option, ask, read_fleet
from poorwill.cli.parsing.verb import Streams, Verb


def _options(parser: argparse.ArgumentParser) -> None:
    add_fleet_option(parser, positional=True)
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    answer = await ask(read_fleet(options, streams), "GET", "/status")
    if options.json:
        streams.say_json(answer)
    else:
        for line in told(answer):
            streams.say(line)
    return 0


def told(answer: Mapping[str, Any]) -> list[str]:
    """Return what `/status` answered as lines for people."""
    replicas, now_us = answer["replicas"], answer["now_us"]
    lines = _table(replicas, now_us)
    lines += [_went_wrong(r, now_us) for r in replicas if r["last_error"]]
    lines += [f"{r['model']}: {note}" for r in replicas for note in r["notes"].values()]
    lines += [f"{bridge['model']}: {bridge['what']}" for bridge in answer["bridges"]]
    return [*lines, *_trouble(answer["status"], answer["ledger"]), *_limits(answer["limits"])]


def _table(replicas: list[dict[str, Any]], now_us: int) -> list[str]:
    rows = [("MODEL", "STATE", "SINCE", "IN FLIGHT", "HELD", "WAKE p50", "p95", "max", "BUDGET")]
    for replica in replicas:
        wake = replica["wake"]
        state = replica["state"] + (f" {replica['tier']}" if replica.get("tier") else "")
        if replica.get("phase"):
            state += f" ({replica['phase']}{_ready_in(replica)})"
        elif replica["parks_at_us"] is not None:
            left = _duration(max(replica["parks_at_us"] - now_us, 0) / 1e6)
            state += f" (parks in {left})"
        rows.append(
            (
                replica["model"],
                state,
                _duration(replica.get("since_s")),
                str(replica["in_flight"]),
                str(replica["held"]),
                _duration(wake["p50_s"]),
                _duration(wake["p95_s"]),
                _duration(wake["max_s"]),
                _duration(wake["budget_s"]) + (" MISSED" if wake["over_budget"] else ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _went_wrong(replica: Mapping[str, Any], now_us: int) -> str:
    """Say what went wrong last and when, and, where wakes fail, how long none is tried."""
    ago = _duration((now_us - replica["last_error_us"]) / 1e6)
    row = f", failed wake {replica['failures']} in a row" if replica["failures"] > 1 else ""
    retry_us = replica["retry_at_us"]
    again = f" (the next wake may begin in {_duration((retry_us - now_us) / 1e6)})" if retry_us else ""
    return f"{replica['model']}: {ago} ago{row}: {replica['last_error']}{again}"


def _ready_in(replica: Mapping[str, Any]) -> str:
    left_us = replica.get("ready_in_us")
    if left_us is None:
        return ""
    left_s = max(round(left_us / 1e6), 1)
    return f", ready in about {left_s}s" if left_s < 60 else f", ready in about {_duration(left_s)}"


def _trouble(status: str, ledger: str) -> list[str]:
    """Say what keeps the fleet as a whole from waking or serving."""
    lines = [] if status == "ok" else [f"the fleet is {status}: nobody new is served"]
    if ledger != "ok":
        lines.append(
            f"the ledger cannot be written: {ledger}; nothing is woken or parked until it can be, "
            "requests get 503, what is in flight is finished"
        )
    return ["", *lines] if lines else []


def _limits(limits: list[dict[str, Any]]) -> list[str]:
    """Say how every spend limit stands; of one that stops or is near also when and how it lifts."""
    lines: list[str] = []
    for limit in limits:
        lines.append(f"{limit['standing']}: {limit['what']}")
        if limit["to_lift"]:
            left = _duration(limit["lifts_in_s"])
            lines.append(f"  lifts by itself at {limit['lifts']}, in {left}; {limit['to_lift']}")
    return ["", "SPEND LIMITS", *lines] if lines else []


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.2f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


VERB = Verb(
    name="status",
    help="show every replica, who waits, and the measured wake interval",
    options=_options,
    run=_run,
    epilog="WAKE is measured over the last real wakes; MISSED: at least one took longer than its budget.\n"
    "SPEND LIMITS stand as of the last look, at most 10 s ago.\n"
    "Exit 4 where no poorwill serves the fleet.",
)
