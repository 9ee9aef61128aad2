"""What the ledger keeps of a replica's place survives a restart, or is refused."""

import msgspec
import pytest

from poorwill.core.launch import Parked, Running
from poorwill.core.words import ReplicaId, Tier

RUNNING = Running(
    replica=ReplicaId("m-0"),
    generation=3,
    pid=77,
    pid_started=123456,
    host="127.0.0.1",
    port=9000,
    log_path="/logs/m-0.log",
    driver="cold",
    extra={"qmp": "/run/qmp"},
)
PARKED = Parked(
    replica=ReplicaId("m-0"),
    generation=4,
    tier=Tier.FROZEN,
    path="/snapshots/m-0.4",
    image_bytes=12,
    probe="42",
)


def test_a_running_replica_is_read_as_it_was_written():
    assert Running.from_json(RUNNING.as_json()) == RUNNING


@pytest.mark.parametrize("running", [None, RUNNING])
def test_a_parked_replica_is_read_as_it_was_written(running):
    parked = Parked(replica=ReplicaId("m-0"), generation=4, tier=Tier.ASLEEP, running=running)
    assert Parked.from_json(parked.as_json()) == parked
    assert Parked.from_json(PARKED.as_json()) == PARKED


@pytest.mark.parametrize("text", ["", "7", "{}", '{"tier": "lukewarm"}', '{"pid": 1}'])
def test_anything_else_is_refused(text: str):
    for kind in (Running, Parked):
        with pytest.raises(msgspec.DecodeError):
            kind.from_json(text)
