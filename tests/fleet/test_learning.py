"""The policy learns of each quiet stretch once: from the last request's end to the next demand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from poorwill.core.errors import TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.policy import Descent, Rung
from poorwill.core.ports.driver import DriverError
from poorwill.core.words import Tier

from .fakes import Watcher
from .house import A, House, S


def rounded(observed: list[tuple[int, int]], begin: int) -> list[tuple[float, float]]:
    return [(round((a - begin) / S), round((b - begin) / S)) for a, b in observed]


async def test_a_stretch_is_observed_once(house: House):
    room = house.model()
    begin = house.clock.at_us
    async with house.open():
        await house.serve()  # nothing is known of the time before the first request
        await house.pass_time(10)
        await house.serve()  # warm: 0 to 10
        await house.pass_time(90)
        assert house.state() is State.PARKED
        await house.serve()  # parked: 10 to 100
        await house.pass_time(5)
        first, second = await house.lease(), await house.lease()  # 100 to 105
        house.give_back(first)
        await house.pass_time(5)
        third = await house.lease()
        house.give_back(second)
        house.give_back(third)  # quiet from 110
        await house.pass_time(10)
        await house.serve()
    assert rounded(room.policy.observed, begin) == [(0, 10), (10, 100), (100, 105), (110, 120)]


async def test_a_wake_ahead_ends_no_stretch(house: House):
    room = house.model()
    room.policy = Ahead()
    begin = house.clock.at_us
    async with house.open():
        await house.serve()
        await house.pass_time(11)
        assert house.state() is State.PARKED
        await house.pass_time(50)
        assert house.state() is State.READY, "woken ahead, after 60 s"
        await house.pass_time(25)
        assert house.state() is State.READY
        await house.pass_time(10)
        assert house.state() is State.PARKED, "the demand did not come: parked again after 90 s"
        await house.pass_time(1000)
        assert house.state() is State.PARKED, "one wake ahead in a stretch"
        await house.serve()
    assert rounded(room.policy.observed, begin) == [(0, 11 + 50 + 25 + 10 + 1000)]
    assert house.rows("SELECT asked_by, why FROM wakes ORDER BY id") == [
        ("key", "demand"),
        ("policy", "predicted"),
        ("key", "demand"),
    ]


class Ahead(Watcher):
    def descent(self, idle_since_us: int) -> Descent:
        return Descent(
            (Rung(Tier.FROZEN, idle_since_us + 10 * S), Rung(Tier.FROZEN, idle_since_us + 90 * S)),
            wake_at_us=idle_since_us + 60 * S,
        )


async def test_a_wake_ahead_lingers_like_any_other(house: House):
    room = house.model(idle_s=(10, 3000))
    room.policy.wake_after_us = 60 * S
    room.policy.after_us = ((Tier.FROZEN, 10 * S),)
    async with house.open():
        await house.serve()
        await house.pass_time(61)
        assert house.state() is State.READY
        await house.pass_time(8)
        assert house.state() is State.READY
        await house.pass_time(3)
        assert house.state() is State.PARKED
        await house.pass_time(1000)
        assert len(house.rows("SELECT * FROM wakes")) == 2


async def test_an_unserved_request_ends_a_stretch(house: House):
    room = house.model()
    begin = house.clock.at_us
    async with house.open():
        await house.serve()
        await house.pass_time(100)
        room.frozen.wake_door.mistakes.append(DriverError("damaged"))
        room.cold.wake_door.mistakes.append(DriverError("no such device"))
        try:
            await house.hold().lease()
        except TryLater:
            pass
        await house.pass_time(100)
        room.cold.wake_door.shut()
        waiting = house.start(house.hold().lease())
        await room.cold.wake_door.reached()
        waiting.cancel()
        await house.settle()
        room.cold.wake_door.open.set()
        await house.until(A, State.READY)
        await house.pass_time(10)
        await house.serve()
    assert rounded(room.policy.observed, begin) == [(0, 100), (100, 200), (200, 210)]


async def test_late_leases_invent_no_stretch(house: House):
    room = house.model()
    begin = house.clock.at_us
    async with house.open():
        old = await house.lease()
        await house.pass_time(61)
        house.world.end(house.world.of("a-0")[0].pid)
        await house.until(A, State.PARKED)
        new = await house.lease()
        house.give_back(old)
        await house.pass_time(5)
        third = await house.lease()
        house.give_back(new)
        house.give_back(third)
        await house.pass_time(10)
        await house.serve()
    assert rounded(room.policy.observed, begin) == [(66, 76)]


@dataclass
class Timekeeper(Watcher):
    """Keeps what it was told of parks and wakes."""

    told: list[tuple[str, Tier, int]] = field(default_factory=list)

    def wakes_took(self, tier: Tier, recent_us: Sequence[int]) -> None:
        self.told.append(("wakes", tier, len(recent_us)))

    def park_took(self, tier: Tier, took_us: int) -> None:
        self.told.append(("park", tier, round(took_us / S)))


async def test_policies_learn_park_and_wake_times(house: House):
    room = house.model()
    room.policy = Timekeeper(after_us=((Tier.COLD, 10 * S),))
    async with house.open():
        await house.serve()
        room.cold.park_door.shut()
        await house.pass_time(11)
        await room.cold.park_door.reached()
        await house.pass_time(3)
        room.cold.park_door.open.set()
        await house.until(A, State.PARKED)
        room.cold.wake_door.mistakes.append(DriverError("not this time"))
        with pytest.raises(TryLater):
            await house.serve()
        await house.pass_time(60)
        await house.serve()
    assert room.policy.told[:3] == [
        ("wakes", Tier.COLD, 1),
        ("park", Tier.COLD, 4),  # from 10 s to 14 s
        ("wakes", Tier.COLD, 2),
    ], "not of the wake that failed"
