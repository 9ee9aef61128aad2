"""Importing poorwill does nothing: no file, socket, thread, process or directory, in any module."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src"

WATCH = r"""
import importlib, json, os, sys, threading

BANNED = {
    "sqlite3.connect", "socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
    "os.fork", "os.posix_spawn", "os.exec", "os.system", "os.mkdir", "os.remove", "os.rename",
    "os.kill", "os.chdir", "shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp",
    "_thread.start_new_thread", "_thread.start_joinable_thread",
}
seen, current = [], ["?"]

def writes(args):
    path, mode, flags = args
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool(flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

def watch(event, args):
    if event in BANNED or (event == "open" and writes(args)):
        seen.append([current[0], event, str(args)[:200]])

sys.addaudithook(watch)
for name in json.loads(sys.argv[1]):
    current[0] = name
    try:
        importlib.import_module(name)
    except Exception as error:
        seen.append([name, "cannot be imported", repr(error)])
print(json.dumps({"seen": seen, "threads": threading.active_count()}))
"""


def modules() -> list[str]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def watched(names: list[str], extra_path: Path | None = None) -> dict[str, Any]:
    program = f"import sys; sys.path.insert(0, {str(extra_path)!r})\n{WATCH}"
    done = subprocess.run(
        # -B: no bytecode is written, which would look like a file written at import.
        [sys.executable, "-B", "-c", program if extra_path else WATCH, json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_no_module_works_at_import() -> None:
    answer = watched(modules())
    assert answer["seen"] == []
    assert answer["threads"] == 1


def test_the_watch_sees_what_it_is_there_for(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(
        "import os, socket, sqlite3, subprocess, threading\n"
        f"open({str(tmp_path / 'written')!r}, 'w').close()\n"
        "sqlite3.connect(':memory:').close()\n"
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.close()\n"
        "subprocess.run(['true'])\n"
        f"os.mkdir({str(tmp_path / 'made')!r})\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    answer = watched(["planted"], tmp_path)
    events = {event for _, event, _ in answer["seen"]}
    assert {"open", "sqlite3.connect", "socket.bind", "subprocess.Popen", "os.mkdir"} <= events
    assert answer["threads"] == 2
