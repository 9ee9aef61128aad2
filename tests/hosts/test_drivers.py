"""The drivers of other hosts, over the real service and relay: what the port promises, from afar."""

import asyncio
import socket
import ssl
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
from tests.fake_nvml import FakeGpu, FakeNvml
from tests.waiting import until

from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.hosting import serving_host
from poorwill.compose.drivers.on_hosts import found_on_hosts
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.launch import Launch, Parked, Running
from poorwill.core.ports.driver import Driver, DriverError, NoCapacity, Report, SnapshotRefused
from poorwill.core.ports.silence import HostSilent
from poorwill.core.words import Phase, Tier, replica_id
from poorwill.hosts.processes import procfs
from poorwill.remote.ray.calls import HostOffer
from poorwill.remote.ray.contact import AGAIN_S, SILENT_S
from poorwill.remote.ray.drivers import HostsDriver
from poorwill.remote.ray.identity import make_key, tls_context
from poorwill.remote.ray.offers import disks_of
from poorwill.tiers.snapshots.store import store_root

from .fleet import ENV, TINY, HostedFleet, hosted_fleet, model


async def test_a_replica_starts_serves_and_parks_there(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        launch = fleet.launch()
        running = await fleet.wake(launch)
        assert (running.machine, running.host, running.launched) == ("a", "a", launch.identity())
        assert fleet.own.processes.alive(running)
        await fleet.engine.ready(running, launch)
        assert await fleet.engine.probe(running, launch)
        assert fleet.cluster.held == {"tiny-0": "a"}
        assert [mark.detail for mark in fleet.marks if mark.phase is Phase.PROVISION] == ["host a"]
        assert Phase.SPAWN in {mark.phase for mark in fleet.marks}
        parked = await fleet.own.drivers[Tier.COLD].park(running, launch, generation=2)
        assert (parked.tier, parked.machine, fleet.cluster.held) == (Tier.COLD, "", {})
        assert fleet.engines("a") == []
        assert "SIGTERM" in await fleet.own.processes.exited(running)


async def test_a_service_adopts_what_an_earlier_one_left(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        launch = fleet.launch()
        running = await fleet.wake(launch)
        await fleet.stop("a")
        with pytest.raises(HostSilent) as silence:
            await fleet.own.processes.exited(running)
        with pytest.raises(HostSilent):
            fleet.own.processes.alive(running)
        with pytest.raises(HostSilent):
            await fleet.own.processes.kill(running)
        assert len(fleet.engines("a")) == 1
        await fleet.start("a")
        await silence.value.back()
        assert fleet.own.processes.alive(running)
        await fleet.engine.ready(running, launch)
        found = [each for each in await fleet.own.drivers[Tier.COLD].inventory() if each.running]
        assert [(each.running.key(), each.unfinished) for each in found] == [(running.key(), True)]  # type: ignore[union-attr]
        await fleet.own.processes.kill(running)


async def test_a_cancelled_wake_leaves_nothing_there(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", served=model("a", load_seconds=30.0)) as fleet:
        async with asyncio.TaskGroup() as group:
            wake = group.create_task(fleet.wake(fleet.launch()))
            await until(lambda: len(fleet.engines("a")) == 1)
            wake.cancel()
        assert wake.cancelled() and fleet.engines("a") == [] and fleet.cluster.held == {}


async def test_a_host_that_falls_silent_fails_a_wake(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", served=model("a", load_seconds=30.0)) as fleet:
        async with asyncio.TaskGroup() as group:
            wake = group.create_task(_failed(fleet.wake(fleet.launch())))
            await until(lambda: len(fleet.engines("a")) == 1)
            await fleet.stop("a")
            assert "silent" in str(await wake)
        assert fleet.engines("a") == [], "the service undoes what its caller has left"


async def _failed(work) -> Exception:  # type: ignore[no-untyped-def]
    try:
        await work
    except DriverError as error:
        return error
    raise AssertionError("it succeeded")


async def test_a_full_host_is_passed_over(tmp_path: Path) -> None:
    async with hosted_fleet(
        tmp_path, "a", "b", room={"a": 0, "b": 1}, served=model("a", "b", most=2)
    ) as fleet:
        running = await fleet.wake(fleet.launch())
        assert running.machine == "b"
        with pytest.raises(NoCapacity, match="has no room"):
            await fleet.wake(fleet.launch(1))
        assert fleet.cluster.held == {"tiny-0": "b"}
        await fleet.own.processes.kill(running)


class Rouser:
    """In place of a driver of `asleep`: the toy engine has no sleep of its own."""

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        assert parked.running is not None
        return parked.running


async def test_who_sleeps_there_keeps_its_place(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", served=model("a")) as fleet:
        running = await fleet.wake(fleet.launch())
        service = fleet.cluster.services["a"]
        service.kits = {TINY: replace(service.kits[TINY], drivers={Tier.ASLEEP: cast(Driver, Rouser())})}
        fleet.cluster.room["a"] = 0  # for who comes anew
        fleet.marks.clear()
        driver = HostsDriver(name="asleep", tier=Tier.ASLEEP, hosts=fleet.hosts)
        parked = Parked(replica=running.replica, generation=2, tier=Tier.ASLEEP, running=running, machine="a")
        woken = await driver.wake(parked, fleet.launch(), generation=2, report=fleet.marks.append)
        assert (woken.pid, woken.machine, fleet.cluster.held) == (running.pid, "a", {"tiny-0": "a"})
        assert [mark.detail for mark in fleet.marks] == ["host a"]
        await fleet.own.processes.kill(woken)


async def test_an_image_is_given_up_only_for_room_elsewhere(tmp_path: Path) -> None:
    served = model("a", "b", ladder=(Tier.FROZEN, Tier.COLD))
    async with hosted_fleet(tmp_path, "a", "b", room={"a": 0, "b": 0}, served=served) as fleet:
        image = Parked(replica=replica_id(TINY), generation=1, tier=Tier.FROZEN, path="/x", machine="a")
        driver = fleet.own.drivers[Tier.COLD]
        wake = partial(driver.wake, image, fleet.launch(), generation=2, report=fleet.marks.append)
        with pytest.raises(NoCapacity, match="a has no room"):
            await wake()
        fleet.cluster.room["b"] = 1
        with pytest.raises(SnapshotRefused, match="a, which has the image, has no room, and b has"):
            await wake()
        assert fleet.cluster.held == {}


async def test_a_start_goes_to_the_weights_then_to_room(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", "b", served=model("a", "b", most=2)) as fleet:
        first = await fleet.wake(fleet.launch())
        await until(lambda: fleet.hosts.candidates(fleet.launch(1))[-1] == first.machine)
        fleet.hosts.offers[first.machine] = {TINY: HostOffer(tiers=(Tier.COLD,), weights_bytes=1)}
        second = await fleet.wake(fleet.launch(1))
        assert second.machine == first.machine, "the weights are there, though an engine is as well"
        for running in (first, second):
            await fleet.own.processes.kill(running)


async def test_a_host_tells_of_its_disks(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        contact = fleet.hosts.contacts["a"]
        await until(lambda: contact.last is not None and contact.last.disks)
        assert contact.last is not None
        assert sorted(what for disk in contact.last.disks for what in disk.holds) == ["snapshots", "weights"]
        assert contact.last.disks[0].path == str(tmp_path / "a")
        assert all(0 < disk.free_bytes <= disk.total_bytes for disk in contact.last.disks)


def test_one_file_system_is_one_disk(tmp_path: Path) -> None:
    here, shm = tmp_path / "weights", Path("/dev/shm")
    (disk,) = disks_of(tmp_path, here / "made when needed")
    assert (disk.path, disk.holds) == (str(tmp_path), ("snapshots", "weights"))
    if shm.stat().st_dev != tmp_path.stat().st_dev:
        assert [each.holds for each in disks_of(tmp_path, shm)] == [("snapshots",), ("weights",)]


async def test_no_download_without_room_for_it(tmp_path: Path) -> None:
    served = model("a", "b")
    async with hosted_fleet(tmp_path, "a", "b", room={"b": 0}, served=served) as fleet:
        contact = fleet.hosts.contacts["a"]
        await until(lambda: contact.last is not None and contact.last.disks)
        fleet.hosts.offers["b"] = {TINY: HostOffer(tiers=(Tier.COLD,), weights_bytes=10**18)}
        with pytest.raises(NoCapacity, match=r"b has no room; a: .* TB are to be downloaded and .* free"):
            await fleet.wake(fleet.launch())
        assert fleet.cluster.held == {}


async def test_a_host_that_cannot_download_is_passed_over(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", "b", served=model("a", "b")) as fleet:

        async def full(report: Report) -> None:
            raise OperatorFault(ErrorCode.NO_CAPACITY, "8 bytes are to be downloaded and 7 are free")

        first, second = fleet.hosts.candidates(fleet.launch())
        service = fleet.cluster.services[first]
        service.kits = {TINY: replace(service.kits[TINY], fetch=full)}
        running = await fleet.wake(fleet.launch())
        assert running.machine == second
        await fleet.own.processes.kill(running)


async def test_a_host_without_the_key_of_images_runs_nothing(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", encrypt_key_env="IMAGE_KEY") as fleet:
        with pytest.raises(NoCapacity, match=r"no host can run tiny; a: .*IMAGE_KEY"):
            await fleet.wake(fleet.launch())


async def test_a_silent_host_is_not_asked(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", "b", served=model("a", "b")) as fleet:
        await fleet.stop("a")
        await until(lambda: "a host is silent" in fleet.log.errors())
        running = await fleet.wake(fleet.launch())
        assert running.machine == "b"
        await fleet.own.processes.kill(running)
        await fleet.stop("b")
        await until(lambda: fleet.log.errors().count("a host is silent") == 2)
        with pytest.raises(NoCapacity, match="silent: a, b"):
            await fleet.wake(fleet.launch())


async def test_an_image_on_a_silent_host_is_refused(tmp_path: Path) -> None:
    async with hosted_fleet(
        tmp_path, "a", "b", served=model("a", "b", ladder=(Tier.ASLEEP, Tier.COLD))
    ) as fleet:
        await fleet.stop("a")
        await until(lambda: "a host is silent" in fleet.log.errors())
        image = Parked(replica=replica_id(TINY), generation=1, tier=Tier.FROZEN, path="/x", machine="a")
        driver = fleet.own.drivers[Tier.COLD]
        with pytest.raises(SnapshotRefused, match="silent"):
            await driver.wake(image, fleet.launch(), generation=2, report=fleet.marks.append)


async def test_without_ray_engines_are_found_and_ended(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        running = await fleet.wake(fleet.launch())
        fleet.cluster.cut = True
        assert fleet.own.processes.alive(running)
        found = await fleet.own.drivers[Tier.COLD].inventory()
        assert [each.replica for each in found] == ["tiny-0"], "what frees goes over the relay"
        await fleet.own.processes.kill(running)
        assert fleet.engines("a") == []


@pytest.mark.parametrize("missing", ["Ray", "the host of Ray's", "the host's service", "its room"])
async def test_a_wake_waits_for_what_is_on_its_way(tmp_path: Path, missing: str) -> None:
    async with hosted_fleet(tmp_path, "a", late=missing == "the host's service") as fleet:
        fleet.cluster.cut = missing == "Ray"
        fleet.cluster.joining |= {"a"} if missing == "the host of Ray's" else set()
        if missing == "its room":  # as Ray has it that is just back
            fleet.cluster.settled, fleet.cluster.room["a"] = False, 0
        async with asyncio.TaskGroup() as group:
            wake = group.create_task(fleet.wake(fleet.launch()))
            done, _ = await asyncio.wait([wake], timeout=2 * AGAIN_S)
            assert not done and fleet.engines("a") == []
            fleet.cluster.cut = False
            fleet.cluster.joining.clear()
            fleet.cluster.room.clear()
            if not fleet.services:
                await fleet.start("a")
            await fleet.own.processes.kill(await wake)


async def test_a_host_not_seen_yet_is_told_as_silent(tmp_path: Path) -> None:
    served = model("a", ladder=(Tier.FROZEN, Tier.COLD))
    async with hosted_fleet(tmp_path, "a", served=served, late=True) as fleet:
        assert [each.silent for each in await fleet.own.drivers[Tier.FROZEN].inventory()] == ["a"]


async def test_a_busy_host_is_not_silent(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", late=True) as fleet:
        busy, free = threading.Event(), threading.Event()

        async def serve() -> None:
            async with serving_host(fleet.plan("a"), env=ENV, log=fleet.log):
                busy.set()
                free.wait()  # as check-summing does to its loop

        async with asyncio.TaskGroup() as group:
            host = group.create_task(asyncio.to_thread(asyncio.run, serve()))
            await until(busy.is_set)
            await until(lambda: fleet.said("a host answers"))
            await asyncio.wait([host], timeout=2 * SILENT_S)
            assert "a host is silent" not in fleet.log.errors()
            free.set()


def sees(running: Running) -> str:
    return procfs.variable(running.pid, "CUDA_VISIBLE_DEVICES").decode()


async def test_engines_there_see_their_devices_alone(tmp_path: Path) -> None:
    served = model("a", most=3, gpus=1, ladder=(Tier.FROZEN, Tier.COLD))
    async with hosted_fleet(tmp_path, "a", served=served, devices=("GPU-a", "GPU-b")) as fleet:
        first, second = await asyncio.gather(*(fleet.wake(fleet.launch(number)) for number in (0, 1)))
        freed = sees(first)
        assert {freed, sees(second)} == {"GPU-a", "GPU-b"}
        with pytest.raises(NoCapacity, match="a: 0 of 2 devices are free"):
            await fleet.wake(fleet.launch(2))
        await fleet.stop("a")
        await until(lambda: "a host is silent" in fleet.log.errors())
        await fleet.start("a")
        await until(lambda: fleet.said("a host answers") == 2)
        with pytest.raises(NoCapacity, match="0 of 2"):
            await fleet.wake(fleet.launch(2))
        await fleet.own.processes.kill(first)
        third = await fleet.wake(fleet.launch(2))
        assert sees(third) == freed
        for running in (second, third):
            await fleet.own.processes.kill(running)


@pytest.mark.parametrize("pin", ["GPU-b", "1", "b:1"])
async def test_a_pin_holds_on_hosts(tmp_path: Path, pin: str) -> None:
    served = model("a", "b", most=2, gpus=1, on=(pin,))
    names = ("GPU-a", "GPU-b")
    async with hosted_fleet(tmp_path, "a", "b", served=served, room={"a": 0}, devices=names) as fleet:
        running = await fleet.wake(fleet.launch())
        assert (running.machine, sees(running)) == ("b", "GPU-b")
        with pytest.raises(NoCapacity, match=f"b: 0 of 1 device out of {pin} are free"):
            await fleet.wake(fleet.launch(1))
        await fleet.own.processes.kill(running)


async def test_a_host_gives_what_nvml_shows(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", late=True) as fleet:
        plan, nvml = (
            replace(fleet.plan("a"), devices=None),
            FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b", lost=15)),
        )
        async with serving_host(plan, env=ENV, log=fleet.log, nvml=cast(ModuleType, nvml)) as service:
            (given,) = service.devices.devices
            assert (given.id, given.host) == ("GPU-a", "a"), "a lost one is not given out"


async def asked_of_the_relay(fleet: HostedFleet, context: ssl.SSLContext | None, what: bytes) -> bytes:
    """The first byte that a relay answers to somebody; nothing if it hangs up."""
    assert fleet.settings.hosts is not None
    try:
        reader, writer = await asyncio.open_connection(
            *fleet.settings.hosts.relays["a"], ssl=context, server_hostname="" if context else None
        )
        try:
            writer.write(what)
            return await reader.read(1)
        finally:
            writer.transport.abort()
    except OSError:  # of TLS as well
        return b""


async def test_a_relay_speaks_only_to_who_has_the_key(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        running = await fleet.wake(fleet.launch())
        engine, other = f"engine {running.port}\n".encode(), tmp_path / "other.pem"
        make_key(other)
        anonymous, forged = ssl.create_default_context(), tls_context(other, server=False)
        for context in (anonymous, forged):  # neither minds who the relay is
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for stranger in (None, anonymous, forged):
            for what in (engine, b"beats\n", b"call\n"):
                assert await asked_of_the_relay(fleet, stranger, what) == b""
        ours = tls_context(tmp_path / "hosts.pem", server=False)
        assert await asked_of_the_relay(fleet, ours, engine) == b"+"
        with socket.create_server(("127.0.0.1", 0)) as strange:  # on the host, and no engine of its
            port = strange.getsockname()[1]
            assert await asked_of_the_relay(fleet, ours, f"engine {port}\n".encode()) == b""
        await fleet.own.processes.kill(running)


async def test_a_sweep_from_outside_sees_hosts(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a", "b") as fleet:
        running = await fleet.wake(fleet.launch())
        assert fleet.settings.hosts is not None
        look = partial(found_on_hosts, fleet.settings.hosts, clock=SystemClock.started(), log=fleet.log)
        found, silent = await look()
        assert [each.running.key() for each in found if each.running] == [running.key()]
        assert silent == []
        other = {"a": "b", "b": "a"}[running.machine]
        await fleet.stop(other)
        assert (await look())[1] == [other]
        await fleet.own.processes.kill(running)


async def test_a_stopped_controller_is_no_silence(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        running = await fleet.wake(fleet.launch())
        threading.Event().wait(SILENT_S + AGAIN_S)  # it hears nobody, and the host cannot be blamed
        await fleet.engine.ready(running, fleet.launch())
        assert "a host is silent" not in fleet.log.errors()
        await fleet.own.processes.kill(running)


async def test_places_are_taken_anew_at_a_start(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        running = await fleet.wake(fleet.launch())
        fleet.cluster.held.clear()  # as Ray's are when poorwill starts
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(fleet.own.processes.exited(running))
            await until(lambda: fleet.cluster.held == {"tiny-0": "a"})
            await fleet.own.processes.kill(running)
            await watch
        assert fleet.cluster.held == {}


async def test_a_service_that_knows_no_model_lists_images(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        await fleet.stop("a")
        image = store_root(tmp_path / "a", Tier.FROZEN) / "tiny-0" / "3"
        image.mkdir(parents=True)
        await fleet.start("a")
        assert fleet.settings.hosts is not None
        found, _ = await found_on_hosts(fleet.settings.hosts, clock=SystemClock.started(), log=fleet.log)
        assert [(each.parked.path, each.parked.machine) for each in found if each.parked] == [
            (str(image), "a")
        ]


async def test_what_ended_before_the_silence_is_not_listed(tmp_path: Path) -> None:
    async with hosted_fleet(tmp_path, "a") as fleet:
        running, driver = await fleet.wake(fleet.launch()), fleet.own.drivers[Tier.COLD]
        assert len(await driver.inventory()) == 1
        await fleet.own.processes.kill(running)
        await until(lambda: not fleet.own.processes.alive(running))
        await fleet.stop("a")
        await until(lambda: "a host is silent" in fleet.log.errors())
        assert [each for each in await driver.inventory() if not each.silent] == []
