"""The gate in front of a ready replica: leases claimed and returned synchronously, the warm path.

The gate counts; it decides nothing but "now or not now". `core.machine.step` opens and closes it and sees its
count as `Load`.
"""

from dataclasses import dataclass

from poorwill.core.words import Cause


@dataclass(frozen=True, slots=True)
class Load:
    """What the gate has seen: the part of a replica's state that changes without a step."""

    in_flight: int = 0
    idle_since_us: int = 0
    """When the last lease came back, or the replica became ready; meaningful while none is out."""
    cause: Cause | None = None
    """The cause of the replica's open span."""


@dataclass(slots=True)
class Gate:
    """Counts leases. `waiting` is the number of held requests, which come before a new one."""

    limit: int
    open: bool = False
    waiting: int = 0
    in_flight: int = 0
    claimed: int = 0
    """Leases claimed so far; those that a step grants are not among them."""
    told: int = 0
    """Of those, how many `others` has told of."""
    idle_since_us: int = 0
    cause: Cause | None = None
    """The cause of the replica's open span, which turns over here between serving and lingering."""

    def claim(self) -> bool:
        """Take a lease if one is to be had now."""
        if not self.open or self.waiting or (self.limit and self.in_flight >= self.limit):
            return False
        self.in_flight += 1
        self.claimed += 1
        return True

    def give_back(self, now_us: int) -> bool:
        """Return a lease; True where the state machine must be told (somebody waits, or it drains)."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle_since_us = now_us
        return self.waiting > 0 or not self.open

    def others(self) -> int:
        """Return how many leases were claimed since this was asked last, but for one that is out now.

        Asked when demand ends an idle stretch, this is what a policy calls `others`.
        """
        others = self.claimed - self.told - self.in_flight
        self.told = self.claimed
        return others

    def load(self) -> Load:
        """Return what a step needs to see."""
        return Load(self.in_flight, self.idle_since_us, self.cause)
