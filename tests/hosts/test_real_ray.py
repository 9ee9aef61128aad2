"""Hosts through Ray itself: a cluster of three nodes on this machine, and what a fleet does on it."""

# The test run is its own edge.
# ruff: noqa: TID251

import os
import signal
from pathlib import Path

import httpx2
import pytest
from tests.conftest import Poorwill

from .room import a_room, slowly


def test_a_fleet_serves_from_hosts_of_a_real_cluster(tmp_path: Path) -> None:
    with a_room(tmp_path, "a", "b", "c") as room:
        program = room.start_serve()
        assert program.ask().status_code == 200
        host = room.where()
        (engine,) = room.engines(host)
        os.kill(engine, 0)
        # The actor that carries calls dies; the engine and its requests do not notice, and Ray makes another.
        (carrier,) = room.of_ray(host, "ray::Carrier")
        os.kill(carrier, signal.SIGKILL)
        assert program.ask().status_code == 200
        slowly(lambda: program.operator("park").status_code == 200, within_s=60)
        assert room.engines(host) == []
        assert program.ask().status_code == 200
        status = httpx2.get(f"http://{program.admin}/status", timeout=10).json()
        counts = {replica["replica"]: replica["wake"]["count"] for replica in status["replicas"]}
        assert counts["toy-0"] == 2
        assert program.stop() == 0
        assert not [pid for each in room.addresses for pid in room.engines(each)]


@pytest.mark.nightly
async def test_the_demo_runs_on_hosts(poorwill: Poorwill, tmp_path: Path) -> None:
    ran = await poorwill("demo", "--hosts", "3", "--dir", str(tmp_path), "--seconds", "10", **os.environ)
    assert ran.status == 0, ran.err
    bill = await poorwill("bill", "--by", "host", "--fleet", str(tmp_path / "fleet.toml"))
    assert "host-" in bill.out
