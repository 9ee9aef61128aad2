"""A replica's state as one immutable value, and the questions that can be asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypedDict, Unpack

from poorwill.core.machine.holds import Hold
from poorwill.core.machine.lifecycle import State
from poorwill.core.policy import Descent, FloorSchedule, NoFloor, Policy
from poorwill.core.settings import ReplicaSettings
from poorwill.core.words import SECOND_US, TIER_DEPTH, Cause, ModelName, Phase, ReplicaId, Tier, WakeId

PAUSE_AFTER_FAILED_PARK_US = 60 * SECOND_US
"""A park that failed is not tried again before this has passed; it doubles with each failure in a row."""
LONGEST_PAUSE_US = 3600 * SECOND_US


@dataclass(frozen=True, slots=True)
class Load:
    """The part of a replica's state that the gate changes without a step."""

    in_flight: int = 0
    idle_since_us: int = 0
    """When the last lease came back, or the replica became ready; meaningful while none is out."""
    cause: Cause | None = None
    """The cause of the replica's open span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAttempt:
    """The wake under way."""

    id: WakeId
    began_us: int
    from_tier: Tier
    cap_ends_us: int
    asked_us: int
    """When the first wake began that this one continues from a colder tier; else `began_us`."""
    asked_by: str
    ahead_us: int = 0
    """For a wake ahead of demand: the predicted time of the demand; else 0."""
    phase: Phase = Phase.PROVISION
    phase_began_us: int = 0
    aborting: str = ""
    served: tuple[str, ...] = ()
    """Ids of all requests that waited for it, also of those that gave up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """The spend breaker's verdict. Only the breaker lifts it, at its first check in a new window."""

    until_us: int
    """When it is expected to be lifted; clients are told this."""
    why: str
    wakes_only: bool = False
    """Only new wakes are forbidden: one would exceed the limit, but whatever is awake or waking fits."""


class Changes(TypedDict, total=False):
    """The fields of a replica that change."""

    settings: ReplicaSettings
    policy: Policy
    floor: FloorSchedule
    state: State
    tier: Tier
    generation: int
    load: Load
    holds: tuple[Hold, ...]
    budget_ends_us: int | None
    wake: WakeAttempt | None
    park_began_us: int
    park_from: Tier | None
    park_to: Tier | None
    wanted_by: str
    drain_ends_us: int
    drain_firm: bool
    ready_since_us: int
    woken_ahead_us: int
    failures: int
    retry_at_us: int
    park_after_us: int
    park_failures: int
    park_failed: Tier | None
    last_error: str
    last_error_us: int
    blocked: Blocked | None
    backed: bool
    helped: bool
    closing: str
    recent_wakes_us: Mapping[Tier, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Replica:
    """Everything that `step` knows about one replica. Its cell owns it; `step` returns changed copies.

    Unlike other values it has no slots: a dictionary of fields is copied seven times as fast as slots one by
    one, and a wake changes fields some twenty times.
    """

    id: ReplicaId
    settings: ReplicaSettings
    policy: Policy
    floor: FloorSchedule = field(default_factory=NoFloor)
    state: State = State.PARKED
    tier: Tier = Tier.COLD
    """Parked in; while waking, woken from; while parking, on the way to."""
    generation: int = 0
    load: Load = field(default_factory=Load)
    holds: tuple[Hold, ...] = ()
    budget_ends_us: int | None = None
    """Set while somebody waits for a replica that is not ready."""
    wake: WakeAttempt | None = None
    park_began_us: int = 0
    park_from: Tier | None = None
    park_to: Tier | None = None
    """Where a drain leads."""
    wanted_by: str = ""
    """The key whose request, served by a hosted API, came during the park under way; a wake follows the
    park."""
    drain_ends_us: int = 0
    drain_firm: bool = False
    """No demand cancels the drain under way."""
    ready_since_us: int = 0
    woken_ahead_us: int = 0
    """When the policy wanted it awake, if the last wake was one ahead of demand; else 0."""
    failures: int = 0
    retry_at_us: int = 0
    park_after_us: int = 0
    park_failures: int = 0
    """Failed parks in a row."""
    park_failed: Tier | None = None
    """The tier of the last one: `park_after_us` applies to it and shallower tiers, not to deeper ones."""
    last_error: str = ""
    last_error_us: int = 0
    """When that happened."""
    blocked: Blocked | None = None
    backed: bool = False
    """Whether another replica of the model is there for those who wait: then their requests neither fail with
    this one nor wake it."""
    helped: bool = False
    """Whether another replica could take more requests, now or once it is awake."""
    closing: str = ""
    """The action of the shutdown under way, or empty."""
    recent_wakes_us: Mapping[Tier, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """The last durations of successful wakes by the tier woken from."""

    def changed(self, **changes: Unpack[Changes]) -> "Replica":
        """Return the replica with these fields changed; what `dataclasses.replace` does, faster."""
        copy = object.__new__(Replica)
        copy.__dict__.update(self.__dict__, **changes)
        assert len(copy.__dict__) == len(self.__dict__), f"no such fields among {[*changes]}"
        return copy

    @property
    def model(self) -> ModelName:
        """The model it serves."""
        return self.settings.model

    @property
    def gate_open(self) -> bool:
        """Whether new leases may be claimed."""
        return self.state is State.READY and not self.must_stop and not self.closing

    @property
    def must_stop(self) -> bool:
        """Whether nothing more may be spent: requests in flight finish, nothing else starts."""
        return self.blocked is not None and not self.blocked.wakes_only

    @property
    def has_room(self) -> bool:
        """Whether a lease could be granted now, were the replica ready."""
        limit = self.settings.limit(helped=self.helped)
        return not self.holds and (not limit or self.load.in_flight < limit)

    @property
    def settled(self) -> bool:
        """Whether a shutdown has nothing more to do here."""
        return self.state is State.PARKED or (
            self.state is State.READY and self.closing == "leave" and self.load.in_flight == 0
        )

    def descent(self) -> Descent:
        """Return the policy's plan for what is left of the idle stretch now under way."""
        return self.descent_since(self.load.idle_since_us)

    def descent_since(self, idle_since_us: int) -> Descent:
        """Return the policy's plan for what is left of the stretch that began at that instant."""
        plan = self.policy.descent(idle_since_us)
        if idle_since_us >= self.woken_ahead_us:
            return plan
        later = tuple(rung for rung in plan.rungs if rung.at_us > self.woken_ahead_us)
        return Descent(
            later or self.policy.descent(self.ready_since_us).rungs, why=f"{plan.why}, woken ahead"
        )

    def expected_wake_us(self, tier: Tier) -> int | None:
        """Return the median of the measured wakes from a tier, or the prediction before the first one. None
        if neither is known.
        """
        recent = sorted(self.recent_wakes_us.get(tier, ()))
        return recent[len(recent) // 2] if recent else self.settings.wake.expected_us.get(tier)

    def ready_in_us(self, now_us: int) -> int | None:
        """Return when the replica is expected to be ready, from now; None if nobody can tell.

        An overdue wake is expected to take half as long again as it has taken so far.
        """
        expected = self.expected_wake_us(self.tier)
        if expected is None:
            return None
        return self._left_of(expected, now_us)

    def _left_of(self, expected_us: int, now_us: int) -> int:
        if self.wake is None:
            return expected_us
        taken_us = now_us - self.wake.began_us
        left_us = expected_us - taken_us if taken_us < expected_us else taken_us // 2
        return min(left_us, self.wake.cap_ends_us - now_us)

    def retry_after_s(self, now_us: int) -> int:
        """Return how soon to try again, in whole seconds: when the replica is expected to be ready."""
        left = self.ready_in_us(now_us)
        if left is None:
            left = self._left_of(min(self.settings.wake.budget_us, 10 * SECOND_US), now_us)
        until_us = max(self.retry_at_us, self.blocked.until_us if self.blocked else 0)
        left = max(left, until_us - now_us, SECOND_US)
        return -(-left // SECOND_US)


def next_wakeup_us(replica: Replica, now_us: int, *, in_flight: int, idle_since_us: int) -> int | None:
    """Return the next instant at which `step` must be given a Tick, None if only an input can matter.

    It may lie in the past: then the Tick is due at once. What the gate has seen by now comes as arguments: to
    copy the replica for every idle stretch would slow the planner down.
    """
    candidates = [replica.budget_ends_us]
    if replica.holds:
        candidates.append(min(hold.arrived_us for hold in replica.holds) + replica.settings.hold.age_us)
    if replica.wake is not None:
        candidates += _wake_limits(replica, replica.wake)
    elif replica.state is State.DRAINING:
        candidates.append(replica.drain_ends_us)
    elif replica.state is State.READY:
        candidates += _due_ready(replica, now_us, in_flight, idle_since_us)
    elif replica.state is State.PARKED:
        candidates += _due_parked(replica, now_us, idle_since_us)
    known = [at for at in candidates if at is not None]
    return min(known) if known else None


def deeper_rungs(replica: Replica, plan: Descent) -> list[tuple[Tier, int]]:
    """Return the tiers of a plan that are deeper than where the replica is, and when each is due."""
    here = TIER_DEPTH[replica.tier] if replica.state is State.PARKED else -1
    paused = TIER_DEPTH[replica.park_failed] if replica.park_failed else -1
    return [
        (rung.tier, max(rung.at_us, replica.park_after_us if depth <= paused else 0))
        for rung in plan.rungs
        if (depth := TIER_DEPTH[rung.tier]) > here
    ]


def next_descent_us(replica: Replica) -> int | None:
    """Return when the descent next wants the replica deeper, None at the end of the ladder."""
    return _next_rung_us(replica, replica.descent())


def _next_rung_us(replica: Replica, plan: Descent) -> int | None:
    return min((at_us for _, at_us in deeper_rungs(replica, plan)), default=None)


def _wake_limits(replica: Replica, wake: WakeAttempt) -> list[int | None]:
    if wake.aborting:
        return []
    limit = replica.settings.wake.phase_limits_us.get(wake.phase)
    return [wake.cap_ends_us, None if limit is None else wake.phase_began_us + limit]


def _due_ready(replica: Replica, now_us: int, in_flight: int, idle_since_us: int) -> list[int | None]:
    if replica.closing or in_flight:
        leaving = replica.closing and in_flight
        return [replica.drain_ends_us] if leaving else []
    if replica.must_stop:
        return [replica.park_after_us]
    floor = replica.floor.at(now_us)
    if floor.required:
        return [floor.until_us]
    return [_next_rung_us(replica, replica.descent_since(idle_since_us)), floor.until_us]


def _due_parked(replica: Replica, now_us: int, idle_since_us: int) -> list[int | None]:
    if replica.closing:
        return []
    if replica.must_stop and replica.tier is Tier.ASLEEP:
        return [replica.park_after_us]
    floor = replica.floor.at(now_us)
    if floor.required:
        return [floor.until_us, None if replica.blocked else replica.retry_at_us]
    plan = replica.descent_since(idle_since_us)
    ahead = plan.wake_at_us
    # A predicted wake is tried once: never if it was due before the park, nor again after a failure.
    if ahead is None or ahead < replica.park_began_us or replica.failures or replica.blocked:
        ahead = None
    return [floor.until_us, _next_rung_us(replica, plan), ahead]
