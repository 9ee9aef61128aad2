"""The documentation: no link leads nowhere, and the site's contents name every page."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]+)?\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give to a page's headings."""
    headings = HEADING.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.S))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not anchor or anchor[1:] in anchors(place), f"{target}{anchor}"


def test_the_contents_name_every_page() -> None:
    contents = (ROOT / "docs" / "contents.rst").read_text().split()
    assert [page.stem for page in PAGES if page.parent.name == "docs" and page.stem not in contents] == []


@pytest.mark.nightly
def test_the_site_is_made_without_a_warning() -> None:
    done = subprocess.run([ROOT / "dev", "site"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "poorwill" in (ROOT / "dist" / "site" / "index.html").read_text()
