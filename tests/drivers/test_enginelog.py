"""The end of an engine's log, as an operator reads it in an error."""

from pathlib import Path

from poorwill.drivers.enginelog import TAIL_LINES, tail


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


def test_a_log_of_nothing_but_marks_or_no_log_has_no_tail(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("poorwill-engine spawn boot_us=1\n")
    assert tail(str(tmp_path / "engine.log")) == tail(str(tmp_path / "none.log")) == ""
