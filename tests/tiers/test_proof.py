"""Proving tiers, and the doctor that shows the proofs: nothing is claimed that was not done."""

# ruff: noqa: TID251

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.kept_log import KeptLog

from poorwill.cli.run import run
from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.trial import prove_hibernated
from poorwill.config import load_fleet
from poorwill.core.entries import ReplicaCreated, ReplicaPlaced, SpanOpened
from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import Driver, Found, Report
from poorwill.core.settings import FleetSettings
from poorwill.core.words import SERVING, Tier
from poorwill.fleet.lock import hold_directory
from poorwill.fleet.sweeps.judgement import Owned, compare
from poorwill.ledger.ledger import open_ledger
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.proof import PROVEN_FILE, pid_caution, prove_frozen, run_caution
from poorwill.tiers.proof import ProcessTrial, prove_cold

from .cases import new_cold, new_frozen
from .conftest import Fleet
from .fake_hyperstack import FakeHyperstack


async def test_a_proof_is_kept(fleet: Fleet, criu: Criu):
    about = {"directory": fleet.directory, "clock": fleet.clock, "log": fleet.log}
    first = await prove_frozen(criu=criu, **about)
    assert first.works and "froze a listening process" in first.why
    assert [path.name for path in fleet.directory.iterdir()] == [PROVEN_FILE]
    broken = replace(criu, dump_limit_s=-1.0)  # the same binary: what is known is believed
    assert await prove_frozen(criu=broken, **about) == first
    again = await prove_frozen(criu=criu, fresh=True, **about)
    assert again.works and again.why != "" and fleet.processes.found() == []


async def test_a_criu_that_cannot_dump_is_found_out(fleet: Fleet, criu: Criu, tmp_path: Path):
    liar = tmp_path / "criu"
    liar.write_text("#!/bin/sh\necho Looks good.\nexit 0\n")
    liar.chmod(0o755)
    proof = await prove_frozen(
        criu=replace(criu, binary=str(liar), version="3.17.1"),
        directory=fleet.directory,
        clock=fleet.clock,
        log=fleet.log,
    )
    assert not proof.works and "--install-criu" in proof.mend
    assert not (fleet.directory / PROVEN_FILE).exists(), "a failure is tried again"


async def test_another_binary_voids_the_proof(fleet: Fleet, criu: Criu, tmp_path: Path):
    wrapper = tmp_path / "criu"
    wrapper.write_text(f'#!/bin/sh\nexec {criu.binary} "$@"\n')
    wrapper.chmod(0o755)
    about = {"directory": fleet.directory, "clock": fleet.clock, "log": fleet.log}
    wrapped = replace(criu, binary=str(wrapper))
    assert (await prove_frozen(criu=wrapped, **about)).works
    wrapper.write_text("#!/bin/sh\nexit 3\n")
    proof = await prove_frozen(criu=wrapped, **about)
    assert not proof.works and "status 3" in proof.why


async def test_without_criu_the_proof_says_what_helps(fleet: Fleet):
    proof = await prove_frozen(criu=None, directory=fleet.directory, clock=fleet.clock, log=fleet.log)
    assert not proof.works and proof.mend == "poorwill doctor --install-criu"


@pytest.mark.skipif(os.geteuid() != 0, reason="others' criu keeps it elsewhere")
def test_a_run_on_a_disk_is_a_caution():
    assert run_caution("/dev/shm") == "" and "tmpfs" in run_caution("/nowhere")


@pytest.mark.parametrize(("pid_max", "said"), [(32_768, True), (4_194_304, False)])
def test_few_process_ids_are_a_caution(pid_max: int, said: bool):
    assert ("kernel.pid_max=4194304" in pid_caution(pid_max)) is said


async def test_cold_is_proven_too(fleet: Fleet):
    proof = await prove_cold(directory=fleet.directory, clock=fleet.clock, log=fleet.log)
    assert proof.works and list(fleet.directory.iterdir()) == []


@dataclass(frozen=True)
class Forgetful:
    """Calls itself frozen, and starts the program anew."""

    cold: Driver
    tier: Tier = Tier.FROZEN

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        return await self.cold.park(running, launch, generation=generation)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        return await self.cold.wake(parked, launch, generation=generation, report=report)


async def test_a_tier_that_forgets_is_found_out(fleet: Fleet):
    trial = ProcessTrial(scratch=fleet.directory, clock=fleet.clock, log=fleet.log)
    proof = await trial.prove(Forgetful(trial.cold))
    assert not proof.works and "forgotten" in proof.why


async def doctor(*args: str, **env: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    status = await run(["doctor", *args], {**os.environ, **env}, io.StringIO(), out, err)
    return status, out.getvalue(), err.getvalue()


async def test_the_doctor_reports_every_tier(criu: Criu):
    status, out, _ = await doctor("--json")
    tiers = {tier["tier"]: tier for tier in json.loads(out)["tiers"]}
    assert set(tiers) == {"cold", "frozen", "suspended", "hibernated", "asleep"}
    assert tiers["cold"]["works"] and tiers["frozen"]["works"] and status == 0
    for tier in tiers.values():
        assert tier["why"] and (tier["works"] or tier["mend"])


async def test_the_doctor_without_criu(
    tmp_path: Path,
):
    status, out, _ = await doctor(XDG_DATA_HOME=str(tmp_path), PATH="/nonexistent")
    assert status == 1
    assert "to fix it: poorwill doctor --install-criu" in out


# the sweep


async def test_the_sweep_tells_orphans_from_missing(fleet: Fleet, criu: Criu):
    driver, cold = new_frozen(fleet, criu), new_cold(fleet)
    owned = []
    for name in ("runs", "sleeps", "frozen", "lost", "orphan"):
        launch = fleet.launch(replica=name)
        running = await cold.wake(fleet.cold(launch), launch, generation=1, report=fleet.report)
        if name == "runs":
            owned.append(Owned(replica=launch.replica, running=running))
        elif name == "sleeps":
            asleep = Parked(replica=launch.replica, generation=1, tier=Tier.ASLEEP, running=running)
            owned.append(Owned(replica=launch.replica, parked=asleep))
        elif name in ("frozen", "lost"):
            parked = await driver.park(running, launch, generation=1)
            owned.append(Owned(replica=launch.replica, parked=parked))
            if name == "lost":
                await driver.discard(parked)
    found: list[Found] = [*await cold.inventory(), *await driver.inventory()]
    sweep = compare(found, owned)
    assert [each.replica for each in sweep.orphans] == ["orphan"]
    assert [each.replica for each in sweep.missing] == ["lost"]
    assert compare([], []) == compare([], [Owned(replica=launch.replica)])


async def test_the_doctors_sweep_finds_orphans(fleet: Fleet):
    (fleet.directory / "fleet.toml").write_text('[models.m]\nengine = "toy"\n')
    cold = new_cold(fleet)
    owned = fleet.launch(replica="owned")
    running = await cold.wake(fleet.cold(owned), owned, generation=1, report=fleet.report)
    at_us = fleet.clock.now_us()
    path = str(fleet.directory / "ledger.sqlite")
    async with open_ledger(path, clock=fleet.clock, log=fleet.log) as ledger:
        await ledger.record(
            [
                ReplicaCreated(replica=owned.replica, model=owned.model, driver="cold", at_us=at_us),
                SpanOpened(replica=owned.replica, at_us=at_us, cause=SERVING),
                ReplicaPlaced(
                    replica=owned.replica,
                    at_us=at_us,
                    generation=1,
                    running_json=running.as_json(),
                ),
            ]
        )
    where = ("--sweep", "--fleet", str(fleet.directory))
    status, out, _ = await doctor(*where)
    assert status == 1 and out.startswith(f"unserved owned: pid {running.pid}: ")
    with hold_directory(fleet.directory, what="poorwill serve"):
        status, out, _ = await doctor(*where)
    nothing = "nothing amiss: processes, snapshots and rented machines found: 1, all owned\n"
    assert (status, out) == (0, nothing)
    orphan = fleet.launch(replica="orphan")
    await cold.wake(fleet.cold(orphan), orphan, generation=1, report=fleet.report)
    await fleet.processes.kill(running)
    status, out, _ = await doctor(*where, "--json")
    said = json.loads(out)
    assert status == 1
    assert [each["replica"] for each in said["orphans"]] == ["orphan"]
    assert said["missing"] == [{"replica": "owned", "was": f"pid {running.pid} on port {running.port}"}]
    assert len(fleet.processes.found()) == 1, "a sweep changes nothing"


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[FakeHyperstack]:
    """A fake cloud, and a fleet of which one model is on a machine there."""
    cloud = FakeHyperstack()
    api = cloud.open()
    cloud.add("12345", ("sleep", "60"))
    (tmp_path / "fleet.toml").write_text(
        '[models.big]\nengine = "vllm"\nladder = ["hibernated", "cold"]\n'
        'cloud = { provider = "hyperstack", id = "12345", url = "http://127.0.0.1:9", '
        f'key_env = "CLOUD_KEY", api = "{api}" }}\n'
    )
    yield cloud
    cloud.close()


@pytest.mark.parametrize(
    ("state", "works", "said"),
    [
        ("HIBERNATED", True, "big is on hyperstack 12345, which is HIBERNATED"),
        ("ACTIVE", True, "big is on hyperstack 12345, which is ACTIVE"),
        ("ERROR", False, "big is on hyperstack 12345, which is ERROR"),
    ],
)
async def test_the_doctor_only_looks_at_machines(
    rented: FakeHyperstack, tmp_path: Path, state: str, works: bool, said: str
):
    rented.put("12345", state)
    (proof,) = await prove_hibernated(fleet_at(tmp_path), env={"CLOUD_KEY": rented.key})
    assert (proof.tier, proof.works, proof.tried, proof.why) == (Tier.HIBERNATED, works, True, said)
    assert bool(proof.mend) != works
    assert rented.machines["12345"].asked == []


async def test_the_doctor_names_an_unreachable_machine(rented: FakeHyperstack, tmp_path: Path):
    for env, said in (
        ({}, "CLOUD_KEY is not set in the environment"),
        ({"CLOUD_KEY": "x"}, "hyperstack refuses the API key (401 Unauthorized)"),
    ):
        (proof,) = await prove_hibernated(fleet_at(tmp_path), env=env)
        assert not proof.works and proof.why == f"big is on hyperstack 12345: {said}"
    status, out, _ = await doctor("--fleet", str(tmp_path), CLOUD_KEY="x")
    assert status == 1 and re.search("hibernated fails +big is on hyperstack 12345: ", out)


async def test_the_doctor_without_a_rented_machine():
    (proof,) = await prove_hibernated(None, env={})
    assert not proof.tried and "docs/hibernated.md" in proof.mend


async def test_the_sweep_sees_an_unowned_machine(rented: FakeHyperstack, tmp_path: Path):
    clock = SystemClock.started()
    async with open_ledger(str(tmp_path / "ledger.sqlite"), clock=clock, log=KeptLog()):
        pass
    where = ("--sweep", "--fleet", str(tmp_path))
    status, out, _ = await doctor(*where, CLOUD_KEY=rented.key)
    assert (status, out.partition(":")[0]) == (0, "nothing amiss")
    rented.put("12345", "SHUTOFF")
    status, out, _ = await doctor(*where, CLOUD_KEY=rented.key)
    assert (status, out) == (1, "orphan   big-0: rented machine hyperstack 12345\n")
    assert rented.machines["12345"].asked == []


def fleet_at(directory: Path) -> FleetSettings:
    return load_fleet(str(directory / "fleet.toml"), {}, machine=False)


@pytest.mark.nightly
@pytest.mark.skipif(
    not (shutil.which("qemu-system-x86_64") and shutil.which("apt-get")),
    reason="needs qemu-system-x86_64 and apt-get",
)
async def test_the_doctor_suspends_a_guest(tmp_path: Path):
    (tmp_path / "fleet.toml").write_text('[models.toy]\nengine = "toy"\nladder = ["suspended", "cold"]\n')
    build = ["guest", "build", "toy", "--memory", "224", "--fleet", str(tmp_path)]
    assert await run(build, os.environ, io.StringIO(), io.StringIO(), io.StringIO()) == 0
    status, out, _ = await doctor("--json", "--fleet", str(tmp_path))
    tiers = {tier["tier"]: tier for tier in json.loads(out)["tiers"]}
    assert status == 0 and tiers["suspended"]["works"] is True
    assert "parked in" in tiers["suspended"]["why"]
    assert sorted(os.listdir(tmp_path)) == ["fleet.toml", "guests"]
