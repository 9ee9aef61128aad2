"""Automatic ports: one for each replica, kept over restarts, exchanged when somebody else has it."""

import hashlib
import itertools
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from poorwill.core.errors import OperatorFault
from poorwill.engines.port_choice import replica_port

HOST = "127.0.0.1"


def port_of(directory: Path, replica: str, *, anew: bool = False) -> int:
    return replica_port(str(directory), replica, HOST, anew=anew)


def twins(directory: Path) -> tuple[str, str]:
    """Two replicas that would get the same port by their names alone."""
    seen: dict[int, str] = {}
    for number in itertools.count():
        name = f"model-{number}-0"
        digest = hashlib.sha256(f"{directory}/{name}".encode()).digest()
        first = int.from_bytes(digest[:4], "big") % 12_000
        if first in seen:
            return seen[first], name
        seen[first] = name
    raise AssertionError


def test_two_replicas_have_two_ports(tmp_path: Path) -> None:
    one, other = twins(tmp_path)
    assert port_of(tmp_path, one) != port_of(tmp_path, other)


def test_a_taken_port_is_exchanged_at_a_start(tmp_path: Path) -> None:
    first = port_of(tmp_path, "m-0", anew=True)
    assert port_of(tmp_path, "m-0", anew=True) == first, "a free one is kept"
    with socket.create_server((HOST, first)):
        assert port_of(tmp_path, "m-0") == first, "a snapshot needs its own"
        second = port_of(tmp_path, "m-0", anew=True)
    assert second != first
    assert port_of(tmp_path, "m-0") == second, "it is on record"


def test_starts_at_once_get_different_ports(tmp_path: Path) -> None:
    names = [*twins(tmp_path), *(f"m-{number}" for number in range(30))]
    with ThreadPoolExecutor(8) as pool:
        ports = list(pool.map(lambda name: port_of(tmp_path, name, anew=True), names))
    assert len(set(ports)) == len(names)


def test_twins_of_an_older_poorwill_part(tmp_path: Path) -> None:
    port_of(tmp_path, "a-0")
    record = tmp_path / "ports" / "a-0"
    (tmp_path / "ports" / "b-0").write_text(record.read_text())
    assert port_of(tmp_path, "b-0", anew=True) != port_of(tmp_path, "a-0")


@pytest.mark.parametrize("damage", ["", "no port", "0", "70000"])
def test_a_damaged_record_is_replaced(tmp_path: Path, damage: str) -> None:
    port_of(tmp_path, "m-0")
    (tmp_path / "ports" / "m-0").write_text(damage)
    assert 20_000 <= port_of(tmp_path, "m-0") < 32_000


def test_an_unwritable_directory_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "ports").write_text("a file")
    with pytest.raises(OperatorFault, match="cannot choose a port") as caught:
        port_of(tmp_path, "m-0")
    assert "`port`" in (caught.value.hint or "")
