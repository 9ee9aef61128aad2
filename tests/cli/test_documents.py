"""What README and docs/ show of the command line and of the house exists."""

import re
from pathlib import Path

import pytest

from poorwill.cli.parsing.command_tree import Command, command_tree
from poorwill.cli.parsing.verbs import VERBS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")], key=str)
CALL = re.compile(r"(?:(?<![/\w])poorwill|\./dev run) ([a-z]+)((?:[ =][^\s`|#]+|\\\n\s+)*)")
OPTION = re.compile(r"--[a-z][a-z-]*")


@pytest.fixture(scope="module")
def verbs() -> dict[str, Command]:
    return {command.path[0]: command for command in command_tree().below}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_and_option_that_a_page_shows_exists(page: Path, verbs: dict[str, Command]) -> None:
    wrong = []
    for shown in re.findall(r"`[^`\n]+`|^(?:    |\$ |\./dev).*(?:\\\n.*)*", page.read_text(), re.M):
        for verb, rest in CALL.findall(shown):
            if verb not in VERBS:
                wrong.append(f"{verb} is no verb: {shown}")
                continue
            known = {name for below in verbs[verb].walk() for o in below.options for name in o.names}
            wrong += [f"{verb} has no {o}: {shown}" for o in OPTION.findall(rest) if o not in known]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_or_names_exists(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    named = re.findall(r"`((?:bench|src|tests)/[\w./-]+\.\w+)`", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing
