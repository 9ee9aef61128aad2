"""Prompts are kept only of the models that say so, only until they say, and only so many."""

from dataclasses import replace

import pytest
from tests.ledger.story import START, HandClock

from poorwill.config import load_fleet
from poorwill.core.errors import RequestFault
from poorwill.core.settings import FleetSettings
from poorwill.telemetry.dashboard.captures import MOST_BYTES, MOST_PROMPTS, Captures

FLEET = """
[models.shown]
engine = "toy"
capture_until = 2027-01-15T09:00:00Z

[models.private]
engine = "toy"

[models.past]
engine = "toy"
capture_until = 2027-01-15T07:00:00Z
"""
HOUR_US = 3_600_000_000


class Fleet:
    def __init__(self, settings: FleetSettings) -> None:
        self.settings = settings
        self.clock = HandClock()
        self.captures = Captures(settings=lambda: self.settings, clock=self.clock)


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    (tmp_path / "fleet.toml").write_text(FLEET)
    return Fleet(load_fleet(str(tmp_path / "fleet.toml"), {}))


async def test_only_who_says_so_is_captured(fleet: Fleet) -> None:
    for model in ("shown", "private", "past", "unknown"):
        fleet.captures.take(model, f"of-{model}", b'{"prompt": "secret"}')
    found = fleet.captures.prompt("of-shown")
    assert (found.model, found.text, found.at_us) == ("shown", '{"prompt": "secret"}', START)
    for model in ("private", "past", "unknown"):
        with pytest.raises(RequestFault, match="is not kept"):
            fleet.captures.prompt(f"of-{model}")
    [now] = fleet.captures.now()
    assert (now.model, now.prompts, now.until_us, now.since_us) == ("shown", 1, START + HOUR_US, START)


async def test_it_ends_by_itself(fleet: Fleet) -> None:
    fleet.captures.take("shown", "first", b"text")
    fleet.clock.at_us += HOUR_US - 1
    assert fleet.captures.prompt("first").text == "text"
    fleet.clock.at_us += 1
    fleet.captures.take("shown", "second", b"text")
    for request in ("first", "second"):
        with pytest.raises(RequestFault):
            fleet.captures.prompt(request)
    assert fleet.captures.now() == []


async def test_a_reload_forgets(fleet: Fleet) -> None:
    fleet.captures.take("shown", "first", b"text")
    before = fleet.settings
    models = tuple(replace(model, capture_until_us=None) for model in before.models)
    fleet.settings = replace(before, models=models)
    fleet.captures.take("shown", "second", b"text")
    assert fleet.captures.now() == []
    fleet.settings = before
    with pytest.raises(RequestFault):
        fleet.captures.prompt("first")


async def test_memory_is_bounded(fleet: Fleet) -> None:
    for number in range(MOST_PROMPTS + 1):
        fleet.captures.take("shown", f"r{number}", b"x" * (MOST_BYTES + 1))
    [now] = fleet.captures.now()
    assert now.prompts == MOST_PROMPTS
    with pytest.raises(RequestFault):
        fleet.captures.prompt("r0")
    found = fleet.captures.prompt("r1")
    assert (len(found.text), found.size_bytes) == (MOST_BYTES, MOST_BYTES + 1)
