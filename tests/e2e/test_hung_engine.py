"""An engine that is there and answers nobody is found by its requests, ended and started anew."""

import os
import signal
from pathlib import Path

import pytest
from tests.waiting import wait_until

from .program import Program, marked_processes, notes, write_fleet


def test_hung_engine_is_replaced(fleet: Path) -> None:
    write_fleet(fleet)
    toml = fleet / "fleet.toml"
    toml.write_text(toml.read_text().replace("[gateway]", "[gateway]\nupstream_timeout_s = 1"))
    program = Program.start(fleet)
    try:
        assert program.ask().status_code == 200
        (pid,) = marked_processes(fleet)
        os.kill(pid, signal.SIGSTOP)
        for _ in range(2):
            assert program.ask().status_code == 504
        os.kill(pid, signal.SIGCONT)  # slow, not hung: an answer forgives what was before
        assert program.ask().status_code == 200
        os.kill(pid, signal.SIGSTOP)
        while marked_processes(fleet) == [pid]:
            assert program.ask().status_code in (502, 503, 504)
        status = program.status()
        while (answer := program.ask()).status_code != 200:  # as the wake's back-off has it
            assert answer.status_code in (502, 503)
        assert marked_processes(fleet) != [pid]
        assert status["failures"] == 1 and "the engine hangs" in status["last_error"]
    finally:
        assert program.stop() == 0
    assert [kind for kind, _ in notes(fleet)].count("engine_hung") == 1


def test_long_prompt_is_no_hang(fleet: Path) -> None:
    """Its requests time out one after another, and its probe waits; but its counters move."""
    write_fleet(fleet, options="prefill_seconds = 4, slots = 1")
    toml = fleet / "fleet.toml"
    toml.write_text(toml.read_text().replace("[gateway]", "[gateway]\nupstream_timeout_s = 0.5"))
    program = Program.start(fleet)
    try:
        program.operator("wake")
        (pid,) = marked_processes(fleet)
        while "examined and is left alone" not in (fleet / "serve.log").read_text():
            assert program.ask().status_code == 504
        assert marked_processes(fleet) == [pid]
    finally:
        program.stop()


@pytest.mark.nightly
@pytest.mark.parametrize(
    "options", ["load_seconds = 0.05", "hang_after_requests = 2", "spin_after_requests = 2"]
)
def test_hang_is_found_before_a_request_times_out(fleet: Path, options: str) -> None:
    """With the default `upstream_timeout_s`, 600: stopped, healthy but for its answers, spinning."""
    program = Program.start(write_fleet(fleet, options=options))
    try:
        assert program.ask().status_code == 200  # the warm-up was the first request
        (pid,) = marked_processes(fleet)
        if "after" not in options:
            os.kill(pid, signal.SIGSTOP)
        assert program.ask(timeout=150).status_code == 503
        wait_until(lambda: marked_processes(fleet) != [pid])  # a spinning engine hears no SIGTERM
        assert "the engine hangs" in program.status()["last_error"]
    finally:
        program.stop()
