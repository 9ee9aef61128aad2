"""Draws a plan's picture with characters, for a terminal. Plain enough for any font and colour scheme."""

import math
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from types import MappingProxyType

from poorwill.core.format import duration, money
from poorwill.core.money import NUSD
from poorwill.core.words import SECOND_US
from poorwill.planner.report.picture import Picture, Point

WIDTH, HEIGHT = 64, 12
BAR = 40
SLOTS = 96
"""Of the drawn window: of a day, a quarter of an hour each."""
MARKS: Mapping[str, str] = MappingProxyType(
    {"parked": ".", "waking": "w", "serving": "#", "lingering": "-", "floor": "=", "parking": "p"}
)
EDGES_S = (0.01, 0.1, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 36_000, 86_400, 604_800)


def as_text(picture: Picture) -> str:
    """Return the three pictures, one below the other."""
    return "\n".join([*_plane(picture.points), "", *_gaps(picture), "", *_day(picture)])


def _plane(points: Sequence[Point]) -> list[str]:
    costs = [point.cost_usd for point in points]
    low, high = min(costs), max(costs)
    log = low > 0 and high > 8 * low
    top = max(point.p95_s for point in points) or 1.0
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    legend = []
    for letter, point in zip(ascii_uppercase, points, strict=False):
        share = _share(point.cost_usd, low, high, log=log)
        column = round(share * (WIDTH - 1))
        row = HEIGHT - 1 - round(point.p95_s / top * (HEIGHT - 1))
        dominated = not (point.on_frontier or point.recommended or point.aside)
        mark = letter.lower() if dominated else letter
        grid[row][column] = mark if grid[row][column] == " " else "+"
        chosen = " (recommended)" if point.recommended else ""
        cost, wait = money(round(point.cost_usd * NUSD)), duration(round(point.p95_s * SECOND_US))
        legend.append(f"{mark} {point.name} {cost}, {wait}{chosen}")
    highest = duration(round(top * SECOND_US))
    lines = [f"95th-percentile wait (0 to {highest}) against cost in dollars; lower case: dominated"]
    lines += [f"  |{''.join(row)}" for row in grid]
    scale = "logarithmic" if log else "linear"
    right = money(round(high * NUSD))
    left = f"{money(round(low * NUSD))} ({scale})"
    lines += [f"  +{'-' * WIDTH}", f"   {left}{right.rjust(WIDTH - len(left))}"]
    lines.append("  + several at one place")
    half = (len(legend) + 1) // 2
    for index in range(half):
        second = legend[index + half] if index + half < len(legend) else ""
        lines.append(f"  {legend[index]:<46}{second}".rstrip())
    return lines


def _share(value: float, low: float, high: float, *, log: bool) -> float:
    if high <= low:
        return 0.0
    if log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _gaps(picture: Picture) -> list[str]:
    gaps = picture.gaps_s
    if not gaps:
        return ["no idle gaps"]
    lines = [
        f"idle gaps of an always-ready replica ({len(gaps):,}), and how much of the idle time they make up"
    ]
    whole = sum(gaps)
    lower = 0.0
    rows = []
    for upper in (*EDGES_S, math.inf):
        inside = [gap for gap in gaps if lower <= gap < upper]
        marked = picture.even_s is not None and lower <= picture.even_s < upper
        rows.append((lower, upper, len(inside), sum(inside) / whole if whole else 0.0, marked))
        lower = upper
    most = max(row[2] for row in rows)
    shown = [row for row in rows if row[2] or row[4]]
    for low, high, count, share, marked in shown:
        bar = "#" * round(count / most * BAR)
        even = f"  <- break-even {picture.even}" if marked else ""
        lines.append(f"  {_range(low, high):>16} |{bar:<{BAR}} {count:>7,} {share:>6.1%}{even}")
    return lines


def _range(low: float, high: float) -> str:
    return f"> {_seconds(low)}" if math.isinf(high) else f"{_seconds(low)} to {_seconds(high)}"


def _seconds(seconds: float) -> str:
    return duration(round(seconds * SECOND_US))


def _day(picture: Picture) -> list[str]:
    """A character for each slot: the state that took most of it, serving before all others."""
    taken = [dict.fromkeys(MARKS, 0.0) for _ in range(SLOTS)]
    for stretch in picture.day:
        begin, end = (at * SLOTS / picture.day_us for at in (stretch.begin_us, stretch.end_us))
        for slot in range(int(begin), min(math.ceil(end), SLOTS)):
            taken[slot][stretch.state] += max(min(end, slot + 1) - max(begin, slot), 0.0)
    row = "".join(_mark(slot) for slot in taken)
    unit_us, unit = picture.unit
    begins = [f"{eighth * picture.day_us / 8 / unit_us:.3g}" for eighth in range(8)]
    used = [f"{mark} {name}" for name, mark in MARKS.items() if mark in row]
    return [
        f"{picture.day_title} ({unit})",
        "  " + "".join(f"{begin:<{SLOTS // 8}}" for begin in begins).rstrip(),
        f"  {row}",
        f"  {'   '.join(used)}",
    ]


def _mark(slot: dict[str, float]) -> str:
    if not any(slot.values()):
        return " "
    if slot["serving"]:
        return MARKS["serving"]
    return MARKS[max(slot, key=slot.__getitem__)]
