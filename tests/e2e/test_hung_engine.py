"""An engine that is there and answers nobody is found by its requests, ended and started anew."""

import os
import signal
from pathlib import Path

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
