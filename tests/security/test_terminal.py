"""Text of others never steers the operator's terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.format import printable

TITLE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u200f"


def shown(*args: str, cwd: Path) -> str:
    """Return what a verb writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "poorwill", *args], cwd=cwd, stdout=theirs, stderr=theirs):
        os.close(theirs)
        parts = []
        while True:
            try:
                parts.append(os.read(ours, 65_536))
            except OSError:  # EIO: the other end is closed
                break
    os.close(ours)
    return b"".join(parts).decode()


def bad_toml(path: Path) -> tuple[str, ...]:
    escaped = "".join(f"\\u{ord(c):04x}" for c in TITLE)
    (path / "fleet.toml").write_text(
        f'"x{escaped}" = 1\n[models."a{escaped}"]\nengine = "{escaped}"\n"k{escaped}" = 2\n'
        f'[models.b]\npath = "/nope{escaped}.gguf"\n[models.c]\nengine = "command"\n'
        f'command = ["no{escaped}", "{{port}}"]\n'
    )
    return ("check", ".")


def bad_trace(path: Path) -> tuple[str, ...]:
    rows = "".join(f"{at * 100},m{TITLE}\n" for at in range(40))
    (path / "t.csv").write_text(f"arrival_s,model\n{rows}x{TITLE},m\n")
    return ("plan", "--trace", "t.csv", "--active-usd-h", "3")


def bad_header(path: Path) -> tuple[str, ...]:
    (path / "t.csv").write_text(f"TIME{TITLE}\n1\n")
    return ("plan", "--trace", "t.csv", "--active-usd-h", "3")


def bad_file_name(path: Path) -> tuple[str, ...]:
    return ("plan", "--trace", f"no{TITLE}", "--active-usd-h", "3")


@pytest.mark.parametrize("make", [bad_toml, bad_trace, bad_header, bad_file_name])
def test_no_escape_reaches_the_terminal(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    text = shown(*make(tmp_path), cwd=tmp_path)
    progress = text.replace("\r\x1b[K", "")
    assert progress and "owned" in progress
    assert not set(progress) & set(TITLE) - set("]0;owned[2J31m")


@given(text=st.text())
def test_printable_text_has_no_controls(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in printable(text))
    assert printable(printable(text)) == printable(text)


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("naïve — 日本語 ✓", "a\tb\nc", "C:\\x1b"):
        assert printable(text) == text
