"""The end of an engine's log, as an operator reads it in an error."""

import os
from pathlib import Path

from poorwill.hosts.processes.engine_log import TAIL_LINES, mark_start, open_log, tail


def test_the_tail_has_the_last_lines_without_the_marks_of_phases(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "poorwill-engine imports boot_us=12\n\nloading the model\npoorwill-engine weights boot_us=13\n"
        "error: the file is\tdamaged\n"
    )
    assert tail(str(log)) == "loading the model | error: the file is damaged"


def test_marks_take_no_place_from_what_people_read(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    marks = "poorwill-engine ready boot_us=1\n" * TAIL_LINES
    log.write_text("why it ended\n" + marks)
    assert tail(str(log)) == "why it ended"


def test_what_an_earlier_start_wrote_does_not_explain_the_latest_one(tmp_path: Path) -> None:
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


def test_a_log_of_nothing_but_marks_or_no_log_has_no_tail(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("poorwill-engine spawn boot_us=1\n")
    assert tail(str(tmp_path / "engine.log")) == tail(str(tmp_path / "none.log")) == ""
