"""One client, or many idle ones, cost the others nothing: neither time, nor memory, nor descriptors."""

import contextlib
import itertools
import json
import resource
import socket
import threading
from pathlib import Path

import pytest

from . import attack
from .attack import MB, chat, code, post, received, send_all_it_takes, target

PIPELINED = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2000


@pytest.mark.parametrize("path", [b"/healthz", b"/v1/nothing/", b"/v1/models"])
def test_pipelining_stalls_nobody(tmp_path: Path, path: bytes) -> None:
    with target(tmp_path) as (poorwill, _), poorwill.connect() as flood:
        flood.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        before_mb = poorwill.memory_mb()
        requests = PIPELINED.replace(b"/healthz", path)
        thread = threading.Thread(target=send_all_it_takes, args=(flood, requests), kwargs={"most": 50 * MB})
        thread.start()
        for _ in range(20):
            with poorwill.connect(timeout=2) as other:
                other.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                assert received(other).startswith(b"HTTP/1.1 200 ")
        thread.join()
        assert poorwill.memory_mb() - before_mb < 30


def test_the_admin_listener_keeps_no_pipeline(tmp_path: Path) -> None:
    with target(tmp_path) as (poorwill, _):
        before_mb = poorwill.memory_mb()
        for _ in range(2):
            with poorwill.connect(admin=True) as flood, contextlib.suppress(ConnectionError):
                flood.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                send_all_it_takes(flood, PIPELINED[:4100], most=20 * MB)
        assert poorwill.memory_mb() - before_mb < 60
        assert poorwill.get(admin=True).startswith(b"HTTP/1.1 200 ")


def test_unfinished_bodies_share_memory(tmp_path: Path) -> None:
    with target(tmp_path, keys=["alice", "bob"], gateway='max_receiving = "64 MiB"') as (poorwill, keys):
        before_mb = poorwill.memory_mb()
        clients = [poorwill.connect() for _ in range(12)]
        for client in clients:
            head = post(b"", f"authorization: Bearer {keys['alice']}", length=16 * MB)
            try:
                client.sendall(head + b"x" * (16 * MB - 1))
            except ConnectionError:
                pass  # refused half-way
        assert poorwill.memory_mb() - before_mb < 120
        assert b" 200 OK" in poorwill.chat(keys["bob"], pad="x" * 4 * MB)
        refused = poorwill.chat(keys["alice"], pad="x" * 20 * MB)
        assert refused == b"" or code(refused) == "rate_limited"
        for client in clients:
            client.close()


def test_tiny_headers_cost_little(tmp_path: Path) -> None:
    lines = itertools.cycle(b"%c:%c\r\n" % (97 + n % 26, 48 + n % 75) for n in range(1000))
    head = b"GET /healthz HTTP/1.1\r\n" + b"".join(itertools.islice(lines, 12_000))
    with target(tmp_path, keys=["alice"]) as (poorwill, _):
        before_mb = poorwill.memory_mb()
        clients = [poorwill.connect() for _ in range(200)]
        for client in clients:
            client.sendall(head)
        assert code(received(clients[0])) == "invalid_request"
        assert poorwill.memory_mb() - before_mb < 60
        for client in clients:
            client.close()


def test_request_paths_are_not_kept(tmp_path: Path) -> None:
    with target(tmp_path) as (poorwill, _), poorwill.connect() as client:
        reader = client.makefile("rb")

        def ask(number: int) -> None:
            client.sendall(b"GET /v1/%b%d HTTP/1.1\r\nhost: localhost\r\n\r\n" % (b"p" * 16_000, number))
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
            reader.read(length)

        for number in range(200):
            ask(number)
        before_mb = poorwill.memory_mb()
        for number in range(200, 2200):
            ask(number)
        assert poorwill.memory_mb() - before_mb < 15


def test_idle_connections_make_room(tmp_path: Path) -> None:
    with target(tmp_path, keys=["alice"], descriptors="256:256") as (poorwill, keys):
        assert b" 200 OK" in poorwill.chat(keys["alice"])
        engine = poorwill.status()["pid"]
        idle = [poorwill.connect() for _ in range(400)]
        for _ in range(5):
            assert b" 200 OK" in poorwill.chat(keys["alice"])
        assert poorwill.status()["pid"] == engine, "the engine serves on"
        poorwill.keys("revoke", "alice")
        with poorwill.connect() as client:
            while True:
                client.sendall(chat(keys["alice"]))
                answer = client.recv(65536)
                if b" 200 OK" not in answer:
                    break
            assert b" 401 " in answer
        for client in idle:
            client.close()


def test_descriptors_are_kept_for_wakes(tmp_path: Path) -> None:
    """Unfinished requests from many addresses: an engine is still started, watched and parked."""
    with target(tmp_path, keys=["alice", "bob"], descriptors="256:256") as (serving, keys):
        halves = (
            b"",
            b"GET /healthz HTTP/1.1\r\nhost: lo",
            post(b"{", f"authorization: Bearer {keys['alice']}", length=1000),
        )
        flood = []
        for number, half in zip(range(500), itertools.cycle(halves), strict=False):
            here = (f"127.0.0.{2 + number % 8}", 0)
            client = socket.create_connection(("127.0.0.1", serving.port), 20, source_address=here)
            client.sendall(half)
            flood.append(client)
        for _ in range(2):
            assert b" 200 OK" in serving.chat(keys["bob"])
            attack.poorwill("park", "toy", "--fleet", str(tmp_path))
            assert serving.status()["state"] == "parked"
        assert len(list(Path(f"/proc/{serving.child.pid}/fd").iterdir())) < 200
        for client in flood:
            client.close()


def test_one_key_cannot_fill_a_replica(tmp_path: Path) -> None:
    slow = "load_seconds = 0.05, tokens_per_second = 1"
    limit, model = "max_requests_per_key = 3", "max_concurrency = 4"
    with target(tmp_path, keys=["alice", "bob"], gateway=limit, options=slow, model=model) as (serving, keys):
        greedy = [serving.connect() for _ in range(6)]
        for client in greedy:
            client.sendall(chat(keys["alice"], "connection: close", stream=True, max_tokens=1000))
        answers = [client.recv(65536) for client in greedy]
        assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == 3
        assert sum(b'"rate_limited"' in answer for answer in answers) == 3
        assert b" 200 OK" in serving.chat(keys["bob"], max_tokens=1)
        for client in greedy:
            client.close()


def test_one_key_cannot_fill_the_queue(tmp_path: Path) -> None:
    model = "max_concurrency = 1\nhold = { count = 8 }"
    with target(tmp_path, keys=["alice", "bob"], options="load_seconds = 2", model=model) as (poorwill, keys):
        flood = [poorwill.connect(timeout=30) for _ in range(9)]
        for client in flood:
            client.sendall(chat(keys["alice"], "connection: close"))
        assert code(received(flood[-1])) == "hold_queue_full"
        assert b" 200 OK" in poorwill.chat(keys["bob"])
        answers = [received(client) for client in flood[:-1]]
        assert [code(answer) for answer in answers if b" 200 OK" not in answer] == ["rate_limited"]
        for client in flood:
            client.close()


def test_the_descriptor_limit_is_raised(tmp_path: Path) -> None:
    with target(tmp_path, descriptors="256:4096") as (poorwill, _):
        assert resource.prlimit(poorwill.child.pid, resource.RLIMIT_NOFILE) == (4096, 4096)


def test_metrics_count_refusals(tmp_path: Path) -> None:
    with target(tmp_path, keys=["alice"]) as (poorwill, _):
        assert code(poorwill.chat("wrong")) == "unauthenticated"
        assert b'poorwill_refused_total{code="unauthenticated"} 1' in poorwill.get("/metrics", admin=True)
        assert json.loads(poorwill.get("/healthz").partition(b"\r\n\r\n")[2]) == {"status": "ok"}
