"""README and docs/ show verbs, options and files that exist."""

import re
from pathlib import Path

import pytest

from poorwill.cli.parsing.options import declared
from poorwill.cli.parsing.verbs import VERBS, every_verb

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")], key=str)
CALL = re.compile(r"(?:(?<![/\w'])poorwill|\./dev run) ([a-z]+)((?:[ =][^\s`|#]+|\\\n\s+)*)")
OPTION = re.compile(r"--[a-z][a-z-]*")


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    known = {name: {"--help"} for name in VERBS}
    for (name, *_), verb in every_verb():
        known[name] |= {one.flag for one in declared(verb.options)}
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_real_verbs_and_options(page: Path, options: dict[str, set[str]]) -> None:
    wrong = []
    for shown in re.findall(r"`[^`\n]+`|^(?:    |\$ |\./dev).*(?:\\\n.*)*", page.read_text(), re.M):
        for verb, rest in CALL.findall(shown):
            if verb not in VERBS:
                wrong.append(f"{verb} is no verb: {shown}")
                continue
            wrong += [f"{verb} has no {o}: {shown}" for o in OPTION.findall(rest) if o not in options[verb]]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    named = re.findall(r"`((?:bench|src|tests)/[\w./-]+\.\w+)`", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing
