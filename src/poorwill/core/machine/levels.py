"""A level of demand: the policy, the floor and the quiet stretches of the n-th busy replica of a model.

The gap of level n begins when the number of busy replicas falls below n and ends when it is n again. If each
request goes to the idle replica that was emptied last, replicas of one slot fall apart into one ski-rental
problem a level (Lu, Chen: arXiv 1112.0442). So a policy belongs to a level, and learns that level's gaps.
"""

from collections import deque
from collections.abc import Sequence

from poorwill.core.policy import FloorSchedule, LearnsFromMeter, LearnsFromTimes, LearnsFromWakes, Policy

REMEMBERED_GAPS = 200
"""Quiet stretches that tell how soon a replica may be wanted again."""


class DemandLevel:
    """What one replica at a time has; a model with one replica has one."""

    __slots__ = (
        "floor", "gaps_us", "learns_meter", "learns_times", "learns_waits", "policy", "quiet_since_us",
    )  # fmt: skip

    def __init__(
        self,
        policy: Policy,
        floor: FloorSchedule,
        quiet_since_us: int | None,
        gaps_us: Sequence[int],
    ) -> None:
        self.quiet_since_us = quiet_since_us
        """When the last request ended or gave up; None while there is one, or before the first. A wake ahead
        of demand does not end a quiet stretch, so this is not the load's `idle_since_us`."""
        self.gaps_us = deque(gaps_us, maxlen=REMEMBERED_GAPS)
        """How long the last quiet stretches were, the latest last."""
        self.heed(policy, floor)

    def heed(self, policy: Policy, floor: FloorSchedule) -> None:
        """Have this policy and this floor from now on."""
        self.policy, self.floor = policy, floor
        self.learns_waits = policy if isinstance(policy, LearnsFromWakes) else None
        self.learns_meter = policy if isinstance(policy, LearnsFromMeter) else None
        self.learns_times = policy if isinstance(policy, LearnsFromTimes) else None

    def ended(self, now_us: int, *, others: int) -> None:
        """A quiet stretch has ended with demand: the policy learns it."""
        assert self.quiet_since_us is not None
        self.policy.observe(self.quiet_since_us, now_us, others=others)
        self.gaps_us.append(now_us - self.quiet_since_us)
        self.quiet_since_us = None
