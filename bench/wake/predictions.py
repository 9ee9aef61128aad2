"""How far predictions are off, by source: `python bench/wake/predictions.py`.

Every published figure of tests/anatomy/data: what it was used for, today's miss, and whether its publisher's
figures would fall into the interval had they taught nothing. The last two lines are about figures as they
were foretold by a model that had seen none of them; in the last the widths come from other publishers too.
"""

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.anatomy import test_prediction as figures
from tests.anatomy import test_widths as widths


def main() -> None:
    rows = figures.every_figure()
    fitted = {"published_starts.csv": "fitted", "later_starts.csv": "looked up earlier"}
    use = {
        figures.publisher(row): row.get("set") or fitted[name]
        for name in figures.FILES
        for row in figures.published(name)
    }
    print(f"{'source':44} {'used as':18} {'figures':>7} {'miss':>6} {'left out':>8} {'inside':>7}")
    for publisher, used in sorted(use.items(), key=lambda one: (one[1], one[0])):
        own = [row for row in rows if figures.publisher(row) == publisher]
        left = [figures.left_out(row, rows) for row in own]
        now, out = median(map(figures.miss, own)), median(miss for _, miss in left)
        inside = sum(within for within, _ in left)
        print(f"{publisher[:44]:44} {used:18} {len(own):7} {now:6.0%} {out:8.0%} {inside:4} of {len(own)}")
    left = [figures.left_out(row, rows) for row in rows]
    unseen = figures.unseen()
    for what, found in (
        ("publishers left out", left),
        ("never seen by the model that foretold them", [(inside, miss) for _, inside, miss in unseen]),
    ):
        inside = sum(within for within, _ in found)
        middle = median(miss for _, miss in found)
        print(f"{what}: median miss {middle:.0%}, {inside} of {len(found)} in the interval")
    nested = widths.nested()
    inside = sum(within for _, within in nested)
    print(f"the same, widths from the other publishers: {inside} of {len(nested)} in the interval")
    for group, (low, high) in widths.widths_from([row for row, _, _ in unseen]).items():
        print(f"  {group}: {low:.2f} to {high:.2f} of what is foretold")


if __name__ == "__main__":
    main()
