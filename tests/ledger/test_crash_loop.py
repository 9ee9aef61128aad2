"""What a crash loop may cost at most: the real controller, breaker and ledger on a virtual clock."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.core.entries import Alive
from poorwill.core.errors import PoorwillError
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import RateSettings, SpendSettings, WakeSettings
from poorwill.core.words import HOUR_US, Tier
from poorwill.ledger.costs.items import items
from poorwill.ledger.dates import day_of
from poorwill.ledger.history.spending import LOOK_EVERY_S
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import reading

from ..fleet.fakes import Until  # noqa: TID252 - the house of the fleet tests
from ..fleet.house import A, B, House, S  # noqa: TID252
from .story import opened

STEP_S = 5
HALVES_NUSD = 100
"""Each line of the bill is rounded to a whole nano-dollar."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A model that does not come up, or comes up and dies, woken again and again."""

    rate: RateSettings
    limit: SpendSettings
    wakes_s: tuple[int, ...]
    dies_ready: bool = False
    models: int = 1
    floor: bool = False

    @property
    def limit_nusd(self) -> int:
        amounts = [self.limit.day_nusd, self.limit.month_nusd, *self.limit.model_day_nusd.values()]
        return next(amount for amount in amounts if amount is not None)


@st.composite
def plans(draw) -> Plan:
    active = draw(st.integers(0, 100 * 10**9))
    parked = draw(st.sampled_from([0, 50]))
    increment_us = draw(st.sampled_from([1, S, 60 * S, HOUR_US]))
    rate = RateSettings(
        effective_us=0,
        active_nusd_h=active,
        parked_nusd_h={Tier.COLD: active // parked if parked else 0},
        increment_us=increment_us,
        minimum_us=draw(st.sampled_from([0, 90 * S])),
    )
    paid_us = draw(st.integers(0, 900)) * S
    if increment_us == HOUR_US:
        paid_us += draw(st.integers(0, 3)) * HOUR_US
    models = draw(st.integers(1, 2))
    if parked:  # what is parked costs this all day long, and nothing stops it
        paid_us += models * 24 * HOUR_US // parked
    amount = active * paid_us // HOUR_US
    limit = draw(
        st.sampled_from(
            [
                SpendSettings(day_nusd=amount),
                SpendSettings(month_nusd=amount),
                SpendSettings(model_day_nusd={A: amount}),
            ]
        )
    )
    return Plan(
        rate=rate,
        limit=limit,
        wakes_s=tuple(draw(st.lists(st.integers(1, 240), min_size=1, max_size=4))),
        dies_ready=draw(st.booleans()),
        models=1 if limit.model_day_nusd else models,
        floor=draw(st.booleans()),
    )


@dataclass
class Loop:
    """One model's crash loop."""

    house: House
    name: str
    plan: Plan
    number: int = 0
    left_s: int = 0
    was: State = State.PARKED
    refused: int = 0
    held: list = field(default_factory=list)

    async def turn(self) -> None:
        """What happens in a step: somebody asks, and a wake that has lasted long enough fails."""
        state = self.house.state(self.name)
        if state is State.PARKED:
            try:
                self.house.hold(self.name)
            except PoorwillError:
                self.refused += 1
        if self.house.state(self.name) is State.WAKING and self.was is not State.WAKING:
            self.left_s = self.plan.wakes_s[self.number % len(self.plan.wakes_s)]
            self.number += 1
        self.was = self.house.state(self.name)
        self.left_s -= STEP_S
        if self.was is State.WAKING and self.left_s <= 0:
            await self.crash()

    async def crash(self) -> None:
        door = self.house.rooms[self.name].cold.wake_door
        if not self.plan.dies_ready:
            door.mistakes.append(DriverError("it does not come up"))
        door.open.set()
        await self.house.settle()
        door.shut()
        for running in self.house.world.of(f"{self.name}-0"):
            self.house.world.end(running.pid)
        await self.house.settle()
        self.was = self.house.state(self.name)


async def crash_all_day(house: House, plan: Plan) -> list[Loop]:
    """Loop until nothing happens any more, with a look at the limits as often as `serve` takes one."""
    loops = []
    for name in [A, B][: plan.models]:
        room = house.model(name, ladder=(Tier.COLD,), idle_s=(30,), wake=IMPATIENT)
        if plan.floor:
            room.floor = Until(house.clock.at_us + 10**6 * S)
        room.cold.wake_door.shut()
        loops.append(Loop(house, name, plan))
    day = day_of(house.clock.at_us)
    async with opened(str(house.directory / "ledger.sqlite"), clock=house.clock) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [plan.rate], now_us=house.clock.at_us))
    house.guard = None
    async with house.open(on_exit="stop"):
        await look(house)
        quiet, begun = 0, 0
        while quiet < 30 and house.clock.at_us < day.to_us - HOUR_US:
            for loop in loops:
                await loop.turn()
            await house.pass_time(STEP_S)
            still = all(loop.was is State.PARKED for loop in loops)
            quiet = quiet + 1 if still and begun == sum(loop.number for loop in loops) else 0
            begun = sum(loop.number for loop in loops)
            if house.clock.at_us // S // STEP_S % (LOOK_EVERY_S // STEP_S) == 0:
                await look(house)
        await house.pass_time((day.to_us - house.clock.at_us) / S - 60)
        await look(house)
    return loops


IMPATIENT = WakeSettings(budget_us=600 * S, cap_us=900 * S, backoff_us=S, backoff_max_us=10 * S)


async def look(house: House) -> None:
    assert house.fleet is not None and house.guard is not None
    controller = house.fleet.controller
    await controller.journal.record([Alive(at_us=house.clock.now_us())])
    await house.guard.look_again(controller)


def cost_of_the_day(house: House) -> int:
    with reading(str(house.directory / "ledger.sqlite")) as db:
        return sum(item.nusd for item in items(db, day_of(house.clock.at_us)))


def run(plan: Plan) -> tuple[int, list[Loop]]:
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder), limits=plan.limit)
        loops = asyncio.run(crash_all_day(house, plan))
        return cost_of_the_day(house), loops


DOLLAR = 10**9
CENT_A_SECOND = RateSettings(effective_us=0, active_nusd_h=36 * DOLLAR)


@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(plans())
def test_a_crash_loop_costs_at_most_its_limit(plan):
    cost, _ = run(plan)
    assert cost <= plan.limit_nusd + HALVES_NUSD


@pytest.mark.parametrize("dies_ready", [False, True], ids=["never comes up", "comes up and dies"])
def test_a_crash_loop_uses_most_of_its_limit(dies_ready):
    limit = SpendSettings(day_nusd=6 * DOLLAR)
    plan = Plan(rate=CENT_A_SECOND, limit=limit, wakes_s=(30,), dies_ready=dies_ready)
    cost, (loop,) = run(plan)
    assert 5 * DOLLAR < cost <= 6 * DOLLAR
    assert loop.number > 10 and loop.refused


def test_a_first_wake_too_long_is_torn_down():
    limit = SpendSettings(day_nusd=2 * DOLLAR)
    cost, (loop,) = run(Plan(rate=CENT_A_SECOND, limit=limit, wakes_s=(600,)))
    assert loop.number == 1
    assert 17 * DOLLAR // 10 < cost <= 2 * DOLLAR


def test_two_floors_share_what_is_left():
    rate = RateSettings(effective_us=0, active_nusd_h=DOLLAR, increment_us=HOUR_US)
    limit = SpendSettings(day_nusd=3 * DOLLAR // 2)
    plan = Plan(rate=rate, limit=limit, wakes_s=(30,), models=2, floor=True)
    cost, loops = run(plan)
    # Each cause's line is rounded to a nano-dollar by itself: an hour in parts is an hour but for these.
    assert abs(cost - DOLLAR) <= 5
    assert sorted(loop.number for loop in loops) == [0, 1]


async def test_requests_in_flight_pass_by_their_time(tmp_path):
    limit = SpendSettings(day_nusd=2 * DOLLAR)
    house = House(tmp_path, limits=limit)
    house.model(A, ladder=(Tier.COLD,), idle_s=(30,))
    async with opened(str(tmp_path / "ledger.sqlite"), clock=house.clock) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [CENT_A_SECOND], now_us=house.clock.at_us))
    house.guard = None
    async with house.open(on_exit="stop"):
        await look(house)
        lease = await house.lease()
        for _ in range(30):
            await house.pass_time(10)
            await look(house)
        house.give_back(lease)
        await house.pass_time(10)
        await look(house)
        assert house.state(A) is State.PARKED
    cost = cost_of_the_day(house)
    assert 3 * DOLLAR <= cost <= 3 * DOLLAR + 30 * DOLLAR // 100, "300 s in flight, at once parked then"
