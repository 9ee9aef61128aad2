"""kill -9 of poorwill at random moments: whatever it was doing, the next one makes sense of it."""

import random
import threading
from pathlib import Path

import httpx2
import pytest
from tests.waiting import wait_until

from .program import Program, assert_tiles, marked_processes, spans, write_fleet

FEW, MANY = 20, 50


def _pester(program: Program, over: threading.Event) -> None:
    """Keep asking until the server is gone or the test is over, so that something is always under way."""
    while not over.is_set():
        try:
            program.ask(timeout=20)
        except httpx2.HTTPError:
            return


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("ladder", ['["frozen", "cold"]'])
def test_killed_at_any_moment_nothing_leaks(fleet: Path, ladder: str, kills: int) -> None:
    chance = random.Random(20261124)
    write_fleet(fleet, ladder=ladder, idle_s=0.05, options="load_seconds = 0.02")
    seen: set[str] = set()
    for _ in range(kills):
        program = Program.start(fleet)
        over = threading.Event()
        clients = [threading.Thread(target=_pester, args=(program, over)) for _ in range(2)]
        for client in clients:
            client.start()
        # The moment of the kill: anywhere in the first cycles of wake, serve, linger and park.
        over.wait(chance.uniform(0, chance.choice((0.05, 0.2, 0.6))))
        program.kill()
        over.set()
        for client in clients:
            client.join()
        rows = spans(fleet)
        seen.add(rows[-1][0])
        assert len(marked_processes(fleet)) <= 1
        assert_tiles(fleet)
    program = Program.start(fleet)
    assert program.ask().status_code == 200
    assert len(marked_processes(fleet)) == 1
    assert program.stop() == 0
    assert marked_processes(fleet) == []
    assert_tiles(fleet)
    causes = {cause for cause, _, _ in spans(fleet)}
    assert "unobserved" in causes
    assert len(seen) >= 2, f"the kills only hit {seen}"


def test_gap_before_adoption_is_unobserved(fleet: Path) -> None:
    write_fleet(fleet)
    first = Program.start(fleet)
    assert first.ask().status_code == 200
    (pid,) = marked_processes(fleet)
    wait_until(lambda: "linger" in [cause for cause, _, _ in spans(fleet)])  # written within 1 s
    first.kill()
    second = Program.start(fleet)
    try:
        status = second.status()
        assert (status["state"], status["pid"]) == ("ready", pid)
        assert second.ask().status_code == 200
        assert marked_processes(fleet) == [pid]
    finally:
        assert second.stop() == 0
    assert [cause for cause, _, _ in spans(fleet)].count("unobserved") == 1


def test_dead_engine_is_not_billed_as_ready(fleet: Path) -> None:
    write_fleet(fleet)
    first = Program.start(fleet)
    assert first.ask().status_code == 200
    (pid,) = marked_processes(fleet)
    first.kill()
    Program.kill_group(pid)
    second = Program.start(fleet)
    try:
        assert second.status()["state"] == "parked"
        assert [cause for cause, _, _ in spans(fleet)][-2:] == ["unobserved", "parked.cold"]
        assert second.ask().status_code == 200
    finally:
        assert second.stop() == 0
