"""Hosts through Ray itself: a cluster of three nodes on this machine, and what a fleet does on it."""

# The test run is its own edge.

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from .room import a_room, head_port, slowly


def test_a_fleet_serves_from_hosts_of_a_real_cluster(tmp_path: Path) -> None:
    with a_room(tmp_path, "a", "b", "c") as room:
        second = [sys.executable, "-m", "poorwill", "host", "--head", f"127.0.0.1:{head_port()}"]
        refused = subprocess.run([*second, "--key", room.key], cwd=tmp_path, capture_output=True, text=True)
        assert refused.returncode == 3 and f"another `poorwill host --head` of {room.key}" in refused.stderr
        program = room.start_serve()
        assert program.ask(timeout=120).status_code == 200, "the raylets that join are waited for"
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
        assert [(host["name"], host["answers"]) for host in status["hosts"]] == [(h, True) for h in "abc"]
        assert all(disk["free_bytes"] for host in status["hosts"] for disk in host["disks"])
        counts = {replica["replica"]: replica["wake"]["count"] for replica in status["replicas"]}
        assert counts["toy-0"] == 2
        assert program.stop() == 0
        assert not [pid for each in room.addresses for pid in room.engines(each)]


@pytest.mark.nightly
@pytest.mark.xdist_group("ray")
def test_the_demo_runs_on_hosts(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "poorwill", "demo", "--hosts", "3", "--seconds", "10"]
    ran = subprocess.run([*demo, "--dir", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    bill = [sys.executable, "-m", "poorwill", "bill", "--by", "host", "--fleet", str(tmp_path / "fleet.toml")]
    assert "host-" in subprocess.check_output(bill, text=True)
