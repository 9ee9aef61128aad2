"""A short demo still shows what it is for: a replica parked by snapshot, and woken."""

import json
import os
from pathlib import Path

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
