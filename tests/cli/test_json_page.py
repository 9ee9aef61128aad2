"""docs/json.md and the documents of `--json`: one spelling of units."""

import importlib.util
import re
from pathlib import Path

import msgspec

from poorwill.cli.parsing.options import declared
from poorwill.cli.parsing.verbs import every_verb

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
FIELD = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.M)
OTHER_UNITS = re.compile(
    r"seconds|minutes|hours$|_ms$|_usd|dollars|_gb$|_mb$|_kb$|micros|cents|duration|^bytes_(?!per)"
)


def test_the_page_is_what_the_program_prints() -> None:
    spec = importlib.util.spec_from_file_location("make_json_page", PAGE.with_name("make_json_page.py"))
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert PAGE.read_text() == made.page(), "python docs/make_json_page.py"


def test_units_have_one_spelling() -> None:
    fields = FIELD.findall(PAGE.read_text())
    assert len(fields) > 200
    assert [name for name, _ in fields if OTHER_UNITS.search(name)] == []
    whole = [name for name, kind in fields if name.endswith(("_us", "_nusd", "_bytes")) and "number" in kind]
    assert len(whole) > 60


def test_every_json_verb_has_its_document() -> None:
    for path, verb in every_verb():
        has_json = "--json" in {one.flag for one in declared(verb.options)}
        assert has_json == bool(verb.prints), path
        assert all(issubclass(kind, msgspec.Struct) for kind in verb.prints)
