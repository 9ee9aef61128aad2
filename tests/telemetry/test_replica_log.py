"""Wakes, parks and notes appear in the log."""

from tests.kept_log import KeptLog

from poorwill.core.entries import Noted, ParkEnded, WakeBegan, WakeEnded
from poorwill.core.words import ModelName, ReplicaId, Tier, WakeId
from poorwill.telemetry.replica_log import ReplicaLog

S = 1_000_000


def wake(writer: ReplicaLog, *, ok: bool) -> None:
    replica = ReplicaId("bird-0")
    writer.write(
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
    writer.write(WakeEnded(wake=WakeId("bird-0.1"), replica=replica, at_us=12 * S, ok=ok, why=why))


WAKE = {
    "model": "bird",
    "wake": "bird-0.1",
    "tier": "frozen",
    "seconds": 2.0,
    "asked_by": "ann",
}


def test_every_wake_is_one_line() -> None:
    log = KeptLog()
    writer = ReplicaLog(log=log)
    wake(writer, ok=True)
    wake(writer, ok=False)
    assert log.lines == [
        ("info", "woken", WAKE),
        ("warning", "a wake failed", {**WAKE, "why": "no device"}),
    ]


def test_every_park_is_one_line() -> None:
    log = KeptLog()
    writer = ReplicaLog(log=log)
    park = ParkEnded(
        replica=ReplicaId("bird-0"),
        at_us=3 * S,
        began_us=2 * S,
        to_tier=Tier.FROZEN,
        ok=True,
        image_bytes=7,
    )
    writer.write(park)
    assert log.lines == [
        (
            "info",
            "parked",
            {"replica": "bird-0", "tier": "frozen", "seconds": 1.0, "image_bytes": 7},
        )
    ]


def test_notes_of_trouble_are_warnings() -> None:
    log = KeptLog()
    writer = ReplicaLog(log=log)
    bird, one = ModelName("bird"), ReplicaId("bird-1")
    writer.write(Noted(at_us=1, kind="engine_lost", model=bird, replica=one, text="killed"))
    writer.write(Noted(at_us=1, kind="spend_within", text="the limit is not reached"))
    writer.write(Noted(at_us=1, kind="reloaded", text="nothing changed"))
    assert log.lines == [
        ("warning", "engine lost", {"model": "bird", "replica": "bird-1", "why": "killed"}),
        ("info", "spend within", {"why": "the limit is not reached"}),
        ("info", "reloaded", {"why": "nothing changed"}),
    ]
