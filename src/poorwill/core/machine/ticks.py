"""What happens by the passage of time alone: the handlers of `Tick` for `step`, by state.

Each looks at what is due now; what is not due is left for the Tick that `next_wakeup_us` asks for.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from poorwill.core.errors import ErrorCode
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.phase_limit import overrun
from poorwill.core.machine.transition import Transition, due_rung
from poorwill.core.words import SECOND_US, Tier


def tick(change: Transition) -> None:
    """Expire holds, then act on whatever the state has due."""
    _expire_holds(change)
    _TICKS[change.replica.state](change)


def _expire_holds(change: Transition) -> None:
    replica = change.replica
    if replica.budget_ends_us is not None and replica.budget_ends_us <= change.now_us:
        budget_s = replica.settings.wake.budget_us / SECOND_US
        change.fail_holds(
            ErrorCode.WAKE_TIMEOUT,
            f"{replica.model} was not ready within its wake budget of {budget_s:g} s; the wake goes on",
        )
        return
    oldest = change.now_us - replica.settings.hold.age_us
    aged = [hold for hold in replica.holds if hold.arrived_us <= oldest]
    if aged:
        age_s = replica.settings.hold.age_us / SECOND_US
        change.fail_holds(ErrorCode.HOLD_QUEUE_FULL, f"waited {age_s:g} s for a free place", only=aged)


def _tick_parked(change: Transition) -> None:
    replica = change.replica
    if replica.closing:
        return
    if replica.must_stop and replica.tier is Tier.ASLEEP:
        change.stop_paying()
        return
    may_wake = change.now_us >= replica.retry_at_us and replica.blocked is None
    floor = replica.floor.at(change.now_us)
    if floor.required:
        if may_wake:
            change.begin_wake(replica.tier, asked_by="floor", why=floor.name)
        return
    ahead = replica.descent().wake_at_us
    if ahead is not None and replica.park_began_us <= ahead <= change.now_us and may_wake:
        if not replica.failures:
            change.begin_wake(replica.tier, asked_by="policy", why="predicted", ahead_us=ahead)
            return
    deeper = due_rung(replica, change.now_us)
    if deeper is not None:
        change.begin_park(deeper, from_tier=replica.tier, why=f"idle, {replica.descent().why}")


def _tick_waking(change: Transition) -> None:
    wake = change.replica.wake
    if wake is None:
        return
    if wake.cap_ends_us <= change.now_us:
        change.abort_wake(f"not ready after {change.replica.settings.wake.cap_us / SECOND_US:g} s")
        return
    limit = change.replica.settings.wake.phase_limits_us.get(wake.phase)
    spent = change.now_us - wake.phase_began_us
    if limit is not None and spent >= limit:
        change.abort_wake(overrun(wake.phase, spent, limit))


def _tick_ready(change: Transition) -> None:
    replica = change.replica
    if replica.load.in_flight or replica.closing:
        if replica.closing and replica.load.in_flight and replica.drain_ends_us <= change.now_us:
            change.cut_leases("poorwill is shutting down")
            change.set(generation=replica.generation + 1)
            change.ready_span()
        return
    if replica.must_stop:
        change.stop_paying()
        return
    if replica.floor.at(change.now_us).required:
        change.ready_span()
        return
    tier = due_rung(replica, change.now_us)
    if tier is not None:
        # Demand is rechecked here, where the park commits: nothing is in flight, nobody waits.
        change.begin_park(tier, from_tier=None, why=f"idle, {replica.descent().why}")
    else:
        change.ready_span()


def _tick_draining(change: Transition) -> None:
    replica = change.replica
    if replica.drain_ends_us > change.now_us:
        return
    change.cut_leases("the drain deadline has passed")
    change.begin_park(replica.park_to or Tier.COLD, from_tier=None, why="drain deadline")


def _tick_parking(change: Transition) -> None:
    """Nothing: the park has its own limit where it is carried out."""


_TICKS: Mapping[State, Callable[[Transition], None]] = MappingProxyType(
    {
        State.PARKED: _tick_parked,
        State.WAKING: _tick_waking,
        State.READY: _tick_ready,
        State.DRAINING: _tick_draining,
        State.PARKING: _tick_parking,
    }
)
