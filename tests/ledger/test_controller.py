"""The real controller, driven by random events, writes a ledger that tiles, through crashes and restarts."""

import asyncio
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.bill.bill import Axis, make_bill
from poorwill.core.errors import PoorwillError
from poorwill.core.machine.inputs import WakeAsked
from poorwill.core.ports.driver import DriverError
from poorwill.ledger.checking import problems
from poorwill.ledger.dates import Period
from poorwill.ledger.rates import lives
from poorwill.ledger.schema import reading

from ..fleet.house import A, B, House  # noqa: TID252 - the house of the fleet tests

MODELS = st.sampled_from([A, B])
EVENTS = st.one_of(
    st.tuples(st.just("serve"), MODELS),
    st.tuples(st.just("claim"), MODELS),
    st.tuples(st.just("give back"), st.none()),
    st.tuples(st.just("time"), st.sampled_from([0.000001, 0.5, 3.0, 31.0, 400.0, 90_000.0])),
    st.tuples(st.just("wake"), MODELS),
    st.tuples(st.just("park"), MODELS),
    st.tuples(st.just("die"), MODELS),
    st.tuples(st.just("fail"), MODELS),
    st.tuples(st.just("stray"), MODELS),
    st.tuples(st.just("sweep"), st.none()),
)
RUNS = st.lists(
    st.tuples(st.lists(EVENTS, max_size=8), st.sampled_from(["leave", "park", "stop", "kill -9"])),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
@given(RUNS)
def test_every_second_has_one_cause(runs):
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        house.model(A)
        house.model(B)
        house.expected_errors = ("cannot end an engine",)
        asyncio.run(live(house, runs))
        check(folder)


async def live(house, runs):
    for events, end in runs:
        moment = None
        async with house.open(on_exit="leave" if end == "kill -9" else end):
            leases = []
            for what, arg in events:
                await happen(house, leases, what, arg)
            await house.settle()
            if end == "kill -9":
                moment = house.moment()
            while leases:
                house.give_back(leases.pop())
        if moment is not None:
            house.go_back(moment)
            house.clock.at_us += 7_000_000


async def happen(house, leases, what, arg):
    try:
        if what == "serve":
            await house.serve(arg)
        elif what == "claim":
            lease = house.claim(arg)
            if lease is not None:
                leases.append(lease)
        elif what == "give back" and leases:
            house.give_back(leases.pop())
        elif what == "time":
            await house.pass_time(arg)
        elif what == "wake":
            house.fleet.controller.submit(house.unit(arg), WakeAsked())
        elif what == "park":
            async with asyncio.timeout(0.01):
                await house.fleet.view.park(arg, None)
        elif what == "die":
            for running in house.world.of(f"{arg}-0"):
                house.world.end(running.pid)
        elif what == "stray":
            stray(house, arg)
            await house.sweeps.one()
        elif what == "sweep":
            for running in house.world.of("stray-0"):
                house.world.end(running.pid)
            await house.sweeps.one()
        elif what == "fail":
            for driver in house.rooms[arg].drivers.values():
                driver.wake_door.mistakes.append(DriverError("it does not work today"))
    except (PoorwillError, TimeoutError):
        pass  # refused: that, too, is something that happens


def stray(house, model):
    """An engine that nobody owns, of a model that is not configured."""
    launch = house.rooms[model].engine.launch(replica="stray-0", generation=1)
    port = 20_000 + len(house.world.processes)
    with suppress(AssertionError):  # the port is taken
        house.world.spawn(replace(launch, port=port), 1, "fake-cold")


def check(folder):
    path = f"{folder}/ledger.sqlite"
    with reading(path) as db:
        assert problems(db, path) == []
        last_us = db.execute("SELECT last_us FROM alive").fetchone()[0]
        first_us = min(life.created_us for life in lives(db))
        wall = sum((life.ended_us or last_us) - life.created_us for life in lives(db))
        period = Period(from_us=first_us, to_us=last_us + 1)
        bill = make_bill(db, period, [Axis.REPLICA, Axis.CAUSE])
        assert sum(line.us for line in bill.lines) == wall
        assert all(line.us > 0 for line in bill.lines)
