"""Policies and floors that the property tests draw from."""

from dataclasses import dataclass

from poorwill.core.policy import Descent, Floor, FloorSchedule, NoFloor, Policy, Rung
from poorwill.core.words import Tier
from poorwill.policies import fixed_idle

S = 1_000_000


@dataclass(frozen=True)
class Ahead:
    """Parks, wakes ahead of demand, and parks again or lingers as after any wake."""

    again: bool

    name = "ahead"

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        pass

    def descent(self, idle_since_us: int) -> Descent:
        after = (10, 90) if self.again else (10,)
        rungs = tuple(Rung(Tier.FROZEN, idle_since_us + seconds * S) for seconds in after)
        return Descent(rungs, wake_at_us=idle_since_us + 60 * S, why="ahead")


@dataclass(frozen=True)
class Shifts:
    """A floor that holds for half of every period."""

    period_us: int

    def at(self, now_us: int) -> Floor:
        turn, into = divmod(now_us, self.period_us)
        half = self.period_us // 2
        if into < half:
            return Floor(required=True, until_us=turn * self.period_us + half, name="shift")
        return Floor(required=False, until_us=(turn + 1) * self.period_us)


@dataclass(frozen=True)
class Always:
    """A floor that always holds."""

    def at(self, now_us: int) -> Floor:
        return Floor(required=True, until_us=None, name="always")


POLICIES: tuple[Policy, ...] = (
    fixed_idle(((Tier.FROZEN, 30 * S), (Tier.COLD, 300 * S))),
    fixed_idle(((Tier.ASLEEP, 5 * S), (Tier.FROZEN, 30 * S), (Tier.COLD, 40 * S))),
    fixed_idle(()),
    fixed_idle(((Tier.COLD, 0),)),
    Ahead(again=True),
    Ahead(again=False),
)

FLOORS: tuple[FloorSchedule, ...] = (NoFloor(), NoFloor(), Shifts(2_000 * S), Always())
