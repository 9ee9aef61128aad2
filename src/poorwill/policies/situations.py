"""The features of an idle stretch, and what did best in earlier stretches with the same features.

A situation is what is known when a stretch begins: the hour of the week, how long the last gap was, how many
stretches there were since the last long gap. `ScoreTable` scores alternatives under each of them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import add, mul

from poorwill.core.format import DAY_US

DECAY = 0.5 ** (1 / 400)
PRIOR = 12.0
"""As many stretches of its own a situation needs to count as much as the whole history."""
PARTS_OF_DAY = 6
GAPS = (1, 4, 16)
"""Edges between short and long last gaps, in quarters of the break-even."""
PLACES = (1, 2, 3, 4, 6, 10, 16)
"""Edges between places in a burst, in stretches since the last gap longer than the break-even."""
NAMES = ("the whole history", "hour of week", "burst", "place in a burst")

Key = tuple[str | int, ...]
WHOLE: Key = ("whole",)


@dataclass(slots=True)
class Scores:
    """The fading cost of every alternative in one situation."""

    cost: list[float]
    weight: float = 0.0

    def add(self, amounts: Sequence[float]) -> None:
        """Let the past fade and add what each alternative cost now."""
        fading = map(mul, self.cost, [DECAY] * len(amounts))
        self.cost = list(map(add, fading, amounts))
        self.weight = self.weight * DECAY + 1.0


@dataclass(slots=True)
class ScoreTable:
    """The scores of the same alternatives in every situation there was."""

    by_key: dict[Key, Scores] = field(default_factory=dict)

    def add(self, keys: Sequence[Key], amounts: Sequence[float]) -> None:
        """Add what each alternative cost in a stretch that was in these situations."""
        for key in keys:
            scores = self.by_key.get(key)
            if scores is None:
                scores = self.by_key[key] = Scores([0.0] * len(amounts))
            scores.add(amounts)

    def pick(self, key: Key) -> int:
        """Return the alternative that was cheapest in a situation, leaning on the whole history."""
        whole = self.by_key[WHOLE]
        here = self.by_key.get(key)
        cost = whole.cost
        if here is not None and here is not whole:
            leaning = map(mul, whole.cost, [PRIOR / whole.weight] * len(cost))
            cost = list(map(add, here.cost, leaning))
        return cost.index(min(cost))


@dataclass(slots=True)
class Situation:
    """What the stretches so far say of the next one."""

    even_us: int
    """The break-even: the unit for gaps."""
    edges_us: Sequence[int] = field(init=False)
    """Between short and long last gaps."""
    last_gap_us: int | None = None
    place: int = 0
    """How many stretches there were since the last long gap."""

    def __post_init__(self) -> None:
        self.edges_us = [self.even_us * edge // 4 for edge in GAPS]

    def passed(self, gap_us: int, *, long: bool) -> None:
        """Learn of a stretch that is over."""
        self.last_gap_us = gap_us
        self.place = 0 if long else self.place + 1

    def keys(self, idle_since_us: int) -> tuple[Key, ...]:
        """Return the keys a stretch is scored under, in the order of `NAMES`."""
        weekend = (idle_since_us // DAY_US + 3) % 7 >= 5  # the epoch was a Thursday
        part = idle_since_us % DAY_US * PARTS_OF_DAY // DAY_US
        last = len(GAPS)
        if self.last_gap_us is not None:
            last = bisect_left(self.edges_us, self.last_gap_us)
        place = bisect_right(PLACES, self.place)
        return WHOLE, ("hour", part, weekend), ("gap", last), ("place", place)
