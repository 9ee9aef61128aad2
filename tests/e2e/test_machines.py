"""A fleet whose model runs in a virtual machine: built, served, suspended, killed and adopted.

Nightly: the machine is emulated. Needs QEMU and apt.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest

from .program import Program, assert_tiles, marked_processes, spans, wakes, write_fleet

LADDER = '["suspended", "cold"]'
KILLS = 12

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        not (shutil.which("qemu-system-x86_64") and shutil.which("apt-get")),
        reason="needs qemu-system-x86_64 and apt-get",
    ),
]


@pytest.fixture
def machines(fleet: Path) -> Path:
    """A fleet whose one model has a guest with a golden image."""
    write_fleet(fleet, ladder=LADDER, budget_s=120, cap_s=180, options="")
    words = ["guest", "build", "toy", "--golden", "--fleet", str(fleet), "--memory", "224"]
    subprocess.run([sys.executable, "-m", "poorwill", *words], check=True, timeout=300, capture_output=True)
    return fleet


def test_suspends_and_adopts_after_a_kill(machines: Path) -> None:
    program = Program.start(machines)
    text = program.ask(timeout=150).json()["choices"][0]["message"]["content"]
    assert program.operator("park").status_code == 200
    assert program.status()["tier"] == "suspended"
    assert marked_processes(machines) == []
    assert program.ask(timeout=150).json()["choices"][0]["message"]["content"] == text
    (pid,) = marked_processes(machines)
    program.kill()
    assert marked_processes(machines) == [pid]
    program = Program.start(machines)
    assert program.ask(timeout=150).json()["choices"][0]["message"]["content"] == text
    assert marked_processes(machines) == [pid]
    assert program.stop() == 0
    assert marked_processes(machines) == []
    assert spans(machines)[-1][0] == "parked.suspended"
    assert_tiles(machines)


def test_killed_restore_boots_for_the_request(
    machines: Path,
) -> None:
    program = Program.start(machines)
    text = program.ask(timeout=150).json()["choices"][0]["message"]["content"]
    assert program.operator("park").status_code == 200
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for pid in marked_processes(machines):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    answer = program.ask(timeout=150)
    killer.join()
    assert answer.status_code == 200 and answer.elapsed.total_seconds() < 120, "the one budget"
    assert answer.json()["choices"][0]["message"]["content"] == text
    assert len(marked_processes(machines)) == 1 and marked_processes(machines) != killed
    assert program.stop() == 0
    assert marked_processes(machines) == []
    causes = [cause for cause, _, _ in spans(machines)]
    assert "failed_wake" in causes[causes.index("parked.suspended") :]
    assert wakes(machines)[-2:] == [("suspended", 0), ("cold", 1)]
    assert list((machines / "runs").iterdir()) == []
    assert_tiles(machines)


def test_killed_at_any_moment_with_a_guest(
    machines: Path,
) -> None:
    chance = random.Random(20261124)
    write_fleet(machines, ladder=LADDER, idle_s=0.2, budget_s=120, cap_s=180, options="")
    for _ in range(KILLS):
        program = Program.start(machines)
        over = threading.Event()
        asking = threading.Thread(target=_ask_until_gone, args=(program, over))
        asking.start()
        over.wait(chance.uniform(0, 5))
        program.kill()
        over.set()
        asking.join()
        assert len(marked_processes(machines)) <= 1
        assert_tiles(machines)
    program = Program.start(machines)
    assert program.ask(timeout=150).status_code == 200
    assert program.stop() == 0
    assert marked_processes(machines) == []
    assert list((machines / "runs").iterdir()) == []
    assert len(list((machines / "snapshots" / "suspended").glob("*/[0-9]*"))) == 1
    assert list((machines / "snapshots" / "suspended").glob("*/.*")) == []


def _ask_until_gone(program: Program, over: threading.Event) -> None:
    while not over.is_set():
        try:
            program.ask(timeout=20)
        except httpx2.HTTPError:
            return
        over.wait(0.4)  # long enough to be parked now and then
