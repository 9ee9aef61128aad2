"""The end of an engine's log, as an operator reads it in an error."""

import os
from pathlib import Path

from poorwill.hosts.processes.engine_log import TAIL_LINES, mark_start, open_log, tail


def test_the_tail_has_no_phase_marks(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "poorwill-engine imports boot_us=12\n\nloading the model\npoorwill-engine weights boot_us=13\n"
        "error: the file is\tdamaged\n"
    )
    assert tail(str(log)) == "loading the model | error: the file is damaged"


def test_marks_do_not_count_as_lines(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    marks = "poorwill-engine ready boot_us=1\n" * TAIL_LINES
    log.write_text("why it ended\n" + marks)
    assert tail(str(log)) == "why it ended"


def test_the_tail_is_of_the_latest_start(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    for said in ("out of memory\n", "out of disk, and no line end"):
        descriptor = open_log(str(log))
        mark_start(descriptor, "m-0")
        os.write(descriptor, said.encode())
        os.close(descriptor)
    assert tail(str(log)) == "out of disk, and no line end"
    descriptor = open_log(str(log))
    mark_start(descriptor, "m-0")
    os.close(descriptor)
    assert tail(str(log)) == "", "the third start has said nothing"


def test_an_empty_log_has_no_tail(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("poorwill-engine spawn boot_us=1\n")
    assert tail(str(tmp_path / "engine.log")) == tail(str(tmp_path / "none.log")) == ""
