"""Replicas in every state, made by stepping there, and short words for what steps return."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from poorwill.core.entries import SpanOpened
from poorwill.core.machine.effects import Effect, Fail, Grant, Record, StartPark, StartWake
from poorwill.core.machine.inputs import Demand, Input, ParkAsked, ParkSucceeded, WakeAsked, WakeSucceeded
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Load, Replica, next_wakeup_us
from poorwill.core.machine.step import step
from poorwill.core.policy import Descent, Floor, Rung
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import HoldId, ModelName, ReplicaId, Tier
from poorwill.policies import fixed_idle

S = 1_000_000
T0 = 1_000 * S
"""When every replica here begins."""

LADDER = (Tier.ASLEEP, Tier.FROZEN, Tier.COLD)


@dataclass(frozen=True)
class Always:
    """A floor that always holds."""

    def at(self, now_us: int) -> Floor:
        return Floor(required=True, until_us=None, name="always")


@dataclass(frozen=True)
class Between:
    """A floor that holds between two instants."""

    begins_us: int
    ends_us: int

    def at(self, now_us: int) -> Floor:
        if now_us < self.begins_us:
            return Floor(required=False, until_us=self.begins_us)
        if now_us < self.ends_us:
            return Floor(required=True, until_us=self.ends_us, name="day")
        return Floor(required=False, until_us=None)


@dataclass(frozen=True)
class Ahead:
    """A policy that wakes ahead of demand."""

    park_after_us: int = 10 * S
    wake_after_us: int = 60 * S
    again_after_us: int = 90 * S

    name = "ahead"

    def observe(self, idle_since_us: int, demand_at_us: int, *, others: int = 0) -> None:
        pass

    def descent(self, idle_since_us: int) -> Descent:
        rungs = (self.park_after_us, self.again_after_us)
        return Descent(
            tuple(Rung(Tier.FROZEN, idle_since_us + after) for after in rungs),
            wake_at_us=idle_since_us + self.wake_after_us,
            why=f"idle since {idle_since_us}",
        )


def settings(**others: object) -> ReplicaSettings:
    given: dict[str, object] = {
        "model": ModelName("m"),
        "max_concurrency": 2,
        "hold": HoldSettings(count=3, bytes=1000, age_us=400 * S),
        "wake": WakeSettings(budget_us=60 * S, cap_us=180 * S),
        "park": ParkSettings(ladder=LADDER, drain_us=20 * S),
    }
    return ReplicaSettings(**{**given, **others})  # type: ignore[arg-type]


def parked(tier: Tier = Tier.COLD, **others: object) -> Replica:
    fields: dict[str, object] = {
        "id": ReplicaId("m-0"),
        "settings": settings(),
        "policy": fixed_idle(((Tier.ASLEEP, 30 * S), (Tier.FROZEN, 300 * S), (Tier.COLD, 3000 * S))),
        "tier": tier,
        "load": Load(0, T0),
        "park_began_us": T0,
    }
    return Replica(**{**fields, **others})  # type: ignore[arg-type]


def waking(tier: Tier = Tier.COLD, *, holds: int = 1, **others: object) -> Replica:
    replica = parked(tier, **others)
    for number in range(holds):
        replica, _ = step(replica, demand(number), T0)
    assert replica.state is State.WAKING
    return replica


def ready(*, in_flight: int = 0, held: int = 0, **others: object) -> Replica:
    replica = parked(**others)
    for what in (WakeAsked(), *map(demand, range(in_flight + held))):
        replica, _ = step(replica, what, T0)
    replica, _ = step(replica, WakeSucceeded(generation=replica.generation), T0)
    assert replica.state is State.READY
    assert (replica.load.in_flight, len(replica.holds)) == (in_flight, held)
    return replica


def draining(*, in_flight: int = 1, **others: object) -> Replica:
    replica, _ = step(ready(in_flight=in_flight, **others), ParkAsked(tier=Tier.FROZEN), T0)
    assert replica.state is State.DRAINING
    return replica


def parking(tier: Tier = Tier.FROZEN, *, came_from: Tier | None = None, **others: object) -> Replica:
    before = parked(came_from, **others) if came_from else ready(**others)
    replica, _ = step(before, ParkAsked(tier=tier), T0)
    assert replica.state is State.PARKING
    return replica


def rested(tier: Tier, **others: object) -> Replica:
    """Parked after having been ready."""
    replica = parking(tier, **others)
    replica, _ = step(replica, ParkSucceeded(generation=replica.generation), T0)
    return replica


def demand(number: int = 9, *, size: int = 1) -> Demand:
    return Demand(hold=HoldId(number), size_bytes=size, asked_by="key", request=f"r{number}")


@dataclass
class Life:
    """One replica stepped through inputs, with its effects at each turn."""

    replica: Replica
    now: int = T0
    effects: list[Effect] = field(default_factory=list)

    def after(self, seconds: float) -> "Life":
        self.now += int(seconds * S)
        return self

    def takes(self, what: Input) -> list[Effect]:
        self.replica, self.effects = step(self.replica, what, self.now)
        return self.effects


def due_us(replica: Replica, now_us: int) -> int | None:
    """When the next Tick is due."""
    load = replica.load
    return next_wakeup_us(replica, now_us, in_flight=load.in_flight, idle_since_us=load.idle_since_us)


def doing(effects: Sequence[Effect]) -> list[Effect]:
    """The effects that act; records aside."""
    return [effect for effect in effects if not isinstance(effect, Record)]


def entries(effects: Sequence[Effect], kind: type) -> list:
    return [e.entry for e in effects if isinstance(e, Record) and isinstance(e.entry, kind)]


def causes(effects: Sequence[Effect]) -> list[str]:
    return [entry.cause for entry in entries(effects, SpanOpened)]


def granted(effects: Sequence[Effect]) -> list[int]:
    return [effect.hold for effect in effects if isinstance(effect, Grant)]


def failed(effects: Sequence[Effect]) -> list[tuple[int, str]]:
    return [(effect.hold, effect.code) for effect in effects if isinstance(effect, Fail)]


def wakes(effects: Sequence[Effect]) -> list[Tier]:
    return [effect.from_tier for effect in effects if isinstance(effect, StartWake)]


def parks(effects: Sequence[Effect]) -> list[tuple[Tier | None, Tier]]:
    return [(e.from_tier, e.to_tier) for e in effects if isinstance(e, StartPark)]
