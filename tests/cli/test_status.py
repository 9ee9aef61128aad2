"""What `poorwill status` makes of the admin listener's answer."""

import msgspec

from poorwill.cli.operate.status import status_lines
from poorwill.core.words import SECOND_US, Phase, Tier
from poorwill.telemetry.dashboard.documents import (
    BridgeNow,
    DiskNow,
    HostNow,
    ReplicaNow,
    StatusDocument,
    WakeTimes,
)

NOW = 1_000_000 * SECOND_US
BIRD = ReplicaNow(
    model="bird",
    replica="bird-0",
    state="ready",
    tier=None,
    cause="",
    since_us=NOW - 5 * SECOND_US,
    since_s=5.0,
    in_flight=0,
    held=0,
    wake=WakeTimes(count=0, p50_s=None, p95_s=None, max_s=None, budget_s=60, over_budget=0),
)


def lines(*, bridges: tuple[BridgeNow, ...] = (), **changes: object) -> list[str]:
    """Return what is said of one replica."""
    replica = msgspec.structs.replace(BIRD, **changes)
    return status_lines(
        StatusDocument(now_us=NOW, status="ok", ledger="ok", replicas=(replica,), limits=(), bridges=bridges)
    )


def test_a_bridge_stands_below_its_model() -> None:
    said = lines(state="waking", bridges=(BridgeNow(model="bird", what="bridge to groq/llama"),))
    assert said[-1] == "bird: bridge to groq/llama"


def test_what_all_replicas_say_is_said_once() -> None:
    both, one = {"spend": "it is not woken"}, {"devices": "on GPU 1"}
    replicas = [
        msgspec.structs.replace(BIRD, replica=f"bird-{number}", notes=notes)
        for number, notes in enumerate((both, both | one))
    ]
    said = status_lines(
        StatusDocument(now_us=NOW, status="ok", ledger="ok", replicas=tuple(replicas), limits=(), bridges=())
    )
    assert said[3:] == ["bird: it is not woken", "bird-1: on GPU 1"]


def test_hosts_stand_with_their_disks() -> None:
    both = DiskNow(path="/srv", holds=("snapshots", "weights"), free_bytes=20 * 10**9, total_bytes=10**12)
    hosts = (
        HostNow(name="gpu-1", answers=True, engines=2, disks=(both,)),
        HostNow(name="gpu-2", answers=False, engines=0, disks=()),
    )
    said = status_lines(
        StatusDocument(
            now_us=NOW, status="ok", ledger="ok", replicas=(BIRD,), limits=(), bridges=(), hosts=hosts
        )
    )
    assert [line.split() for line in said[-2:]] == [
        ["gpu-1", "up", "2", *"20 GB of 1 TB for snapshots and weights".split()],
        ["gpu-2", "silent", "0"],
    ]


def test_a_failure_has_its_age_and_next_try() -> None:
    said = lines(
        state="parked",
        tier=Tier.COLD,
        failures=3,
        last_error="out of memory",
        last_error_us=NOW - 90 * SECOND_US,
        retry_at_us=NOW + 4 * SECOND_US,
    )
    what = "bird: 1m 30s ago, failed wake 3 in a row: out of memory (the next wake may begin in 4 s)"
    assert said[-1] == what


def test_an_old_failure_does_not_look_current() -> None:
    said = lines(last_error="disk full", last_error_us=NOW - 7200 * SECOND_US)
    assert said[-1] == "bird: 2h ago: disk full"


def test_the_state_says_when_it_changes() -> None:
    waking = lines(state="waking", tier=Tier.COLD, phase=Phase.WEIGHTS, ready_in_us=11_600_000)
    assert "waking cold (weights, ready in about 12 s)" in waking[1]
    assert "ready (parks in 5m)" in lines(parks_at_us=NOW + 300 * SECOND_US)[1]
