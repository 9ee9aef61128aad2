"""Requests that a hosted API serves while the replica cannot: they are demand, and they cost money."""

import asyncio
from dataclasses import replace

import pytest

from poorwill.core.errors import TryLater
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.bridging import Bridged
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import SpendSettings, WakeSettings
from poorwill.core.spend import HostedCharge, LimitState, Scope, Standing, Verdict, Window
from poorwill.core.words import Tier
from poorwill.gateway.request_policy import POST_AFTER_S

from .house import A, House, S
from .test_learning import rounded


def bridge(house: House, asked_by: str = "key", most_nusd: int = 0) -> Bridged | None:
    assert house.fleet is not None
    return house.fleet.bridging.bridge(A, asked_by=asked_by, key=asked_by, most_nusd=most_nusd)


def over(house: House, bridged: Bridged | None, cost_nusd: int = 0) -> None:
    assert house.fleet is not None and bridged is not None
    house.fleet.bridging.bridge_over(bridged, cost_nusd=cost_nusd)


def paid(house: House, key: str, nusd: int) -> None:
    """Cross once, for so much."""
    assert house.guard is not None
    reservation = house.guard.reserve(HostedCharge(model=A, key=key, nusd=0))
    assert reservation is not None
    house.guard.settle(reservation, nusd)


async def test_a_bridged_request_wakes_the_replica(house: House):
    house.model()
    async with house.open():
        first = bridge(house, "alice")
        assert house.state() is State.WAKING
        second = bridge(house, "bob")
        assert first is not None and second is not None
        assert first.wake == second.wake == house.unit().replica.wake.id  # type: ignore[union-attr]
        over(house, first)
        over(house, second)
        await house.until(A, State.READY)
        assert bridge(house) is None, "it is ready"
        await house.serve()
    assert house.rows("SELECT asked_by, why, budget_us FROM wakes") == [("alice", "demand", None)]


async def test_the_back_off_still_bridges(house: House):
    room = house.model(wake=WakeSettings(backoff_us=60 * S))
    room.cold.wake_door.mistakes.append(DriverError("no memory"))
    async with house.open():
        over(house, bridge(house))
        await house.until(A, State.PARKED)
        with pytest.raises(TryLater):
            house.hold()
        bridged = bridge(house)
        assert bridged is not None and bridged.wake is None
        assert house.state() is State.PARKED
        over(house, bridged)
        await house.pass_time(61)
        over(house, bridge(house))
        await house.until(A, State.READY)
    assert house.rows("SELECT ok FROM wakes") == [(0,), (1,)]


async def test_bridged_in_a_park_wakes_after_it(house: House):
    room = house.model()
    async with house.open():
        await house.serve()
        room.frozen.park_door.shut()
        await house.pass_time(31)
        assert house.state() is State.PARKING
        bridged = bridge(house, "alice")
        assert bridged is not None and bridged.wake is None
        over(house, bridged)
        room.frozen.park_door.open.set()
        await house.until(A, State.WAKING, State.READY)
        await house.until(A, State.READY)
        await house.pass_time(31)
        assert house.state() is State.PARKED, "one wake for it, not one after every park"
    assert house.rows("SELECT asked_by, why FROM wakes") == [("key", "demand"), ("alice", "demand")]


async def test_a_draining_replica_is_not_bridged(house: House):
    house.model()
    async with house.open():
        lease = await house.lease()
        assert house.fleet is not None
        parking = house.start(_refused(house))
        await house.until(A, State.DRAINING)
        assert bridge(house) is None
        house.give_back(await house.lease())
        house.give_back(lease)
        await parking


async def _refused(house: House) -> None:
    assert house.fleet is not None
    with pytest.raises(TryLater):
        await house.fleet.view.park(A, Tier.FROZEN)


async def test_bridged_requests_end_stretches(house: House):
    room = house.model()
    begin = house.clock.at_us
    async with house.open():
        await house.serve()  # quiet from 0
        await house.pass_time(100)
        first, second = bridge(house), bridge(house)  # 0 to 100, once
        await house.pass_time(10)
        over(house, first)
        over(house, second)  # quiet from 110
        await house.pass_time(10)
        await house.serve()  # 110 to 120
    assert rounded(room.policy.observed, begin) == [(0, 100), (110, 120)]


async def test_no_bridge_without_a_ledger(house: House):
    house.model()
    async with house.open():
        assert house.fleet is not None
        journal = house.fleet.controller.journal
        ledger, journal.ledger = journal.ledger, _Unwritable()  # type: ignore[assignment]
        assert bridge(house) is None
        journal.ledger = ledger


class _Unwritable:
    unavailable = "the disk is full"

    def post(self, entries: object) -> None:
        pass


async def test_no_bridge_during_a_shutdown(house: House):
    house.model()
    async with house.open():
        assert house.fleet is not None
        await house.fleet.close("leave", 5 * S)
        assert bridge(house) is None


def _limit(limit_nusd: int, **changes: object) -> LimitState:
    limit = LimitState(
        scope=Scope.TOTAL,
        name="",
        window=Window.DAY,
        limit_nusd=limit_nusd,
        spent_nusd=0,
        forecast_nusd=None,
        standing=Standing.WITHIN,
        ends_us=4_000_000_000 * S,
    )
    return replace(limit, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "counts"),
    [
        (_limit(1000), True),
        (_limit(1000, scope=Scope.MODEL, name="a"), True),
        (_limit(1000, scope=Scope.MODEL, name="b"), False),
    ],
)
async def test_bridge_costs_trip_a_limit_at_once(house: House, limit: LimitState, counts: bool):
    house.model()
    house.verdict = Verdict(at_us=0, limits=(limit,))
    async with house.open():
        over(house, bridge(house), 999)
        over(house, bridge(house), 1)
        after = bridge(house)
        assert (after is None) is counts
        if after is None:
            with pytest.raises(TryLater, match="spend limit"):
                house.hold()
        else:
            over(house, after)


async def test_a_key_pays_only_for_itself(house: House):
    house.model()
    alice = _limit(1000, scope=Scope.KEY, name="alice")
    house.verdict = Verdict(at_us=0, limits=(alice,))
    async with house.open():
        assert house.guard is not None
        paid(house, "bob", 5000)
        assert house.guard.verdict.stops_key("alice") is None
        paid(house, "alice", 1000)
        assert house.guard.verdict.stops_key("alice") is not None


async def test_no_room_for_a_wake_none_for_a_bridge(house: House):
    house.model()
    tight = _limit(1000, next_nusd={"a": 2000})
    house.verdict = Verdict(at_us=0, limits=(tight,))
    async with house.open():
        assert bridge(house) is None


async def test_a_look_keeps_later_payments(house: House):
    house.model()
    house.limits = SpendSettings(day_nusd=1000)
    house.verdict = Verdict(at_us=0, limits=(_limit(1000),))
    async with house.open():
        assert house.guard is not None and house.fleet is not None
        guard, original = house.guard, house.guard.look

        async def look() -> Verdict:
            paid(house, "alice", 700)
            return await original()

        guard.look = look
        await guard.look_again(house.fleet.controller)
        [limit] = guard.verdict.limits
        assert limit.spent_nusd == 700


async def test_a_look_sees_rows_on_their_way(house: House):
    house.model()
    house.limits = SpendSettings(day_nusd=1000)
    house.verdict = Verdict(at_us=0, limits=(_limit(1000),))
    async with house.open():
        assert house.guard is not None and house.fleet is not None
        guard = house.guard

        def row_is_written() -> None:
            house.verdict = Verdict(at_us=0, limits=(_limit(1000, spent_nusd=700),))

        paid(house, "alice", 700)
        asyncio.get_running_loop().call_later(POST_AFTER_S, row_is_written)
        await guard.look_again(house.fleet.controller)
        [limit] = guard.verdict.limits
        assert limit.spent_nusd == 700


async def test_crossings_reserve_together(house: House):
    house.model()
    house.verdict = Verdict(at_us=0, limits=(_limit(1000),))
    async with house.open():
        first, second = bridge(house, most_nusd=600), bridge(house, most_nusd=300)
        assert bridge(house, most_nusd=300) is None, "600 + 300 + 300 would pass 1000"
        over(house, first, 100)
        third = bridge(house, most_nusd=300)
        over(house, second, 300)
        over(house, third, 0)
        assert house.guard is not None
        [limit] = house.guard.verdict.limits
        assert (limit.spent_nusd, limit.reserved_nusd) == (400, 0)


async def test_a_look_keeps_reservations(house: House):
    house.model()
    house.limits = SpendSettings(day_nusd=1000)
    house.verdict = Verdict(at_us=0, limits=(_limit(1000),))
    async with house.open():
        assert house.guard is not None and house.fleet is not None
        first = bridge(house, most_nusd=800)
        await house.guard.look_again(house.fleet.controller)
        assert bridge(house, most_nusd=300) is None
        over(house, first, 1)


async def test_a_keys_reservation_binds_no_other_key(house: House):
    house.model()
    house.verdict = Verdict(at_us=0, limits=(_limit(1000, scope=Scope.KEY, name="alice"),))
    async with house.open():
        first = bridge(house, "alice", most_nusd=900)
        assert bridge(house, "alice", most_nusd=900) is None
        other = bridge(house, "bob", most_nusd=900)
        over(house, first)
        over(house, other)
