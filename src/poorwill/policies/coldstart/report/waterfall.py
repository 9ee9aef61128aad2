"""Draws starts for a terminal: one wake as a waterfall, kinds of starts side by side. Text only, no I/O."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from poorwill.core.entries import PhaseSpan
from poorwill.core.format import byte_rate, duration, money, size, table
from poorwill.core.words import SECOND_US, Phase
from poorwill.policies.coldstart.advice import Advice
from poorwill.policies.coldstart.anatomy_tree import Branch, tree
from poorwill.policies.coldstart.prediction import Estimate, total
from poorwill.policies.coldstart.starts import FinishedWake, Spread, StartSummary

BAR = 40
NARROW = 110
"""On a terminal of fewer columns a waterfall leaves out what follows from its other columns."""


def waterfall(wake: FinishedWake, bandwidth: float | None, *, width: int | None = None) -> list[str]:
    """Return one wake: every leaf with its place in time, bytes, rate and price, and reading alone.

    On a terminal of `width` columns bars are as long as fits, and details are cut; the tree has them whole.
    """
    narrow = width is not None and width < NARROW
    end = "ready" if wake.ok else f"FAILED: {wake.failure}"
    budget = f" of {duration(wake.budget_us)}" if wake.budget_us is not None else ""
    head = (
        f"{wake.wake}  {wake.model} from {wake.kind}: {duration(wake.took_us)}{budget}, {end} "
        f"({wake.why}, asked by {wake.asked_by}, {wake.held} held)"
    )
    rows: list[tuple[str, ...]] = [("phase", "start", "took", "share", "read", "rate", "price")]
    for span, price in zip(wake.spans, wake.prices_nusd, strict=True):
        took = span.ended_us - span.began_us
        rows.append(
            (
                str(span.phase),
                duration(span.began_us - wake.began_us),
                duration(took),
                f"{100 * took / wake.took_us:.0f}%" if wake.took_us else "-",
                "" if span.bytes_read is None else size(span.bytes_read),
                byte_rate(span.bytes_read, took),
                money(price),
            )
        )
    if narrow:
        rows = [(*row[:3], row[4], row[6]) for row in rows]
    figures = [f"{line}  " for line in table(rows, "<>", indent="  ")]
    room = BAR if width is None else min(BAR, max(1, width - len(figures[0])))
    bars = ["", *(_bar(wake, span, room) for span in wake.spans)]
    details = ["detail", *(readable(span.detail) for span in wake.spans)]
    lines = [head, ""]
    for figure, bar, detail in zip(figures, bars, details, strict=True):
        line = f"{figure}{bar.ljust(room)}  {detail}"
        lines.append(line if width is None else line[:width])
    lines += ["", *_tree_lines(tree(wake.spans)), *_reading_lines(wake, bandwidth)]
    return [line.rstrip() for line in lines]


def wake_list(wakes: Sequence[FinishedWake]) -> list[str]:
    """Return wakes as a list, each under the id that shows its own waterfall."""
    rows = [("wake", "began (UTC)", "from", "took", "held", "price", "end")]
    for wake in wakes:
        began = datetime.fromtimestamp(wake.began_us / SECOND_US, tz=UTC)
        rows.append(
            (
                wake.wake,
                f"{began:%Y-%m-%d %H:%M:%S}",
                str(wake.kind),
                duration(wake.took_us),
                f"{wake.held:,}",
                money(wake.price_nusd),
                # The wake's own waterfall has the end of the engine's log as well.
                "ready" if wake.ok else f"FAILED: {wake.failure.partition('; the log ends')[0]}",
            )
        )
    return table(rows, "<>>>>><", indent="  ")


def side_by_side(starts: Sequence[StartSummary], bandwidth: float | None) -> list[str]:
    """Return kinds of starts as columns: median and spread of each phase, reading alone, price."""
    if not starts:
        return ["  none was successful"]
    phases = [phase for phase in Phase if any(phase in start.phases for start in starts)]
    rows = [["", *(f"{start.kind} ({start.count})" for start in starts)]]
    for phase in phases:
        cells = []
        for start in starts:
            spread = start.phases.get(phase)
            cells.append("-" if spread is None else _spread(spread))
        rows.append([str(phase), *cells])
    rows.append(["total", *(_spread(start.took) for start in starts)])
    readings = [start.reading_us(bandwidth) if bandwidth else None for start in starts]
    if any(readings):
        rows.append(["reading alone", *(duration(one) for one in readings)])
        rows.append(
            [
                "total / reading",
                *(
                    f"{start.took.median_us / one:.1f}x" if one else "-"
                    for start, one in zip(starts, readings, strict=True)
                ),
            ]
        )
    rows.append(["price", *(money(start.price_nusd) for start in starts)])
    dearest = [_dearest(start) for start in starts]
    if any(dearest):
        rows.append(["dearest phase", *(text or "-" for text in dearest)])
    return table(rows, "<>", indent="  ")


def advice_lines(advice: Sequence[Advice]) -> list[str]:
    """Return what to change, with what it saves and how that is known."""
    lines = []
    for item in advice:
        known = "measured" if item.measured else "computed"
        lines.append(f"  saves {duration(item.saves_us)} ({known}): {item.do}")
        lines.append(f"      {item.evidence}")
    return lines


def estimate_lines(estimates: Sequence[Estimate]) -> list[str]:
    """Return a prediction phase by phase, with its intervals and what each was computed from."""
    rows = [("phase", "expected", "from", "to", "because")]
    for estimate in (*estimates, total(estimates)):
        whole = estimate.phase is Phase.UNATTRIBUTED and estimate.why == "all phases"
        rows.append(
            (
                "total" if whole else str(estimate.phase),
                duration(estimate.expected_us),
                duration(estimate.low_us),
                duration(estimate.high_us),
                estimate.why,
            )
        )
    return table(rows, "<>>><", indent="  ")


def readable(detail: str) -> str:
    """Return a leaf's detail with its byte counts in the units that people use."""

    def sized(found: re.Match[str]) -> str:
        if found[0] == "0 B from storage":
            return "from the page cache"
        return size(float(found[1])) + found[2]

    return " ".join(re.sub(r"\b(\d+) B( from storage| read| not| cached|/s)", sized, detail).split())


def _spread(spread: Spread) -> str:
    if spread.low_us == spread.high_us:
        return duration(spread.median_us)
    return f"{duration(spread.median_us)} [{duration(spread.low_us)} .. {duration(spread.high_us)}]"


def _dearest(start: StartSummary) -> str:
    if not start.phase_prices_nusd:
        return ""
    phase, price = max(start.phase_prices_nusd.items(), key=lambda item: item[1])
    return f"{phase} {money(price)}"


def _bar(wake: FinishedWake, span: PhaseSpan, room: int) -> str:
    if wake.took_us <= 0:
        return ""
    left = round((span.began_us - wake.began_us) * room / wake.took_us)
    right = round((span.ended_us - wake.began_us) * room / wake.took_us)
    mark = "." if span.phase is Phase.UNATTRIBUTED else "#"
    return " " * min(left, room - 1) + mark * max(1, right - left)


def _reading_lines(wake: FinishedWake, bandwidth: float | None) -> list[str]:
    if not bandwidth or not wake.must_read_bytes:
        return []
    reading_us = round(wake.must_read_bytes / bandwidth * SECOND_US)
    ratio = wake.took_us / reading_us if reading_us else 0
    return [
        "",
        f"  reading alone: {duration(reading_us)}, {size(wake.must_read_bytes)} over {size(bandwidth)}/s; "
        f"the wake took {ratio:.1f} times that",
    ]


def _tree_lines(branch: Branch, depth: int = 0) -> list[str]:
    read = f"  {size(branch.bytes_read)}" if branch.bytes_read else ""
    name = readable(branch.name)
    lines = [f"  {'  ' * depth}{name}: {duration(branch.took_us)}{read}"]
    for child in branch.children:
        lines += _tree_lines(child, depth + 1)
    return lines
