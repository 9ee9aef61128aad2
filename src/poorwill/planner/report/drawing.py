"""Draws a plan's picture into a file with matplotlib: PNG, SVG or HTML. The optional extra `plot`.

SVG and HTML carry both colour schemes and follow the reader's; a PNG has an opaque light ground.
"""

import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.extras import install_extra
from poorwill.core.format import DAY_US
from poorwill.planner.report.picture import STATES, Picture, Point

LIGHT: Mapping[str, str] = MappingProxyType(
    {"ink": "#1f2328", "faint": "#818b98", "paper": "#ffffff", "line": "#d1d9e0"}
)
DARK: Mapping[str, str] = MappingProxyType(
    {"ink": "#e6edf3", "faint": "#8b949e", "paper": "#0d1117", "line": "#3d444d"}
)
STAND_INS: Mapping[str, str] = MappingProxyType(
    {"ink": "#010101", "faint": "#020202", "paper": "#fdfdfd", "line": "#030303"}
)
"""Colours that nothing else has, replaced by CSS variables in SVG."""
FRONTIER, CHOSEN, BARS = "#2f81d7", "#d4631c", "#2f81d7"
STATE_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "parked": "#8c959f",
        "waking": "#d29922",
        "serving": "#2da44e",
        "lingering": "#54aeff",
        "floor": "#8250df",
        "parking": "#e5534b",
    }
)
"""Mid tones that stand out on white and on black."""
CHARACTER_PT = 5.6
"""Width of a character of a label, generously."""
MOST_TICKS = 10
"""Names that fit along an axis of dollars."""

TICKS_S: Mapping[float, str] = MappingProxyType(
    {
        0.001: "1 ms",
        0.01: "10 ms",
        0.1: "0.1 s",
        1: "1 s",
        10: "10 s",
        60: "1 min",
        600: "10 min",
        3600: "1 h",
        36_000: "10 h",
        86_400: "1 d",
        604_800: "7 d",
    }
)


def draw(picture: Picture, path: str, *, text: str = "") -> None:
    """Write the picture into a file whose name ends in .png, .svg or .html.

    `text` goes below the picture in HTML. Raises RequestFault for another ending, OperatorFault if
    matplotlib is missing or the file cannot be written.
    """
    kind = kind_of(path)
    content = _png(picture) if kind == "png" else _svg(picture)
    if kind == "html":
        content = _page(picture, content.decode(), text).encode()
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"cannot write {path}: {error.strerror}", hint="another path?"
        ) from error


def kind_of(path: str) -> str:
    """Return the kind of file a name asks for. Raises RequestFault for one that cannot be drawn."""
    kind = path.rpartition(".")[2].lower()
    if kind not in ("png", "svg", "html"):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST, f"cannot draw into {path}", hint="end it in .png, .svg or .html"
        )
    return kind


def _png(picture: Picture) -> bytes:
    return _figure(picture, LIGHT, "png")


def _svg(picture: Picture) -> bytes:
    """Draw with stand-in colours and put CSS variables in their place."""
    drawn = _figure(picture, STAND_INS, "svg").decode()
    for name, colour in STAND_INS.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    style = f"<style>{_rule(LIGHT)}@media(prefers-color-scheme:dark){{{_rule(DARK)}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda found: found.group(1) + style, drawn, count=1).encode()


def _rule(colours: Mapping[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{colour};" for name, colour in colours.items()) + "}"


def _page(picture: Picture, svg: str, text: str) -> str:
    title = html.escape(picture.title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_rule(LIGHT)}@media(prefers-color-scheme:dark){{{_rule(DARK)}}}"
        "body{background:var(--paper);color:var(--ink);max-width:70rem;margin:1rem auto;"
        "font-family:system-ui,sans-serif}svg{width:100%;height:auto}"
        "pre{overflow-x:auto;white-space:pre-wrap;padding:0 1rem}</style></head>"
        f"<body>{svg[svg.index('<svg') :]}<pre>{html.escape(text)}</pre></body></html>\n"
    )


def _figure(picture: Picture, colours: Mapping[str, str], kind: str) -> bytes:
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        what, hint = f"drawing into a file needs matplotlib: {error}", install_extra("plot")
        hint += "; without --plot a terminal plot is shown"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=hint) from error
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "poorwill",
        "font.size": 10,
        "text.color": colours["ink"],
        "axes.labelcolor": colours["ink"],
        "axes.edgecolor": colours["faint"],
        "axes.facecolor": colours["paper"],
        "xtick.color": colours["ink"],
        "ytick.color": colours["ink"],
        "figure.facecolor": colours["paper"],
        "legend.labelcolor": colours["ink"],
        "legend.facecolor": colours["paper"],
        "legend.edgecolor": colours["line"],
    }
    with rc_context(settings):
        figure = Figure(figsize=(11, 11), layout="constrained")
        FigureCanvasAgg(figure)
        upper, middle, lower = figure.subplots(3, 1, height_ratios=(5, 3, 2))
        figure.suptitle(picture.title, color=colours["ink"])
        _frontier(upper, picture.points, colours)
        _gaps(middle, picture, colours)
        _day(lower, picture, colours)
        _label(figure, upper, picture.points, colours)
        written = io.BytesIO()
        figure.savefig(written, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    return written.getvalue()


def _frontier(axes: Any, points: Sequence[Point], colours: Mapping[str, str]) -> None:
    best = sorted((p for p in points if p.on_frontier), key=lambda p: p.cost_usd)
    axes.plot([p.cost_usd for p in best], [p.p95_s for p in best], color=FRONTIER, zorder=1, lw=1)
    for point in points:
        colour = CHOSEN if point.recommended else FRONTIER if point.on_frontier else colours["faint"]
        axes.scatter(
            point.cost_usd,
            point.p95_s,
            s=70 if point.recommended else 36,
            edgecolors=colour,
            facecolors="none" if point.aside and not point.recommended else colour,
        )
    costs = [p.cost_usd for p in points if p.cost_usd > 0]
    if costs and max(costs) > 8 * min(costs):
        axes.set_xscale("log")
        axes.set_xticks(dollar_ticks(min(costs), max(costs)))
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: f"${value:,.10g}")
    axes.set_xlabel("cost over the span (US dollars)")
    axes.set_ylabel("95th-percentile wait (seconds)")
    axes.set_title(
        "Cost against waiting: frontier blue, recommended orange, dominated grey, yardsticks hollow",
        fontsize=10,
    )
    axes.grid(color=colours["line"], lw=0.5)
    axes.margins(x=0.08, y=0.25)
    _scale_waits(axes, [p.p95_s for p in points])


def dollar_ticks(low: float, high: float) -> list[float]:
    """Return amounts between two of which the higher is eight times the lower or more: round, and few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= MOST_TICKS:
            break
    return ticks


def _scale_waits(axes: Any, waits_s: Sequence[float]) -> None:
    """Draw waits that differ much on a logarithmic scale that has a zero, with room for names below it."""
    longest = max(waits_s) or 1.0
    shortest = min((wait for wait in waits_s if wait > 0), default=longest)
    if longest <= 8 * shortest:
        axes.set_ylim(-0.12 * longest, 1.3 * longest)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}" if value >= 0 else "")
        return
    axes.set_yscale("symlog", linthresh=shortest)
    steps = [step * 10**power for power in range(-6, 7) for step in (1, 3)]
    axes.set_yticks([0, *(step for step in steps if shortest <= step <= 2 * longest)])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.minorticks_off()
    axes.set_ylim(-0.7 * shortest, 2 * longest)


def _label(figure: Any, axes: Any, points: Sequence[Point], colours: Mapping[str, str]) -> None:
    """Name the points, each at the nearest place where its name covers no other name and no point."""
    figure.draw_without_rendering()  # the layout is final from here on
    scale = 72 / figure.dpi
    places = axes.transData.transform([(p.cost_usd, p.p95_s) for p in points]) * scale
    frame = axes.bbox.x0 * scale, axes.bbox.y0 * scale, axes.bbox.x1 * scale, axes.bbox.y1 * scale
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for point, (x, y) in sorted(zip(points, places, strict=True), key=lambda pair: pair[1][1]):
        width = CHARACTER_PT * len(point.name)
        for dx, dy in _around(width):
            box = (x + dx, y + dy - 2, x + dx + width, y + dy + 10)
            inside = box[0] > frame[0] and box[1] > frame[1] and box[2] < frame[2] and box[3] < frame[3]
            if inside and not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        vivid = point.on_frontier or point.recommended
        axes.annotate(
            point.name,
            (point.cost_usd, point.p95_s),
            xytext=(dx, dy),
            textcoords="offset points",
            color=colours["ink"] if vivid else colours["faint"],
            fontsize=9,
            fontweight="bold" if point.recommended else "normal",
            arrowprops={"arrowstyle": "-", "color": colours["line"], "lw": 0.6},
        )


def _around(width: float) -> Iterator[tuple[float, float]]:
    """Yield offsets in points for a label of this width, near ones first."""
    for step in range(12):
        for dx in (8, -8 - width, -width / 2):
            yield dx, 5 + 12 * step
            yield dx, -12 - 12 * step


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _gaps(axes: Any, picture: Picture, colours: Mapping[str, str]) -> None:
    import numpy as np

    gaps = np.asarray([gap for gap in picture.gaps_s if gap > 0])
    if len(gaps):
        edges = np.geomspace(max(gaps.min(), 0.1), max(gaps.max(), 0.2) * 1.01, 41)
        axes.hist(gaps, bins=edges, color=BARS)
        axes.set_xscale("log")
        shown = {at: name for at, name in TICKS_S.items() if edges[0] <= at <= edges[-1]}
        axes.set_xticks(list(shown), list(shown.values()), minor=False)
        axes.minorticks_off()
        axes.margins(y=0.2)  # the break-even is written above the bars
        axes.yaxis.get_major_locator().set_params(integer=True)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "none: it is never idle", transform=axes.transAxes, ha="center")
    if picture.even_s is not None and len(gaps):
        axes.axvline(picture.even_s, color=CHOSEN, lw=1.5)
        longer = gaps[gaps > picture.even_s].sum() / gaps.sum()
        told = f" break-even {picture.even}; {longer:.0%} of idle time is in longer gaps "
        place = axes.get_xaxis_transform()
        across = axes.transAxes.inverted().transform(axes.transData.transform((picture.even_s, 0)))
        axes.text(
            picture.even_s,
            0.97,
            told,
            transform=place,
            va="top",
            ha="left" if across[0] < 0.5 else "right",
            color=CHOSEN,
            fontsize=9,
        )
    axes.set_xlabel("length of an idle gap")
    axes.set_ylabel("number of gaps")
    axes.set_title("Idle gaps of a replica that is always ready", fontsize=10)
    axes.grid(color=colours["line"], lw=0.5, axis="y")
    axes.set_axisbelow(True)


def _day(axes: Any, picture: Picture, colours: Mapping[str, str]) -> None:
    present = [name for name in STATES if any(s.state == name for s in picture.day)]
    unit_us, unit = picture.unit
    for row, name in enumerate(reversed(present)):
        bars = [
            (s.begin_us / unit_us, (s.end_us - s.begin_us) / unit_us) for s in picture.day if s.state == name
        ]
        axes.broken_barh(bars, (row - 0.4, 0.8), color=STATE_COLOURS[name])
    axes.set_yticks(range(len(present)), list(reversed(present)))
    axes.set_xlim(0, picture.day_us / unit_us)
    if picture.day_us == DAY_US:
        axes.set_xticks(range(0, 25, 2))
    axes.set_xlabel(f"{unit} (the trace's clock)")
    axes.set_title(picture.day_title[0].upper() + picture.day_title[1:], fontsize=10)
    axes.grid(color=colours["line"], lw=0.5, axis="x")
    axes.set_axisbelow(True)
