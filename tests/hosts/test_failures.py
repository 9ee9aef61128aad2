"""Deaths and cuts on a real cluster of three hosts: nothing acknowledged is lost, nothing is left unowned.

One fleet for all of them, which every test leaves whole: a cluster takes half a minute to start.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.program import Program, notes

from poorwill.ledger.schema import reading

from .room import Room, a_room, slowly

pytestmark = [pytest.mark.nightly, pytest.mark.xdist_group("ray")]

KNOWN_S = 3.0
OWNED_S = 60.0
HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    if os.geteuid() != 0:
        pytest.skip("networks of their own need root")
    steady = 'policy = { name = "fixed", idle_s = 300 }\nreplicas = 2'
    with a_room(tmp_path_factory.mktemp("ray"), "a", "b", "c", cut_off=True, model=steady) as room:
        room.start_serve()
        assert ask(room, "toy").status_code == 200
        yield room
        room.program.stop()


@pytest.fixture
def room(shared: Room) -> Iterator[Room]:
    """The fleet with an engine of `toy`; after the test the laws are checked."""
    assert ask(shared, "toy").status_code == 200
    yield shared
    assert_laws(shared)


def assert_laws(room: Room) -> None:
    """No engine is unowned for long, and every second of every replica is booked once."""
    slowly(lambda: unowned(room) == set(), within_s=OWNED_S)
    with reading(str(room.fleet / "ledger.sqlite")) as db:
        rows = db.execute("SELECT life, began_us, ended_us FROM spans ORDER BY life, began_us").fetchall()
    for (life, _, ended), (next_life, began, _) in pairwise(rows):
        assert life != next_life or ended == began


def unowned(room: Room) -> set[int]:
    running = {pid for host in room.addresses for pid in room.engines(host)}
    return running - {replica["pid"] for replica in replicas(room)}


def replicas(room: Room) -> list[dict[str, Any]]:
    document = httpx2.get(f"http://{room.program.admin}/status", timeout=10).json()
    return list(document["replicas"])


def ask(room: Room, model: str, **options: Any) -> httpx2.Response:
    return room.program.ask({"model": model, "messages": HELLO}, timeout=90, **options)


def at(room: Room, model: str) -> tuple[str, int]:
    """The host and pid of the engine that serves a model: the one replica of it that is ready."""
    ready = {each["pid"] for each in replicas(room) if each["model"] == model and each["state"] == "ready"}
    found = [(host, pid) for host in room.addresses for pid in room.engines(host) if pid in ready]
    assert len(found) == 1, found
    return found[0]


@dataclass(frozen=True)
class Booked:
    cause: str
    host: str
    us: int


def booked(room: Room, engine: int) -> list[Booked]:
    """The spans of the replica that an engine was last placed for."""
    with reading(str(room.fleet / "ledger.sqlite")) as db:
        rows = db.execute(
            "SELECT cause, host, coalesce(ended_us, began_us) - began_us FROM hosted_spans WHERE life ="
            " (SELECT life FROM places WHERE running_json LIKE ?) ORDER BY began_us",
            (f'%"pid":{engine},%',),
        ).fetchall()
    return [Booked(*row) for row in rows]


def kinds(room: Room) -> list[str]:
    return [kind for kind, _ in notes(room.fleet)]


def in_flight(room: Room, pool: ThreadPoolExecutor, *models: str) -> list["Future[httpx2.Response]"]:
    """Send a request to each model, and return once an engine has it."""
    sent = [pool.submit(ask, room, model) for model in models]
    slowly(lambda: all(any(r["in_flight"] and r["model"] == m for r in replicas(room)) for m in models))
    return sent


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def test_a_killed_service_costs_no_answer(room: Room, pool: ThreadPoolExecutor) -> None:
    assert ask(room, "slow").status_code == 200
    host, engine = at(room, "slow")
    (answer,) = in_flight(room, pool, "slow")
    room.kill(host)
    before = kinds(room).count("host_silent")
    slowly(lambda: kinds(room).count("host_silent") > before, within_s=KNOWN_S)
    assert answer.result(60).status_code == 200, "sent again, to another replica"
    os.kill(engine, 0)
    room.start_host(host)


def test_a_service_that_is_back_at_once_costs_no_answer(room: Room, pool: ThreadPoolExecutor) -> None:
    assert ask(room, "slow").status_code == 200
    host, engine = at(room, "slow")
    (answer,) = in_flight(room, pool, "slow")
    room.kill(host)
    room.start_host(host)
    assert answer.result(60).status_code == 200
    slowly(lambda: engine in {each["pid"] for each in replicas(room)} or unowned(room) == set())


def test_a_killed_raylet_costs_no_engine(room: Room) -> None:
    host, engine = at(room, "toy")
    (raylet,) = room.of_ray(host, "raylet/raylet")
    os.kill(raylet, signal.SIGKILL)
    assert ask(room, "toy").status_code == 200
    assert at(room, "toy") == (host, engine)
    _parks_and_wakes(room)


def test_a_killed_actor_costs_nothing(room: Room) -> None:
    host, engine = at(room, "toy")
    for carrier in room.of_ray(host, "ray::Carrier"):
        os.kill(carrier, signal.SIGKILL)
    assert ask(room, "toy").status_code == 200
    assert at(room, "toy") == (host, engine)
    _parks_and_wakes(room)


def test_a_killed_head_costs_nothing(room: Room) -> None:
    host, engine = at(room, "toy")
    (gcs,) = room.of_ray("head", "gcs_server")
    os.kill(gcs, signal.SIGKILL)
    assert ask(room, "toy").status_code == 200
    assert at(room, "toy") == (host, engine)
    _parks_and_wakes(room)


def test_a_killed_head_with_a_store_costs_nothing(room: Room, tmp_path: Path) -> None:
    room.kill("head", signal.SIGTERM)
    store = tmp_path / "store"
    store.mkdir()
    room.start_head(RAY_gcs_storage="rocksdb", RAY_gcs_storage_path=str(store))
    _parks_and_wakes(room)
    assert list(store.iterdir()), "it was used"
    host, engine = at(room, "toy")
    (gcs,) = room.of_ray("head", "gcs_server")
    os.kill(gcs, signal.SIGKILL)
    assert ask(room, "toy").status_code == 200
    assert at(room, "toy") == (host, engine)
    _parks_and_wakes(room)


def _parks_and_wakes(room: Room) -> None:
    """Ray grants and carries again, within two minutes: the replica ends, and another one starts."""
    slowly(lambda: room.program.operator("park").status_code == 200, within_s=120)
    slowly(lambda: ask(room, "toy").status_code == 200, within_s=120)


def test_a_short_cut_is_bridged_and_the_engine_adopted(room: Room) -> None:
    host, engine = at(room, "toy")
    before = kinds(room).count("host_silent")
    room.network.cut(host)  # type: ignore[union-attr]
    slowly(lambda: kinds(room).count("host_silent") > before, within_s=KNOWN_S + 1)
    threading.Event().wait(5.0)
    adopted = kinds(room).count("adopted")
    room.network.mend(host)  # type: ignore[union-attr]
    slowly(lambda: kinds(room).count("adopted") > adopted, within_s=30)
    assert at(room, "toy") == (host, engine)
    slowly(lambda: booked(room, engine)[-1].cause == "linger", within_s=5)
    served, silent, after = booked(room, engine)[-3:]
    assert (served.host, silent.host, after.host) == (host, host, host)
    assert (silent.cause, after.cause) == ("unobserved", "linger") and silent.us >= 5_000_000


def test_a_host_silent_over_a_restart(room: Room) -> None:
    host, engine = at(room, "toy")
    room.network.cut(host)  # type: ignore[union-attr]
    room.program.kill()
    room.serve = Program.start(room.fleet)
    assert engine not in {each["pid"] for each in replicas(room)}
    assert booked(room, engine)[-1].cause == "unobserved"
    room.network.mend(host)  # type: ignore[union-attr]
    slowly(lambda: engine in {each["pid"] for each in replicas(room)}, within_s=OWNED_S)
    assert at(room, "toy") == (host, engine)
    slowly(lambda: booked(room, engine)[-1].cause == "linger", within_s=5)
    silent, after = booked(room, engine)[-2:]
    assert (silent.cause, silent.host, after.cause, after.host) == ("unobserved", host, "linger", host)
    assert ask(room, "toy").status_code == 200
    _parks_and_wakes(room)


@pytest.mark.parametrize("cut_s", [5, 60])
def test_a_cut_costs_no_request(room: Room, pool: ThreadPoolExecutor, cut_s: int) -> None:
    assert ask(room, "slow").status_code == 200
    host, _ = at(room, "slow")
    (answer,) = in_flight(room, pool, "slow")
    room.network.cut(host)  # type: ignore[union-attr]
    assert answer.result(60).status_code == 200
    threading.Event().wait(cut_s)
    room.network.mend(host)  # type: ignore[union-attr]
    slowly(lambda: _answers(room, host), within_s=120)
    # It was woken elsewhere: what the host returns with is nobody's, and ends within a minute.
    slowly(lambda: unowned(room) == set(), within_s=OWNED_S)
    assert ask(room, "slow").status_code == 200


def _answers(room: Room, host: str) -> bool:
    """Whether the host was last said to answer."""
    said = [
        json.loads(line) for line in (room.fleet / "serve.log").read_text().splitlines() if "host" in line
    ]
    mine = [line["message"] for line in said if line.get("host") == host]
    return bool(mine) and mine[-1] == "a host answers"


def test_a_killed_controller_finds_its_engines_again(room: Room) -> None:
    host, engine = at(room, "toy")
    room.program.kill()
    room.serve = Program.start(room.fleet)
    slowly(lambda: any(each["pid"] == engine for each in replicas(room)), within_s=60)
    assert at(room, "toy") == (host, engine)
    assert ask(room, "toy").status_code == 200


def test_a_host_that_stays_away_is_done_without(shared: Room) -> None:
    assert ask(shared, "toy").status_code == 200
    host, _ = at(shared, "toy")
    shared.network.cut(host)  # type: ignore[union-attr]
    assert ask(shared, "toy").status_code == 200
    other, _ = next(pair for pair in [at(shared, "toy")])
    assert other != host
    shared.network.mend(host)  # type: ignore[union-attr]
    slowly(lambda: _answers(shared, host), within_s=120)
    assert_laws(shared)


def test_the_ledger_is_whole(shared: Room) -> None:
    shared.program.stop()
    check = Path(shared.fleet)
    with reading(str(check / "ledger.sqlite")) as db:
        (open_lives,) = db.execute("SELECT count(*) FROM spans WHERE ended_us IS NULL").fetchone()
        spans = db.execute(
            "SELECT host, sum(ended_us - began_us), cause = 'unobserved' FROM hosted_spans"
            " WHERE cause NOT LIKE 'parked.%' GROUP BY host, cause"
        ).fetchall()
    assert open_lives == 4
    line = [sys.executable, "-m", "poorwill", "bill", "--by", "host,cause", "--json", "--fleet"]
    said = subprocess.run([*line, shared.fleet / "fleet.toml"], capture_output=True, text=True, check=True)
    lines = json.loads(said.stdout)["lines"]
    # At 3.60 an hour a microsecond costs a nano-dollar, once.
    assert sum(each["cost_nusd"] for each in lines) == sum(us for _, us, _ in spans)
    silent = {each["host"]: each["cost_nusd"] for each in lines if each["cause"] == "unobserved"}
    assert silent and silent == {host: us for host, us, unobserved in spans if unobserved}
    shared.start_serve()
