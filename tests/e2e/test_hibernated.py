"""A model on a rented machine, served by the real program: a fake cloud, and a real engine on its machine."""

import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from tests.gateway.bridge_site import certificate
from tests.tiers.fake_hyperstack import FakeHyperstack, Machine
from tests.waiting import wait_until

from poorwill.tiers.proof import free_port

from .program import Program, assert_tiles, marked_processes, notes, spans, wakes
from .tls_proxy import tls_proxy

FLEET = """\
[fleet]
exit_s = 600

[models.big]
engine = "vllm"
engine_model = "toy"
ladder = ["hibernated", "cold"]
policy = {{ name = "fixed", idle_s = {idle_s}, allow_short_idle = true }}
park_limit_s = 600
wake_budget_s = 40
wake_cap_s = 60

[models.big.cloud]
provider = "hyperstack"
id = "12345"
url = "http://127.0.0.1:{port}"
key_env = "CLOUD_KEY"
api = "{api}"

[[rates]]
active_usd_h = "3.20"
parked_usd_h = {{ hibernated = "0.02", cold = "0.02" }}
"""


class Rented:
    """A fleet directory, and the machine that its one model is on."""

    def __init__(self, directory: Path, idle_s: float = 60.0) -> None:
        self.directory = directory
        self.cloud = FakeHyperstack(hibernate_s=0.2, restore_s=0.2, log=str(directory / "engine"))
        api = self.cloud.open()
        port = free_port()
        toy = (
            sys.executable,
            "-m",
            "poorwill.engines.programs.toy_server",
            "--load-seconds",
            "0.2",
        )
        self.machine: Machine = self.cloud.add("12345", (*toy, "--port", str(port)))
        self.url = f"http://127.0.0.1:{port}"
        text = FLEET.format(port=port, api=api, idle_s=idle_s)
        (directory / "fleet.toml").write_text(text)

    def start(self) -> Program:
        return Program.start(self.directory, CLOUD_KEY=self.cloud.key)

    def boot(self) -> str:
        """What only the memory of the engine on the machine knows."""
        boot: str = httpx2.get(f"{self.url}/toy", timeout=5).json()["boot_id"]
        return boot


@pytest.fixture
def rented(fleet: Path) -> Iterator[Rented]:
    rented = Rented(fleet)
    yield rented
    rented.cloud.close()
    assert marked_processes(fleet) == [], "nothing was started here"


def ask(program: Program) -> str:
    with openai.OpenAI(
        base_url=f"http://{program.address}/v1", api_key="none", timeout=60, max_retries=0
    ) as client:
        answer = client.chat.completions.create(
            model="big", messages=[{"role": "user", "content": "hi"}], max_tokens=5
        )
    return answer.choices[0].message.content or ""


def test_request_wakes_and_idleness_hibernates(fleet: Path) -> None:
    rented = Rented(fleet, idle_s=0.5)
    program = rented.start()
    text = ask(program)
    assert text and rented.machine.asked == ["hibernate-restore"]
    wait_until(lambda: program.status()["cause"] == "parked.hibernated")
    assert rented.machine.status == "HIBERNATED" and rented.machine.kept_address
    billed_s = rented.cloud.bill_s("12345")
    assert ask(program) == text, "another engine, and the same model"
    assert program.stop() == 0
    assert rented.machine.status == "HIBERNATED"
    assert rented.cloud.bill_s("12345") > billed_s
    assert rented.machine.asked == ["hibernate-restore", "hibernate"] * 2
    causes = [cause for cause, _, _ in spans(fleet)]
    assert causes[0] == "parked.cold" and causes[-1] == "parked.hibernated"
    assert {"wake.provision", "wake.warmup", "serving", "linger", "park"} < set(causes)
    assert wakes(fleet) == [("cold", 1), ("hibernated", 1)]
    assert_tiles(fleet)
    rented.cloud.close()


def test_after_a_kill_machines_are_found_again(rented: Rented, fleet: Path) -> None:
    program = rented.start()
    ask(program)
    boot = rented.boot()
    program.kill()
    program = rented.start()
    assert program.status()["state"] == "ready" and program.status()["pid"] is None
    ask(program)
    assert rented.boot() == boot and rented.machine.asked == ["hibernate-restore"]
    assert ("adopted", f"hyperstack 12345 at {rented.url.removeprefix('http://')}") in notes(fleet)
    assert program.operator("park", "big").status_code == 200
    since_us = program.status()["since_us"]
    program.kill()
    program = rented.start()
    assert program.status()["cause"] == "parked.hibernated"
    assert program.stop() == 0
    assert rented.machine.asked == ["hibernate-restore", "hibernate"]
    assert spans(fleet)[-1] == ("parked.hibernated", since_us, None), "it was parked all along"
    assert "unobserved" in [cause for cause, _, _ in spans(fleet)]
    assert_tiles(fleet)


def test_moved_model_names_its_old_machine(rented: Rented, fleet: Path) -> None:
    program = rented.start()
    ask(program)
    wait_until(lambda: "linger" in [cause for cause, _, _ in spans(fleet)])  # written within 1 s
    program.kill()
    other = rented.cloud.add("67890", rented.machine.engine)
    config = fleet / "fleet.toml"
    config.write_text(config.read_text().replace("12345", "67890"))
    program = rented.start()
    assert program.status()["cause"] == "parked.cold"
    log = fleet / "serve.log"  # written by a thread of its own
    wait_until(lambda: "hyperstack 12345 is not the rented machine of big-0" in log.read_text())
    assert "be billed" in log.read_text()
    rented.cloud.put("12345", "HIBERNATED")  # as its owner does now: they share an address here
    assert ask(program) and other.asked == ["hibernate-restore"]
    assert program.stop() == 0
    assert_tiles(fleet)


@pytest.mark.parametrize("name", ["big", "small"])
def test_a_machine_just_asked_for_is_named(rented: Rented, fleet: Path, name: str) -> None:
    """Killed the moment its cloud was asked: whatever the configuration says by then, it may be billed."""
    rented.cloud.restore_s = 60
    program = rented.start()
    with pytest.raises(httpx2.HTTPError):
        program.ask({"model": "big", "messages": []}, timeout=0.2)
    wait_until(lambda: rented.machine.asked)
    program.kill()
    config = fleet / "fleet.toml"
    config.write_text(config.read_text().replace("12345", "67890").replace("models.big", f"models.{name}"))
    rented.cloud.add("67890", rented.machine.engine)
    for _ in range(2):
        assert rented.start().stop() == 0
    told = [text for _, text in notes(fleet) if "hyperstack 12345" in text]
    assert len(told) == 1 and told[0].endswith("may run on, and be billed")


def test_killed_in_a_wake_hibernates_again(rented: Rented, fleet: Path) -> None:
    rented.cloud.restore_s = 1.0
    program = rented.start()
    with pytest.raises(httpx2.HTTPError):
        program.ask({"model": "big", "messages": []}, timeout=0.5)
    assert rented.machine.status == "RESTORING"
    program.kill()
    program = rented.start()
    wait_until(lambda: rented.machine.status == "HIBERNATED")
    assert rented.machine.asked == ["hibernate-restore", "hibernate"]
    assert program.status()["state"] == "parked"
    assert program.stop() == 0
    assert [kind for kind, _ in notes(fleet)] == ["swept"]
    assert_tiles(fleet)


def test_full_cloud_is_no_capacity_and_free(rented: Rented, fleet: Path) -> None:
    rented.cloud.restore_s = 1.5
    rented.cloud.full = True
    program = rented.start()
    answer = program.ask({"model": "big", "messages": []})
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert answer.json()["error"]["code"] == "no_capacity"
    assert "HIBERNATED again after it was asked to restore" in program.status()["last_error"]
    assert program.stop() == 0
    assert rented.cloud.bill_s("12345") == 0
    assert wakes(fleet)[0] == ("cold", 0)
    assert_tiles(fleet)


def test_refused_cloud_key_reaches_the_operator(rented: Rented, fleet: Path) -> None:
    program = Program.start(fleet, CLOUD_KEY="of-another-account")
    answer = program.ask({"model": "big", "messages": []})
    assert answer.status_code == 503
    assert "hyperstack refuses the API key" in program.status()["last_error"]
    assert "hyperstack" not in answer.json()["error"]["message"]
    assert program.stop() == 0
    assert "of-another-account" not in (fleet / "serve.log").read_text()


@pytest.mark.nightly
def test_killed_at_any_moment_with_a_rented_machine(
    fleet: Path,
) -> None:
    chance = random.Random(20261124)
    rented = Rented(fleet, idle_s=0.3)
    rented.cloud.restore_s = rented.cloud.hibernate_s = 0.6
    for _ in range(12):
        program = rented.start()
        over = threading.Event()
        asking = threading.Thread(target=ask_until_gone, args=(program, over))
        asking.start()
        over.wait(chance.uniform(0, 6))
        program.kill()
        over.set()
        asking.join()
        assert_tiles(fleet)
    program = rented.start()
    assert ask(program)
    assert program.stop() == 0
    assert rented.machine.status == "HIBERNATED"
    assert spans(fleet)[-1][0] == "parked.hibernated"
    assert_tiles(fleet)
    kinds = {kind for kind, _ in notes(fleet)}
    assert kinds <= {"adopted", "swept"}, "nothing was left to be found by a timer"
    rented.cloud.close()


def ask_until_gone(program: Program, over: threading.Event) -> None:
    while not over.is_set():
        try:
            program.ask({"model": "big", "messages": []}, timeout=20)
        except httpx2.HTTPError:
            return
        over.wait(0.8)  # long enough to be parked now and then


def behind(rented: Rented, url: str, *lines: str) -> None:
    """Have the engine asked at a URL of its own, with more keys of its table."""
    path = rented.directory / "fleet.toml"
    text = path.read_text().replace(f'url = "{rented.url}"', "\n".join([f'url = "{url}"', *lines]))
    path.write_text(text)


def test_an_engine_behind_tls_and_a_key(rented: Rented, fleet: Path) -> None:
    pem = certificate(fleet)
    with tls_proxy(pem, int(rented.url.rpartition(":")[2]), key="s3cret-of-the-engine") as proxy:
        behind(rented, proxy.url, 'url_key_env = "ENGINE_KEY"', f'url_ca = "{pem}"')
        program = Program.start(
            rented.directory, CLOUD_KEY=rented.cloud.key, ENGINE_KEY="s3cret-of-the-engine"
        )
        assert ask(program) and ask(program)
        assert proxy.keys == {"Bearer s3cret-of-the-engine"}, "never the client's"
        assert proxy.pages > 0, "a proxy's page while the machine boots is no engine's answer"
        assert program.stop() == 0
    assert "s3cret" not in "".join(path.read_text() for path in fleet.glob("logs/*"))


def test_an_engine_whose_certificate_is_not_trusted(rented: Rented, fleet: Path) -> None:
    with tls_proxy(certificate(fleet), int(rented.url.rpartition(":")[2]), key="k") as proxy:
        behind(rented, proxy.url)
        program = rented.start()
        with pytest.raises(openai.InternalServerError, match="could not be woken"):
            ask(program)
        why = program.status()["last_error"]
        assert "self-signed certificate" in why and "url_ca" in why and proxy.keys == set()
        assert program.stop() == 0
