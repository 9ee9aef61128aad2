"""docs/cli.md and docs/errors.md are what the program says."""

import importlib.util
import sys
from pathlib import Path

import pytest

from poorwill.core.errors import ErrorCode

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse wraps help otherwise in later Pythons")
@pytest.mark.parametrize("name", ["cli.md", "errors.md"])
def test_the_page_is_what_the_program_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1")  # the script sets its own, and this undoes it
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (DOCS / name).read_text() == made.PAGES[name](), "python docs/make_reference.py"


def test_every_code_is_explained() -> None:
    page = (DOCS / "errors.md").read_text()
    assert [code for code in ErrorCode if f"| `{code}` |" not in page] == []
