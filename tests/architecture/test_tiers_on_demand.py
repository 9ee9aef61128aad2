"""A fleet imports only the tiers that its ladders name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMPOSE = """
import asyncio, json, sys
from poorwill.compose.serving import serving_fleet
from poorwill.core.settings import *
from poorwill.core.words import Tier

class Silent:
    def debug(self, *_, **__): ...
    info = warning = error = debug

async def main(directory, *ladder):
    tiers = tuple(map(Tier, ladder))
    cloud = CloudSettings(
        provider="scaleway", machine="z/1", engine=EngineUrl("127.0.0.1", 1), key_env="KEY",
        api="http://127.0.0.1:1",
    )
    model = ModelSettings(
        name="tiny",
        engine=EngineSettings(kind="toy"),
        replica=ReplicaSettings(model="tiny", park=ParkSettings(ladder=tiers)),
        cloud=cloud if Tier.HIBERNATED in tiers else None,
    )
    gateway = GatewaySettings(listen=Address("127.0.0.1", 0), admin=Address("127.0.0.1", 0))
    settings = FleetSettings(directory=directory, models=(model,), gateway=gateway, exit_us=1_000_000)
    async with serving_fleet(settings, env={"KEY": "secret", "PATH": ""}, log=Silent()):
        print(json.dumps([*sys.modules]))

asyncio.run(main(*sys.argv[1:]))
"""

ONLY_FOR = {
    "asleep": ("poorwill.tiers.asleep",),
    "frozen": ("poorwill.tiers.frozen",),
    "suspended": (
        "poorwill.tiers.suspended",
        "poorwill.hosts.guests",
        "poorwill.compose.drivers.virtual_machines",
    ),
    "hibernated": ("poorwill.remote.clouds", "poorwill.compose.drivers.rented"),
}


def imported(directory: Path, ladder: list[str]) -> list[str]:
    """Serve a fleet of one model in a process of its own; return the modules it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", COMPOSE, str(directory), *ladder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout)
    return names


@pytest.mark.parametrize("tier", ["", *ONLY_FOR])
def test_only_named_tiers_are_imported(tmp_path: Path, tier: str) -> None:
    names = imported(tmp_path, [tier, "cold"] if tier else ["cold"])
    assert not {"boto3", "botocore", "google.cloud"} & {*names}, "an SDK that no model's cloud has"
    assert "poorwill.tiers.cold.driver" in names
    away = ("poorwill.remote.ray", "poorwill.compose.drivers.on_hosts", "poorwill.compose.drivers.hosting")
    assert not [name for name in names if name.startswith(away)], "the fleet names no hosts"
    for each, packages in ONLY_FOR.items():
        loaded = [name for name in names if name.startswith(packages)]
        assert bool(loaded) is (each == tier), (each, loaded)
