"""`poorwill deploy unit`: what is in it, why, and that systemd takes it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from .server import write_fleet

WALLS = ("ProtectSystem", "PrivateTmp", "ProtectHome", "ProtectKernelTunables", "SystemCallFilter")


async def unit(poorwill: Poorwill, fleet: Path, *more: str) -> str:
    ran = await poorwill("deploy", "unit", "--fleet", str(fleet), *more)
    assert ran.status == 0, ran.err
    return ran.out


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and line[0] not in "#["]


async def test_the_unit_stops_poorwill_alone(poorwill: Poorwill, tmp_path: Path) -> None:
    lines = settings(await unit(poorwill, write_fleet(tmp_path)))
    assert "KillMode=process" in lines and "Delegate=yes" in lines
    assert "TimeoutStopSec=35" in lines  # exit_s = 20, and 15
    assert f"ExecStart=/usr/local/bin/poorwill serve {tmp_path}/fleet.toml" in lines
    assert "OOMPolicy=continue" in lines


async def test_freezing_fleet_has_no_mount_namespace(poorwill: Poorwill, tmp_path: Path) -> None:
    freezing = settings(
        await unit(poorwill, write_fleet(tmp_path, ladder='["frozen", "cold"]'), "--run-as", "bird")
    )
    cold = settings(await unit(poorwill, write_fleet(tmp_path), "--run-as", "bird"))
    assert not [line for line in freezing if line.startswith(WALLS)]
    assert "AmbientCapabilities=CAP_CHECKPOINT_RESTORE CAP_SETPCAP" in freezing
    assert "ProtectSystem=full" in cold and "CapabilityBoundingSet=" in cold
    assert "NoNewPrivileges=yes" in freezing and "NoNewPrivileges=yes" in cold


async def test_engine_users_need_a_root_unit(poorwill: Poorwill, tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    fleet.write_text(fleet.read_text() + '\n[defaults]\nengine_user = "bird"\n')
    assert "# Root, to start engines as bird:" in await unit(poorwill, fleet)
    for more in (("--run-as", "wren"), ("--user",)):
        ran = await poorwill("deploy", "unit", "--fleet", str(fleet), *more)
        assert ran.status == 2 and "only root can start engines as bird" in ran.err


async def test_user_unit_keeps_file_capabilities(poorwill: Poorwill, tmp_path: Path) -> None:
    text = await unit(poorwill, write_fleet(tmp_path, ladder='["frozen", "cold"]'), "--user")
    lines = settings(text)
    assert "ExecStart=%h/.local/bin/poorwill serve" in text
    assert "NoNewPrivileges=yes" not in lines and "setcap" in text
    assert lines[-1] == "WantedBy=default.target"


@pytest.mark.parametrize("ladder", ['["frozen", "cold"]', '["cold"]'])
@pytest.mark.parametrize("more", [(), ("--user",), ("--run-as", "root"), ("--run-as", "bird")])
async def test_systemd_knows_every_line(
    poorwill: Poorwill, tmp_path: Path, ladder: str, more: tuple[str, ...]
) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    text = await unit(poorwill, write_fleet(tmp_path, ladder=ladder), "--binary", "/bin/true", *more)
    assert verified(analyze, tmp_path, text) == ""
    assert "Unknown key" in verified(analyze, tmp_path, text.replace("KillMode=", "KillMood="))


def verified(analyze: str, directory: Path, text: str) -> str:
    """Return what systemd says of a unit; it checks the text and that the program exists."""
    path = directory / "poorwill.service"
    path.write_text(text)
    done = subprocess.run([analyze, "verify", path], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


async def test_the_unit_comes_as_json_too(poorwill: Poorwill, tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    assert json.loads(await unit(poorwill, fleet, "--json"))["unit"] == await unit(poorwill, fleet)


async def test_missing_fleet_and_odd_words(poorwill: Poorwill, tmp_path: Path) -> None:
    ran = await poorwill("deploy", "unit", "--fleet", str(tmp_path / "none.toml"))
    assert ran.status == 2 and "run it where the fleet is to be served" in ran.err
    fleet = str(write_fleet(tmp_path))
    ran = await poorwill(
        "deploy", "unit", "--fleet", fleet, "--binary", "/a b", "--run-as", "x\nExecStart=/bin/sh"
    )
    assert ran.status == 2 and "2 problems" in ran.err
    ran = await poorwill("deploy", "unit", "--fleet", fleet, "--user", "--run-as", "bird")
    assert ran.status == 2 and "--run-as goes with --system" in ran.err


async def test_a_host_has_a_unit_of_its_own(poorwill: Poorwill, tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    hosts = '\n[hosts]\nhead = "10.0.0.1:6379"\nrelays = { gpu-1 = "10.0.0.11:7443" }\n'
    fleet.write_text(fleet.read_text() + hosts)
    start = f"ExecStart=/usr/local/bin/poorwill host {{}} --key {tmp_path}/hosts.pem --directory {tmp_path}"
    host = settings(await unit(poorwill, fleet, "--host", "gpu-1"))
    assert start.format("--join 10.0.0.1:6379 --name gpu-1 --relay 10.0.0.11:7443") in host
    assert "KillMode=process" in host and not [line for line in host if line.startswith("ExecReload")]
    assert start.format("--head 10.0.0.1:6379") in await unit(poorwill, fleet, "--host", "head")
    ran = await poorwill("deploy", "unit", "--fleet", str(fleet), "--host", "gpu-2")
    assert ran.status == 2 and "no host of this fleet" in ran.err
