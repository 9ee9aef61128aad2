"""How wide intervals are: made by a rule, and judged by publishers that the rule did not see."""

import pytest

from .test_prediction import every_figure, predicted, publisher, unseen

NOMINAL, FEWEST = 0.85, 20
"""Widths are made to cover this much, of a group of this many figures; smaller groups take all figures'."""


def width_group(row: dict[str, str]) -> str:
    if row["what"] not in ("weights", "wake1"):
        return "engine"
    if row["storage"] == "cache" or row["what"] == "wake1":
        return "read"
    if not float(row["storage_gb_s"]):
        return "unmeasured"
    return "remote" if row["storage"] in ("network", "object") else "read"


def widths_from(rows: list[dict[str, str]]) -> dict[str, tuple[float, float]]:
    """The rule that makes widths of figures that were foretold by a model which had seen none of them."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        ratio = float(row["seconds"]) / float(row["before"])
        for group in {width_group(row), "all"}:
            groups.setdefault(group, []).append(ratio)
    groups = {group: sorted(ratios) for group, ratios in groups.items()}
    tails = {group: max(int((1 - NOMINAL) / 2 * (len(found) + 1)), 1) for group, found in groups.items()}
    widths = {group: (found[tails[group] - 1], found[-tails[group]]) for group, found in groups.items()}
    return {
        group: widths[group if len(groups.get(group, ())) >= FEWEST else "all"]
        for group in ("engine", "read", "remote", "unmeasured")
    }


def nested() -> list[tuple[dict[str, str], bool]]:
    """For each figure never seen, whether it is in the interval that all other publishers' figures make."""
    rows = [row for row, _, _ in unseen()]
    found = []
    for own in sorted({publisher(row) for row in rows}):
        widths = widths_from([row for row in rows if publisher(row) != own])
        for row in (row for row in rows if publisher(row) == own):
            low, high = widths[width_group(row)]
            found.append((row, low <= float(row["seconds"]) / float(row["before"]) <= high))
    return found


def test_widths_cover_publishers_they_were_not_made_from():
    found = nested()
    publishers: dict[str, list[bool]] = {}
    for row, within in found:
        publishers.setdefault(publisher(row), []).append(within)
    assert sum(within for _, within in found) >= 0.8 * len(found)
    shares = [sum(each) / len(each) for each in publishers.values()]
    assert sum(shares) >= 0.8 * len(shares)


def test_widths_in_use_are_the_rules():
    rule = widths_from([row for row, _, _ in unseen()])
    plain = [row for row in every_figure() if row["what"] in ("weights", "compile")]
    groups = {width_group(row): predicted(row) for row in plain}
    assert set(groups) == set(rule)
    for group, estimate in groups.items():
        used = (estimate.low_us / estimate.expected_us, estimate.high_us / estimate.expected_us)
        assert used == pytest.approx(rule[group], rel=0.03), group
