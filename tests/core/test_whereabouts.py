"""Where a replica is: what tells it from others and what is an orphan, on this machine and a rented one."""

from dataclasses import replace

import pytest

from poorwill.core.launch import Parked, Running
from poorwill.core.ports.driver import Found
from poorwill.core.words import ReplicaId, Tier
from poorwill.fleet.sweeps.judgement import Owned, compare

BIG, SMALL = ReplicaId("big-0"), ReplicaId("small-0")


def running(replica: ReplicaId = BIG, machine: str = "hyperstack 7", **changes: object) -> Running:
    known = Running(
        replica=replica,
        generation=3,
        host="203.0.113.7",
        port=8000,
        log_path="",
        driver="hibernated",
        machine=machine,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def parked(replica: ReplicaId = BIG, generation: int = 3, machine: str = "hyperstack 7") -> Parked:
    return Parked(replica=replica, generation=generation, tier=Tier.HIBERNATED, machine=machine)


def found(what: Running | Parked) -> Found:
    place = {"running": what} if isinstance(what, Running) else {"parked": what}
    tier = what.tier if isinstance(what, Parked) else None
    return Found(replica=what.replica, generation=0, tier=tier, what="it", **place)  # type: ignore[arg-type]


def test_a_machine_is_one_in_all_generations():
    assert running().key() != running(SMALL, "hyperstack 8").key()
    assert running().key() == running(generation=9).key()
    assert parked().key() == parked(generation=9).key()
    assert parked().key() != parked(machine="").key()


def test_an_image_is_of_one_generation():
    assert parked(machine="").key() != parked(generation=9, machine="").key()


@pytest.mark.parametrize(
    ("replica", "said"),
    [
        (running(), "hyperstack 7 at 203.0.113.7:8000"),
        (running(machine="", pid=12), "pid 12 on port 8000"),
        (parked(), "hyperstack 7"),
        (replace(parked(machine=""), path="/fleet/snapshots/1"), "/fleet/snapshots/1"),
    ],
)
def test_where_it_is_can_be_told(replica: Running | Parked, said: str):
    assert replica.where() == said


def test_a_rented_machine_is_read_back():
    assert Running.from_json(running().as_json()) == running()
    assert Parked.from_json(parked().as_json()) == parked()


def test_an_older_ledger_can_be_read():
    text = running(machine="", pid=12).as_json().replace(',"machine":""', "")
    assert "machine" not in text
    assert Running.from_json(text).where() == "pid 12 on port 8000"


def test_an_unowned_machine_is_an_orphan():
    sweep = compare([found(running())], [Owned(replica=BIG)])
    assert [each.replica for each in sweep.orphans] == [BIG]


def test_a_parked_machine_is_no_orphan():
    assert compare([found(parked())], [Owned(replica=BIG)]).orphans == ()
    assert compare([found(parked())], []).orphans == ()


def test_a_machine_that_stopped_is_missing():
    sweep = compare([found(parked())], [Owned(replica=BIG, running=running())])
    assert [each.replica for each in sweep.missing] == [BIG]


def test_a_machine_is_owned_over_generations():
    sweep = compare([found(parked(generation=0))], [Owned(replica=BIG, parked=parked())])
    assert (sweep.orphans, sweep.missing) == ((), ())
