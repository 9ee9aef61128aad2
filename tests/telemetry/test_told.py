"""The log tells what becomes of replicas."""

from tests.kept_log import KeptLog

from poorwill.core.entries import Noted, ParkEnded, WakeBegan, WakeEnded
from poorwill.core.words import ModelName, ReplicaId, Tier, WakeId
from poorwill.telemetry.told import ToldReplicas

S = 1_000_000


def wake(told: ToldReplicas, *, ok: bool) -> None:
    replica = ReplicaId("bird-0")
    told.told(
        WakeBegan(
            wake=WakeId("bird-0.1"),
            replica=replica,
            model=ModelName("bird"),
            generation=1,
            at_us=10 * S,
            from_tier=Tier.FROZEN,
            asked_by="ann",
            why="demand",
            budget_us=60 * S,
        )
    )
    why = "" if ok else "no device"
    told.told(WakeEnded(wake=WakeId("bird-0.1"), replica=replica, at_us=12 * S, ok=ok, why=why))


WAKE = {
    "model": "bird",
    "wake": "bird-0.1",
    "tier": "frozen",
    "seconds": 2.0,
    "asked_by": "ann",
}


def test_every_wake_is_one_line_with_its_length_and_a_failed_one_a_warning_with_its_reason() -> None:
    log = KeptLog()
    told = ToldReplicas(log=log)
    wake(told, ok=True)
    wake(told, ok=False)
    assert log.lines == [
        ("info", "woken", WAKE),
        ("warning", "a wake failed", {**WAKE, "why": "no device"}),
    ]


def test_every_park_is_one_line() -> None:
    log = KeptLog()
    told = ToldReplicas(log=log)
    park = ParkEnded(
        replica=ReplicaId("bird-0"),
        at_us=3 * S,
        began_us=2 * S,
        to_tier=Tier.FROZEN,
        ok=True,
        image_bytes=7,
    )
    told.told(park)
    assert log.lines == [
        (
            "info",
            "parked",
            {"replica": "bird-0", "tier": "frozen", "seconds": 1.0, "image_bytes": 7},
        )
    ]


def test_a_remark_is_a_warning_unless_nothing_is_wrong() -> None:
    log = KeptLog()
    told = ToldReplicas(log=log)
    told.told(Noted(at_us=1, kind="engine_lost", model=ModelName("bird"), text="killed"))
    told.told(Noted(at_us=1, kind="spend_within", text="the limit is not reached"))
    assert log.lines == [
        ("warning", "engine lost", {"model": "bird", "why": "killed"}),
        ("info", "spend within", {"why": "the limit is not reached"}),
    ]
