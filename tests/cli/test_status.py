"""What `poorwill status` makes of the admin listener's answer."""

from collections.abc import Sequence
from dataclasses import asdict

from poorwill.cli.status import told
from poorwill.core.ports.view import ReplicaStatus, WakeInterval
from poorwill.core.words import SECOND_US, ModelName, Phase, ReplicaId, Tier

NOW = 1_000_000 * SECOND_US
INTERVAL = WakeInterval(count=0, p50_s=None, p95_s=None, max_s=None, budget_s=60, over_budget=0)


def status(state: str, **others: object) -> dict[str, object]:
    """Return one replica as `/status` tells it."""
    replica = ReplicaStatus(
        model=ModelName("bird"),
        replica=ReplicaId("bird-0"),
        state=state,
        tier=None,
        cause="",
        since_us=NOW - 5 * SECOND_US,
        in_flight=0,
        held=0,
        wake=INTERVAL,
    )
    return asdict(replica) | {"since_s": 5.0} | others


def lines(*replicas: dict[str, object], bridges: Sequence[object] = ()) -> list[str]:
    answer = {"now_us": NOW, "status": "ok", "ledger": "ok", "replicas": list(replicas)}
    return told({**answer, "bridges": bridges, "limits": []})


def test_how_a_bridge_stands_is_told_below_its_model() -> None:
    said = lines(status("waking"), bridges=[{"model": "bird", "what": "bridge to groq/llama"}])
    assert said[-1] == "bird: bridge to groq/llama"


def test_a_failure_is_told_with_its_age_and_when_the_next_wake_may_begin() -> None:
    failed = status(
        "parked",
        tier=Tier.COLD,
        failures=3,
        last_error="out of memory",
        last_error_us=NOW - 90 * SECOND_US,
        retry_at_us=NOW + 4 * SECOND_US,
    )
    said = "bird: 1m30s ago, failed wake 3 in a row: out of memory (the next wake may begin in 4.00s)"
    assert lines(failed)[-1] == said


def test_an_old_failure_of_what_serves_again_does_not_look_current() -> None:
    served = status("ready", last_error="disk full", last_error_us=NOW - 7200 * SECOND_US)
    assert lines(served)[-1] == "bird: 2h00m ago: disk full"


def test_the_state_says_when_it_will_change() -> None:
    waking = status("waking", tier=Tier.COLD, phase=Phase.WEIGHTS, ready_in_us=11_600_000)
    assert "waking cold (weights, ready in about 12s)" in lines(waking)[1]
    assert "ready (parks in 5m00s)" in lines(status("ready", parks_at_us=NOW + 300 * SECOND_US))[1]
