"""What one request cost, and who an operator is to the gateway."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kept_log import KeptLog

from poorwill.core.settings import RateSettings, SpendSettings
from poorwill.fleet.spending import GuardedKeys, SpendGuard
from poorwill.ledger.costs.one_request import request_cost, share
from poorwill.ledger.history.spending import SpendWatch
from poorwill.ledger.keys import LedgerKeys, add_key
from poorwill.ledger.rates import sync_rates
from poorwill.policies.requests.key_limits import key_name

from .story import START, began, created, ended, opened, request, span

S = 1_000_000
CENT = 10**7
RATE = RateSettings(effective_us=0, active_nusd_h=3600 * CENT)
"""A cent a second."""


async def test_a_request_costs_its_part(path):
    """Two requests wake a replica together; one is served for 10 s, the other for 20 s beside it."""
    async with opened(path) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [RATE], now_us=START))
        await ledger.record([created(), began(0), span(0, "wake.weights", wake="a.0.1", tier="frozen")])
        await ledger.record([ended(8 * S, served=("r1", "r2")), span(8 * S, "serving")])
        for end in (18, 28):
            row = request(0, 8 * S, end * S, key="ann", wake="a.0.1", tokens=(5, 7))
            await ledger.record([row])
        found = [
            await ledger.read(lambda db, id=f"r0-{end * S}-ann": request_cost(db, id)) for end in (18, 28)
        ]
        assert await ledger.read(lambda db: request_cost(db, "another")) is None
    assert [one.serving_nusd for one in found] == [5 * CENT, 15 * CENT]
    assert [one.wake_nusd for one in found] == [4 * CENT, 4 * CENT]
    assert (found[0].tokens_in, found[0].tokens_out, found[0].wake_us) == (5, 7, 4 * S)


async def test_a_request_costs_the_rates_of_its_time(path):
    """The rate rises tenfold in the middle of its wake, and again while it is served."""
    rates = [replace(RATE, effective_us=at and START + at * S, active_nusd_h=3600 * CENT * 10**n)
             for n, at in enumerate((0, 4, 10))]  # fmt: skip
    async with opened(path) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, rates, now_us=START))
        await ledger.record([created(), began(0), span(0, "wake.weights", wake="a.0.1", tier="frozen")])
        await ledger.record([ended(8 * S, served=("r1",)), span(8 * S, "serving")])
        await ledger.record([request(0, 8 * S, 11 * S, wake="a.0.1"), span(11 * S, "linger")])
        over = replace(request(1, 1, 2, wake="a.0.1"), replica=None, bridge="x/one", bridge_nusd=5)
        alone = await ledger.read(lambda db: request_cost(db, f"r0-{11 * S}-"))
        await ledger.record([over])
        shared, crossed = [
            await ledger.read(lambda db, id=id: request_cost(db, id)) for id in (f"r0-{11 * S}-", "r1-2-")
        ]
    assert (alone.wake_nusd, alone.serving_nusd) == (44 * CENT, 120 * CENT)
    assert (shared.wake_nusd, shared.wake_us) == (22 * CENT, 4 * S), (
        "with one that a hosted API served meanwhile"
    )
    assert (crossed.serving_nusd, crossed.wake_nusd, crossed.hosted_nusd) == (0, 0, 5)


@pytest.mark.parametrize(("later_us", "currency"), [(-1, "EUR"), (0, "USD")])
async def test_its_currency_is_that_of_its_end(path, later_us, currency):
    """The rates change in the last microsecond of a request, or just after it."""
    euros = replace(RATE, effective_us=START + 9 * S + later_us, currency="EUR")
    async with opened(path) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [RATE, euros], now_us=START))
        row = replace(request(0, 1 * S, 9 * S), first_byte_us=START + 2 * S)
        await ledger.record([created(), span(0, "serving"), row])
        found = await ledger.read(lambda db: request_cost(db, f"r0-{9 * S}-"))
    assert (found.currency, found.first_byte_us) == (currency, START + 2 * S)


async def test_without_rates_a_request_costs_nothing(path):
    async with opened(path) as ledger:
        await ledger.record([created(), span(0, "serving"), request(0, 1 * S, 9 * S)])
        found = await ledger.read(lambda db: request_cost(db, f"r0-{9 * S}-"))
    assert (found.serving_nusd, found.wake_nusd, found.currency) == (0, 0, "USD")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=6))
def test_shares_sum_to_the_time_that_is_covered(stretches):
    flights = [(began, began + length) for began, length in stretches]
    whole = sum(share(flights, *one) for one in flights)
    covered = len({us for began, end in flights for us in range(began, end)})
    assert abs(whole - covered) < 1e-6


async def test_an_operator_needs_no_key(path):
    async with opened(path) as ledger:
        watch = SpendWatch(ledger=ledger, limits=SpendSettings())
        guard = SpendGuard(look=watch.look, find_jumps=None, every_s=1)
        keys = LedgerKeys(path=path, now_us=ledger.clock.now_us, log=KeptLog())
        guarded = GuardedKeys(keys=keys, guard=guard, now_us=ledger.clock.now_us, operator=b"secret")
        keys.load()
        assert [key_name(guarded, secret, public=False) for secret in (b"secret", b"sk-1", b"")] == [
            "operator",
            "",
            "",
        ]
        await ledger.thread.call(lambda db: add_key(db, "ann", now_us=START))
        keys.load()
        assert guarded.required and guarded.in_use("operator")
        assert key_name(guarded, b"secret", public=True) == "operator"
