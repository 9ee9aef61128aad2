"""The demand itself, whatever the policy did: idle stretches with the delays of wakes removed.

A policy sees only when the replica fell idle and when demand came back; both depend on what it did itself,
since a wake delays completions and makes one block of requests that came apart.

The model of the work between two idle stretches (a block): its natural end is the observed end less
the delay the wake caused, unless the block outlasted the wake by so much that later arrivals, which no wake
delays, must have ended it; and a schedule that wakes late ends the block late by as much.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from poorwill.policies.replay import Block, Stretch


@dataclass(slots=True)
class Work:
    """Estimates of the blocks' natural lengths, from what was observed under delays."""

    longest_us: int = 0
    """How much of a block a delayed wake shifts: the median length of recent blocks."""
    recent_us: deque[int] = field(default_factory=lambda: deque(maxlen=99))
    learnt: int = 0

    def natural_end_us(self, demand_us: int, end_us: int, delay_us: int) -> int:
        """Return when the block would have ended had its first request not been delayed. Changes nothing."""
        undelayed = end_us - demand_us - delay_us
        shift = delay_us
        if delay_us and undelayed > self.longest_us > 0:
            shift = delay_us * self.longest_us // undelayed
        return max(end_us - shift, demand_us)

    def learn(self, length_us: int) -> None:
        """Learn the natural length of a block."""
        self.recent_us.append(length_us)
        self.learnt += 1
        if self.learnt < 8 or self.learnt % 16 == 0 or self.longest_us == 0:
            ordered = sorted(self.recent_us)
            self.longest_us = ordered[len(ordered) // 2]


@dataclass(slots=True)
class Begun:
    """The work that began with a demand, as far as it is known while it lasts."""

    demand_us: int
    ready_us: int
    """When the replica was ready for it."""
    joined_us: list[int] = field(default_factory=list)
    """When requests came that the same wake held."""


@dataclass(slots=True)
class Past:
    """The demand so far, in order."""

    work: Work = field(default_factory=Work)
    begun: Begun | None = None
    """The work that began with the last demand."""

    def follows(self, idle_since_us: int, demand_at_us: int) -> bool:
        """Return whether this is a stretch, and one after all that is known."""
        begun = self.begun
        return demand_at_us > idle_since_us and (begun is None or idle_since_us >= begun.demand_us)

    def began(self, demand_us: int, ready_us: int) -> None:
        """Demand came, and the replica is ready for it then."""
        self.begun = Begun(demand_us, ready_us)

    def woke(self, waits_us: Sequence[int]) -> None:
        """The wake for the last demand is over; so long these requests waited, the first of them first."""
        if self.begun is not None:
            ready = self.begun.demand_us + waits_us[0]
            joined = [ready - wait for wait in waits_us[1:]]
            self.begun = Begun(self.begun.demand_us, ready, joined)

    def hidden(self) -> Iterator[Stretch]:
        """Yield the stretches that the last wake hid: between requests that came apart from each other."""
        begun, longest = self.begun, self.work.longest_us
        if begun is None:
            return
        block = self.begun = Begun(begun.demand_us, begun.ready_us)
        for joined in begun.joined_us:
            done = block.demand_us + longest
            if longest and joined > done:
                yield self._stretch(done, done, joined, others=0)
                block = self.begun = Begun(joined, begun.ready_us)
            else:
                block.joined_us.append(joined)

    def stretch(self, idle_since_us: int, demand_at_us: int, *, others: int) -> Stretch:
        """Return the stretch that is over now; so many `others` came in the work before it."""
        ended_us = self.work_ended_us(idle_since_us)
        return self._stretch(idle_since_us, ended_us, demand_at_us, others=others)

    def work_ended_us(self, idle_since_us: int) -> int:
        """Return when the work before a stretch would have ended had no wake delayed it."""
        begun = self.begun
        if begun is None:
            return idle_since_us
        delay = begun.ready_us - begun.demand_us
        return self.work.natural_end_us(begun.demand_us, idle_since_us, delay)

    def _stretch(self, idle_us: int, ended_us: int, demand_us: int, *, others: int) -> Stretch:
        block = None
        begun = self.begun
        if begun is not None:
            took_us = ended_us - begun.demand_us
            self.work.learn(took_us)
            longest_us = min(self.work.longest_us, took_us)
            block = Block(
                begun.demand_us, ended_us, longest_us, begun.joined_us, others, begun.ready_us, idle_us
            )
        return Stretch(block, idle_us, ended_us, demand_us)
