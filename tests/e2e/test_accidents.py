"""What happens to one request when the image it would be served from fails, through a real `serve` with CRIU.

It is served all the same, started cold under the deadline it had; the ledger says what failed, and nothing of
the failure is left.
"""

import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from .program import Program, assert_tiles, marked_processes, notes, spans, wakes, write_fleet

LADDER = '["frozen", "cold"]'


@pytest.fixture
def program(fleet: Path):
    # On a busy machine a failure takes longer than the usual 0.1 s, and the status is to be seen.
    options = "load_seconds = 0.05, rss_mb = 200"
    write_fleet(fleet, ladder=LADDER, options=options, commit_after_s=30)
    program = Program.start(fleet)
    if "frozen" not in program.status()["ladder"]:
        program.stop()
        pytest.skip("frozen does not work here")
    yield program
    if program.child.poll() is None:
        program.stop()


def image(fleet: Path) -> Path:
    (found,) = (fleet / "snapshots" / "frozen").glob("*/[0-9]*")
    return found


def flipped(fleet: Path) -> None:
    pages = image(fleet) / "image" / "pages-1.img"
    with pages.open("r+b") as file:
        file.seek(pages.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def truncated(fleet: Path) -> None:
    pages = image(fleet) / "image" / "pages-1.img"
    os.truncate(pages, pages.stat().st_size // 2)


def without_manifest(fleet: Path) -> None:
    (image(fleet) / "manifest.json").unlink()


def gone(fleet: Path) -> None:
    shutil.rmtree(image(fleet))


def frozen_at_rest(program: Program) -> str:
    text = program.ask().json()["choices"][0]["message"]["content"]
    assert program.operator("park").json()["tier"] == "frozen"
    assert marked_processes(program.directory) == []
    return text


def served_cold_after_all(program: Program, text: str, ask: Callable[[], str]) -> None:
    assert ask() == text
    (pid,) = marked_processes(program.directory)
    assert program.stop() == 0
    fleet = program.directory
    assert not Path(f"/proc/{pid}").exists()
    causes = [cause for cause, _, _ in spans(fleet)]
    assert causes[causes.index("parked.frozen") :][1] == "failed_wake"
    assert wakes(fleet) == [("cold", 1), ("frozen", 0), ("cold", 1)]
    assert list((fleet / "snapshots" / "frozen").glob("*/.*")) == []
    assert_tiles(fleet)


@pytest.mark.parametrize("accident", [flipped, truncated, without_manifest, gone])
def test_damaged_image_costs_no_request(program: Program, accident: Callable[[Path], None]) -> None:
    text = frozen_at_rest(program)
    accident(program.directory)
    served_cold_after_all(program, text, lambda: program.ask().json()["choices"][0]["message"]["content"])


def test_killed_criu_costs_no_request(
    program: Program,
) -> None:
    text = frozen_at_rest(program)
    over, killed = threading.Event(), []

    def kill() -> None:
        while not (over.is_set() or killed):
            for pid in restorers(program.directory):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()

    def ask() -> str:
        try:
            return str(program.ask().json()["choices"][0]["message"]["content"])
        finally:
            over.set()
            killer.join()

    served_cold_after_all(program, text, ask)
    assert killed, "criu was never seen"


def restorers(fleet: Path) -> list[int]:
    """The pids of criu at work on an image of the fleet."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"restore" in words and any(bytes(fleet) in word for word in words):
                found.append(int(entry.name))
    return found


def test_a_taken_port_costs_no_answer(program: Program) -> None:
    text = frozen_at_rest(program)
    port = int((program.directory / "ports" / "toy-0").read_text())
    with socket.create_server(("127.0.0.1", port)):
        assert program.ask().json()["choices"][0]["message"]["content"] == text
        assert program.operator("park").status_code == 200


def test_removed_image_is_noticed_at_once(fleet: Path) -> None:
    """Eviction by a park of another model: noticed at once, so that the next wake is cold and none fails."""
    write_fleet(fleet, ladder=LADDER)
    with (fleet / "fleet.toml").open("a") as file:
        file.write(f'\n[models.other]\nengine = "toy"\nladder = {LADDER}\n')
    program = Program.start(fleet)
    try:
        if "frozen" not in program.status()["ladder"]:
            pytest.skip("frozen does not work here")
        frozen_at_rest(program)
        gone(fleet)
        assert program.operator("wake", "other").status_code == 200
        assert program.operator("park", "other").json()["tier"] == "frozen"
        status = program.status()
        assert (status["state"], status["tier"]) == ("parked", "cold")
        assert program.ask().status_code == 200
    finally:
        assert program.stop() == 0
    assert ("frozen", 0) not in wakes(fleet)
    assert [kind for kind, _ in notes(fleet)].count("image_lost") == 1
