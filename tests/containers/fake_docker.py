"""A stand-in for Docker's client and daemon: `docker run` and `docker rm --force`, as poorwill uses them.

Like the real ones: the container is no descendant of its client, has none of its environment, and outlives
it; SIGTERM to the client is passed on; a name is taken until its container is removed; without its daemon
the client says so and ends with 125 (`run`) or 1. The daemon's state is the directory that DOCKER_HOST
names; it is down while that has a file `down`.
"""

# A program of its own: its own edge.
# ruff: noqa: T201, TID251

import os
import signal
import sys
import time
from pathlib import Path

HOST = Path(os.environ["DOCKER_HOST"].removeprefix("unix://"))
NO_DAEMON = f"docker: Cannot connect to the Docker daemon at {HOST}. Is the docker daemon running?"
VALUES = ("--name", "--label", "--env", "--network", "--gpus")


def fail(what, status):
    print(what, file=sys.stderr, flush=True)
    sys.exit(status)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def container(home, words, variables):
    """Become the daemon's child that runs the container."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    log = os.open(home / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    (home / "pid.new").write_text(str(os.getpid()))
    (home / "pid.new").rename(home / "pid")
    os.execve(words[0], words, {"PATH": os.defpath, **variables})


def run(words):
    options, rest = {}, list(words)
    while rest[0].startswith("-"):
        flag = rest.pop(0)
        options.setdefault(flag, []).append(rest.pop(0) if flag in VALUES else "")
    if (HOST / "down").exists():
        fail(NO_DAEMON, 125)
    home = HOST / options["--name"][0]
    try:
        home.mkdir()
    except FileExistsError:
        fail(f'docker: Conflict. The container name "/{home.name}" is already in use.', 125)
    variables = {name: os.environ[name] for name in options.get("--env", ()) if name in os.environ}
    (home / "command").write_text(" ".join(words))
    container(home, rest[1:], variables)
    while not (home / "pid").exists():
        time.sleep(0.005)
    pid = int((home / "pid").read_text())
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, number))
    with open(home / "log") as log:
        while True:
            lives = running(pid)
            print(log.read(), end="", flush=True)
            if not lives:
                break
            time.sleep(0.01)
    if "--rm" in options:
        remove(home)


def remove(home):
    for name in ("pid", "log", "command"):
        (home / name).unlink(missing_ok=True)
    home.rmdir()


def begun(home):
    """Wait for a container that is being made, as the daemon does; None: it never was, or is gone."""
    until = time.monotonic() + 5
    while home.exists() and time.monotonic() < until:
        try:
            return int((home / "pid").read_text())
        except FileNotFoundError:
            time.sleep(0.005)
    return None


def rm(name):
    if (HOST / "down").exists():
        fail(NO_DAEMON, 1)
    home = HOST / name
    if not home.exists():
        fail(f"Error response from daemon: No such container: {name}", 1)
    pid = begun(home)
    while pid and running(pid):
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    try:
        remove(home)
    except FileNotFoundError:
        pass  # its client did
    print(name)


if __name__ == "__main__":
    run(sys.argv[2:]) if sys.argv[1] == "run" else rm(sys.argv[-1])
