"""Tenants that share a pool of hosts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.planner.simulation.pool import Pool, Tenant, misfits, share

S = 1_000_000


def tenant(name, arrivals_s, *, gb=40, service_s=10):
    count = len(arrivals_s)
    return Tenant(
        name=name,
        bytes=gb,
        arrival_us=np.array([round(at * S) for at in arrivals_s], np.int64),
        service_us=np.full(count, service_s * S, np.int64),
    )


def pool(hosts=1, *, wake_s=30, park_s=5, span_s=10_000):
    return Pool(
        hosts=hosts,
        bytes_per_host=80,
        active_nusd_h=3_600_000_000,
        wake_us=wake_s * S,
        park_us=park_s * S,
        span_us=span_s * S,
    )


def test_models_that_fit_are_woken_once():
    found = share([tenant("a", [0, 500]), tenant("b", [10, 600])], pool())
    assert (found.wakes, found.evictions) == (2, 0)
    assert found.waits.held_us.tolist() == [30 * S, 30 * S]
    assert found.cost_nusd == 10_000 * 1_000_000


def test_the_longest_idle_model_gives_way():
    found = share([tenant("a", [0]), tenant("b", [100]), tenant("c", [300])], pool())
    assert found.evicted == {"a": 1}
    assert found.evicting == {"c": 1}
    assert found.waits.max_us == 35 * S  # the park of a, then the wake of c


def test_a_busy_model_never_gives_way():
    tenants = [
        tenant("a", [0], service_s=1000),
        tenant("b", [0], service_s=1000),
        tenant("c", [100]),
    ]
    found = share(tenants, pool())
    assert found.starved == 1
    # a and b are ready at 30 and done at 1030; then one of them parks and c wakes.
    assert found.waits.max_us == (1030 + 35 - 100) * S


def test_who_has_only_just_come_is_left_alone():
    tenants = [tenant("a", [0], service_s=0), tenant("b", [0], service_s=0), tenant("c", [31])]
    found = share(tenants, pool())
    # a and b are ready at 30; 10 s later one may go.
    assert found.starved == 1
    assert found.waits.max_us >= (40 + 35 - 31) * S


def test_a_second_host_makes_room():
    tenants = [tenant("a", [0, 400]), tenant("b", [100, 500]), tenant("c", [300, 600])]
    assert share(tenants, pool(1)).evictions > 0
    assert share(tenants, pool(2)).evictions == 0


def test_what_fits_nowhere_is_named():
    assert misfits([tenant("a", [0]), tenant("b", [0], gb=81)], pool()) == ["b"]


def test_progress_is_told():
    told = []
    share([tenant("a", [0, 1])], pool(), progress=lambda done, of: told.append((done, of)))
    assert told == [(0, 2)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2000), min_size=1, max_size=8),
            st.sampled_from([20, 40, 70]),
            st.integers(0, 120),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 3),
)
def test_no_host_is_overfull(rows, hosts):
    tenants = [
        tenant(f"t{index}", sorted(arrivals), gb=gb, service_s=service)
        for index, (arrivals, gb, service) in enumerate(rows)
    ]
    found = share(tenants, pool(hosts))
    assert found.waits.requests == sum(len(arrivals) for arrivals, _, _ in rows)
    assert len(found.waits.held_us) >= len(rows), "each first request waits for a wake at least"
    assert found.evictions <= found.wakes
    assert 0 <= found.duty_cycle <= 1
    assert sum(found.evicted.values()) == sum(found.evicting.values()) == found.evictions
