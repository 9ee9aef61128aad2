"""The features of an idle stretch, and what did best in earlier stretches with the same features.

A situation is what is known when a stretch begins: the hour of the week, how long the last gap was, how many
stretches there were since the last long gap. `ScoreTable` scores alternatives under each of them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
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


def faded(cost: Sequence[float], amounts: Sequence[float]) -> list[float]:
    """Let what alternatives cost in the past fade, and add what each cost now."""
    return list(map(add, map(mul, cost, repeat(DECAY)), amounts))


@dataclass(slots=True)
class ScoreTable:
    """The fading cost of the same alternatives in every situation there was."""

    by_key: dict[Key, list[float]] = field(default_factory=dict)
    weight: float = 0.0
    """Of the whole history, in stretches."""

    def add(self, keys: Sequence[Key], amounts: Sequence[float]) -> None:
        """Add what each alternative cost in a stretch that was in these situations."""
        table, fading = self.by_key, repeat(DECAY)
        for key in keys:
            cost = table.get(key)
            table[key] = [*amounts] if cost is None else list(map(add, map(mul, cost, fading), amounts))
        self.weight = self.weight * DECAY + 1.0

    def picks(self, keys: Sequence[Key]) -> list[int]:
        """Return the alternative that was cheapest in each situation, leaning on the whole history."""
        whole, table = self.by_key[WHOLE], self.by_key
        leaning, found = list(map(mul, whole, repeat(PRIOR / self.weight))), list[int]()
        for key in keys:
            cost = table.get(key, whole)
            if cost is not whole:
                cost = list(map(add, cost, leaning))
            found.append(cost.index(min(cost)))
        return found


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
