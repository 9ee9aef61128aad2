"""Web pages, other users of the machine and holders of revoked keys stay out."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from .attack import IS_ROOT, as_nobody, chat, code, received, target

EVIL = "origin: http://evil.example"
PREFLIGHT = (
    b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    b"origin: %b\r\naccess-control-request-method: POST\r\n\r\n"
)
ASK = """
for line in ("GET /healthz", "GET /status", "POST /models/toy/park"):
    client = socket.socket()  # create_connection would import a codec, which this user may not read
    client.connect(("127.0.0.1", int(sys.argv[1])))
    client.sendall(f"{line} HTTP/1.1\\r\\nhost: localhost\\r\\ncontent-length: 0\\r\\n\\r\\n".encode())
    print(client.recv(65536).split()[1].decode())
"""


def test_pages_stay_out(tmp_path: Path) -> None:
    with target(tmp_path) as (poorwill, _):
        assert code(poorwill.chat("", EVIL)) == "forbidden"
        assert code(poorwill.chat("", "sec-fetch-site: cross-site")) == "forbidden"
        with poorwill.connect() as client:  # a name of the page's own that now points to loopback
            request = chat("", "connection: close", EVIL).replace(b"host: localhost", b"host: evil.example")
            client.sendall(request)
            assert code(received(client)) == "forbidden"
        with poorwill.connect() as client:
            client.sendall(PREFLIGHT % b"http://evil.example")
            assert b"access-control" not in received(client)
        assert poorwill.status()["state"] == "parked", "nothing was woken"
        assert b" 200 OK" in poorwill.chat("")


@pytest.mark.parametrize("keys", [[], ["alice"]], ids=["open", "with keys"])
def test_listed_pages_may_come_in(tmp_path: Path, keys: list[str]) -> None:
    cors = 'cors_origins = ["http://localhost:5173"]'
    with target(tmp_path, keys=keys, gateway=cors) as (poorwill, secrets):
        with poorwill.connect() as client:
            client.sendall(PREFLIGHT % b"http://localhost:5173")
            answer = received(client)
            assert answer.startswith(b"HTTP/1.1 204 ")
            assert b"access-control-allow-headers: *, authorization" in answer
        allowed = b"access-control-allow-origin: http://localhost:5173\r\n"
        answer = poorwill.chat(secrets.get("alice", ""), "origin: http://localhost:5173")
        assert b" 200 OK" in answer and allowed in answer
        assert allowed in poorwill.chat("wrong", "origin: http://localhost:5173", model="none")
        assert b"access-control" not in poorwill.chat(secrets.get("alice", ""), EVIL)


@pytest.mark.skipif(not IS_ROOT, reason="becoming another user needs root")
def test_other_users_stay_out(tmp_path: Path) -> None:
    with target(tmp_path) as (poorwill, _):
        assert as_nobody(ASK, str(poorwill.admin_port)).split() == ["200", "403", "403"]
        assert poorwill.status()["state"] == "parked"


def test_streams_of_a_revoked_key_end(tmp_path: Path) -> None:
    slow = "load_seconds = 0.05, tokens_per_second = 1"
    with (
        target(tmp_path, keys=["alice", "bob"], options=slow) as (poorwill, keys),
        poorwill.connect() as client,
    ):
        client.sendall(chat(keys["alice"], stream=True, max_tokens=1000))
        assert b" 200 OK" in client.recv(65536)
        ended: list[bytes] = []
        thread = threading.Thread(target=lambda: ended.append(received(client)))
        thread.start()
        poorwill.keys("revoke", "alice")
        thread.join(10)
        assert ended and b'"unauthenticated"' in ended[0]
        assert b" 200 OK" in poorwill.chat(keys["bob"], max_tokens=1)


def look_up(request: str, fleet: Path) -> dict[str, Any] | None:
    """Return what the operator is shown of a request, None as long as its row is not written."""
    words = ("ledger", "request", request, "--fleet", str(fleet), "--json")
    done = subprocess.run([sys.executable, "-m", "poorwill", *words], stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def test_clients_learn_nothing_of_the_host(tmp_path: Path) -> None:
    with target(tmp_path, options="fail_start = true") as (poorwill, _):
        for answer in (poorwill.chat(), poorwill.chat()):  # the wake fails, then it backs off
            assert code(answer) == "wake_failed" and b"x-request-id: " in answer
            said = str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"])
            assert not {"log", "exit", "pid", str(tmp_path)} & set(re.findall(r"[\w/.-]+", said)), said
            ids = re.findall(rb"x-request-id: (\S+)", answer)
            shown = wait_until(lambda ids=ids: look_up(ids[0].decode(), tmp_path))
            assert shown["status"] == 503 and "the log ends" in shown["wake"]["failure"]
        assert "the log ends" in poorwill.status()["last_error"]
