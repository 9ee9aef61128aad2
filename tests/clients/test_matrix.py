"""What each client shows of wakes and failures is what docs/clients.md says."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from .known import CLIENTS
from .stage import COLUMNS, watched

SEEN = Path(__file__).parent / "seen.json"
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- seen: begin -->\n", "<!-- seen: end -->"

Seen = Mapping[str, Mapping[str, Mapping[str, str]]]


def recorded() -> Seen:
    value: Seen = json.loads(SEEN.read_text())
    return value


def table(seen: Seen) -> str:
    head = ["client", "asks for", *COLUMNS]
    rows = [
        [f"{name}", request, *(cells[column] for column in COLUMNS)]
        for name, requests in seen.items()
        for request, cells in requests.items()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def test_the_page_has_what_was_seen() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == table(recorded())


def test_every_client_was_seen() -> None:
    assert list(recorded()) == list(CLIENTS)
    assert all(tuple(recorded()[name]) == client.requests for name, client in CLIENTS.items())


@pytest.mark.nightly
@pytest.mark.xdist_group("clients")
@pytest.mark.parametrize("name", CLIENTS)
async def test_clients_show_what_the_page_says(name: str, tmp_path: Path) -> None:
    seen = await watched(CLIENTS[name], tmp_path)
    assert seen == recorded()[name]
