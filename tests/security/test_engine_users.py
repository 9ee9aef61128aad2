"""An engine that runs as a user of its own and was broken into finds no secret of poorwill's."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import wait_until

from poorwill.hosts.files.landlock import landlock_version
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.mark import KEY_FILE
from poorwill.hosts.processes.session import MARK_NAME

from .attack import IS_ROOT, poorwill, target

USER = "nobody"
PYTHON = shutil.which("python3", path="/usr/bin:/bin")  # one that any user may run; pytest's may be root's
pytestmark = [
    pytest.mark.skipif(not IS_ROOT, reason="becoming another user needs root"),
    pytest.mark.skipif(PYTHON is None, reason="no Python that every user may run"),
]

HOSTILE = """
import http.server, json, os, socketserver, subprocess, sys, time
port, fleet, slow = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(slow)
parent = os.getppid()
proc = f"/proc/{parent}/"
got = []
for path in (f"{fleet}/ledger.sqlite", f"{fleet}/ledger.sqlite-wal", f"{fleet}/marks.key", proc + "environ",
             proc + "mem", proc + "maps", proc + "fd/0"):
    try:
        open(path, "rb").read(1)
        got.append(path)
    except OSError:
        pass
for path in (fleet, f"{fleet}/snapshots", f"{fleet}/logs", proc + "fd"):
    try:
        os.listdir(path)
        got.append(path)
    except OSError:
        pass
for place in (fleet, f"{fleet}/logs"):
    try:
        open(f"{place}/planted", "w").close()
        got.append("wrote to " + place)
    except OSError:
        pass
try:
    os.kill(parent, 0)
    got.append("kill")
except OSError:
    pass
mark = dict(fleet=fleet, replica="toy-0", generation=9, host="127.0.0.1", port=port, log_path="/etc/passwd",
            driver="cold", id="a" * 32, seal="b" * 64)
forged = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True,
                          env={"POORWILL_REPLICA": json.dumps(mark)})
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        about = dict(got=got, uids=os.getresuid(), gids=os.getresgid(), groups=os.getgroups(),
                     home=os.environ["HOME"], forged=forged.pid)
        body = json.dumps(dict(choices=[], **about)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
socketserver.TCPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def fleet() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # unlike pytest's, in a place that everybody may enter
        Path(name).chmod(0o711)
        yield Path(name)


def hostile(fleet: Path, *, slow_s: float = 0.0, user: str = USER) -> str:
    command = [PYTHON, "-c", HOSTILE, "{port}", str(fleet), str(slow_s)]
    return (
        f'[models.hostile]\nengine = "command"\nengine_user = "{user}"\nladder = ["cold"]\n'
        'policy = { name = "fixed", idle_s = 3600, allow_short_idle = true }\n'
        f"command = {json.dumps(command)}\n"
    )


def engines(fleet: Path) -> list[int]:
    """Return the leaders of all sessions that carry a mark of the fleet, forged ones as well."""
    return [
        stat.pid
        for stat in procfs.all_processes()
        if stat.state not in "ZX"
        and stat.pid == stat.session
        and str(fleet).encode() in procfs.variable(stat.pid, MARK_NAME)
    ]


def test_a_hostile_engine_finds_nothing(fleet: Path) -> None:
    with target(fleet, model=hostile(fleet)) as (serving, _):
        answer = serving.chat(model="hostile")
        assert b" 200 OK" in answer, serving.get("/status", admin=True)
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert told["got"] == []
        assert set(told["uids"]) == {65534} and 0 not in (*told["gids"], *told["groups"])
        assert told["home"] != os.path.expanduser("~")
        log = fleet / "logs" / "hostile-0.log"
        assert log.stat().st_uid == 0 and log.stat().st_mode & 0o77 == 0
        swept = subprocess.run(
            [sys.executable, "-m", "poorwill", "doctor", "--sweep", "--json", str(fleet)],
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(swept.stdout)
        assert found == {"orphans": [], "unserved": [], "missing": []}, "a forged mark is none"
        assert len(engines(fleet)) == 2
        poorwill("park", "hostile", "--fleet", str(fleet))
        wait_until(lambda: engines(fleet) in ([], [told["forged"]]))
    if told["forged"] in engines(fleet):
        os.kill(told["forged"], signal.SIGKILL)


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_a_confined_engine_of_root_finds_nothing(fleet: Path) -> None:
    confined = hostile(fleet, user="") + "[fleet]\nconfine_engines = true\n"
    with target(fleet, model=confined) as (serving, _):
        answer = serving.chat(model="hostile")
        assert b" 200 OK" in answer, serving.get("/status", admin=True)
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert set(told["uids"]) == {0}
        assert not [what for what in told["got"] if str(fleet) in what]
        os.kill(told["forged"], signal.SIGKILL)


def test_a_killed_start_leaves_nothing_unowned(fleet: Path) -> None:
    with target(fleet, model=hostile(fleet, slow_s=600)) as (serving, _):
        asking = subprocess.Popen(
            [sys.executable, "-m", "poorwill", "wake", "hostile", "--fleet", str(fleet)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: len(engines(fleet)) == 1)
        (engine,) = engines(fleet)
        serving.child.kill()
        serving.child.wait()
        asking.wait()
    assert engines(fleet) == [engine], "it outlives poorwill"
    assert procfs.user_ids(engine) == {65534}
    with target(fleet, model=hostile(fleet)):
        wait_until(lambda: engines(fleet) == [])


def test_check_knows_the_user(fleet: Path) -> None:
    weights = fleet / "weights"
    weights.mkdir(mode=0o700)
    model = f'[models.m]\nengine = "vllm"\ncommand = ["true"]\npath = "{weights}"\n'
    for user, said in (
        ("no-such-user", "there is no user 'no-such-user'"),
        (USER, f"nobody cannot read {weights}"),
    ):
        (fleet / "fleet.toml").write_text(model + f'engine_user = "{user}"\n')
        done = subprocess.run(
            [sys.executable, "-m", "poorwill", "check", str(fleet)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2 and said in done.stdout + done.stderr
    assert not (fleet / KEY_FILE).exists(), "looking makes no key"
