"""What the demo is for: a replica parked by snapshot and woken, which gains by it."""

import json
import os
from pathlib import Path

import pytest
from tests.conftest import Poorwill


async def test_the_shortest_demo_shows_a_wake(poorwill: Poorwill, tmp_path: Path) -> None:
    line = ("demo", "--seconds", "5", "--json", "--dir", str(tmp_path / "demo"))
    ran = await poorwill(*line, PATH=os.defpath, HOME=str(Path.home()))
    assert ran.status == 0, ran.err
    said = json.loads(ran.out)
    tiers = [wake["from_tier"] for wake in said["wakes"]]
    assert tiers[0] == "cold"
    parks_on_disk = not said["fallbacks"]
    assert len(tiers) > 1 or not parks_on_disk
    assert not parks_on_disk or "frozen" in tiers
    tier = "frozen" if parks_on_disk else "cold"
    names = [f"demo, parked {tier}", "demo-cold, parked cold", "run continuously"]
    assert [way["name"] for way in said["ways"]] == names


@pytest.mark.nightly
async def test_the_demo_gains_by_freezing(poorwill: Poorwill, tmp_path: Path) -> None:
    ran = await poorwill(
        "demo", "--json", "--dir", str(tmp_path / "demo"), PATH=os.defpath, HOME=str(Path.home())
    )
    assert ran.status == 0, ran.err
    said = json.loads(ran.out)
    if said["fallbacks"]:
        pytest.skip(said["fallbacks"][0])
    frozen, cold, always = said["ways"]
    assert frozen["cost_nusd"] < cold["cost_nusd"] < always["cost_nusd"]
    assert frozen["mean_first_token_us"] < cold["mean_first_token_us"]
