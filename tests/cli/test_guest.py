"""`poorwill guest`: what it says where there is no guest yet. Building one is tested with the drivers."""

import json
from pathlib import Path

import pytest
from tests.conftest import Poorwill

FLEET = """
[models.bird]
engine = "toy"
[models.fish]
engine = "toy"
"""


@pytest.fixture
def fleet_file(tmp_path: Path) -> str:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    return str(path)


async def test_without_guests_the_list_is_empty(poorwill: Poorwill, fleet_file: str):
    ran = await poorwill("guest", "list", "--fleet", fleet_file)
    assert (ran.status, ran.out) == (0, "execution: no guest to try it with\n")
    ran = await poorwill("guest", "list", "--fleet", fleet_file, "--json")
    assert json.loads(ran.out) == {"guests": {}, "execution": "no guest to try it with"}


@pytest.mark.parametrize("words", [(), ("cat",)])
async def test_a_guest_is_of_a_known_model(poorwill: Poorwill, fleet_file: str, words: tuple[str, ...]):
    ran = await poorwill("guest", "build", *words, "--fleet", fleet_file)
    assert ran.status == 2
    assert "bird, fish" in ran.err


async def test_listing_takes_no_model(poorwill: Poorwill, fleet_file: str):
    ran = await poorwill("guest", "list", "bird", "--fleet", fleet_file)
    assert ran.status == 2 and "unrecognized arguments: bird" in ran.err
