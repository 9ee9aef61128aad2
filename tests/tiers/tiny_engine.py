"""A tiny engine: a listening process with state in memory, started by the driver tests with bare Python.

usage: tiny_engine.py PORT [--exit STATUS] [--never-ready] [--flood BYTES] [--ignore-term] [--children N]
                           [--fill BYTES] [--orphan] [--forks-on-term] [--slow-ready SECONDS] [--secret TEXT]
                           [--host ADDRESS] [--worker] [--dials PORT]
                           [--silent] [--deleted BYTES] [--daemon SECONDS] [--never-listen]

GET /health is 200; GET /count is how often it was asked; GET /pid is its pid, GET /time its clock.
POST /v1/completions is always the same. Connections are kept alive unless a request says `Connection: close`.
"""

# A program of its own, started in a child process: it is its own edge.
# ruff: noqa: T201, TID251

import json
import mmap
import os
import signal
import socket
import sys
import tempfile
import threading
import time


def option(name, default=None):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def start_worker():
    """Start a process that counts, and talk to it over TCP, as engines with several processes do."""
    listener = socket.create_server(("127.0.0.1", 0))
    here = socket.create_connection(listener.getsockname())
    there, _ = listener.accept()
    listener.close()
    if os.fork() == 0:
        here.close()
        for count in range(1, 10**8):
            there.recv(1)
            there.sendall(b"%08d" % count)
    there.close()
    return here


def deleted_file(size):
    """Map a file of random bytes that has no name any more."""
    with tempfile.TemporaryFile() as file:
        file.write(os.urandom(size))
        file.flush()
        return mmap.mmap(file.fileno(), size)


class Engine:
    def __init__(self):
        self.asked = 0
        self.greeted = 0
        self.ready_at = time.monotonic() + float(option("--slow-ready", "0"))
        self.worker = start_worker() if "--worker" in sys.argv else None
        self.dialled = None
        self.deleted = deleted_file(int(option("--deleted"))) if "--deleted" in sys.argv else b""
        if "--dials" in sys.argv:
            self.dialled = socket.create_connection(("127.0.0.1", int(option("--dials"))))
        self.secret = option("--secret", "").encode() * 3
        self.ballast = os.urandom(int(option("--fill", "0")))

    def ask_worker(self):
        self.worker.sendall(b"?")
        return int(self.worker.recv(8))

    def answer(self, path):
        if path == "/health":
            ready = "--never-ready" not in sys.argv and time.monotonic() >= self.ready_at
            return (200, "ok") if ready else (503, "loading")
        if path == "/":
            self.greeted += 1
        if path == "/greeted":
            return 200, str(self.greeted)
        if path == "/count":
            self.asked = self.ask_worker() if self.worker else self.asked + 1
            print("asked", self.asked, flush=True)
            return 200, str(self.asked)
        if path == "/time":
            return 200, str(time.time())
        if path == "/echo":
            try:
                self.dialled.sendall(b"?")
                return 200, self.dialled.recv(1).decode() or "closed"
            except OSError:
                return 200, "closed"
        if path == "/pid":
            return 200, str(os.getpid())
        if path == "/sum":
            return 200, str(sum(self.ballast) + sum(self.deleted[:]))
        if path == "/v1/completions":
            return 200, json.dumps({"choices": [{"text": f"weighs {sum(self.ballast)}"}]})
        return 404, "no such path"

    def serve(self, connection):
        with connection:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    part = connection.recv(65536)
                    if not part:
                        return
                    head += part
                status, body = self.answer(head.split()[1].decode())
                connection.sendall(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                if b"connection: close" in head.lower():
                    return


def leave(seconds):
    """Start a process that leaves the session and has no parent here: a double fork, as daemons do."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if "--forgets" in sys.argv:
                os.execve("/bin/sleep", ["sleep", str(seconds)], {})
            time.sleep(seconds)
        os._exit(0)
    os.waitpid(child, 0)


def fork_away(number, frame):
    for _ in range(20):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
            os._exit(0)


def main():
    if "--forks-on-term" in sys.argv:
        signal.signal(signal.SIGTERM, fork_away)
    if "--exit" in sys.argv:
        print("cannot load the model: out of paper", flush=True)
        sys.exit(int(option("--exit")))
    if "--silent" in sys.argv:
        os.dup2(0, 1)
        os.dup2(0, 2)
    if "--ignore-term" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(int(option("--children", "0"))):
        if os.fork() == 0:
            signal.pause()
            os._exit(0)
    if "--daemon" in sys.argv:
        leave(float(option("--daemon")))
    if "--orphan" in sys.argv:
        child = os.fork()
        if child == 0:
            os.fork()  # the grandchild outlives its parent for a moment
            os._exit(0)
        os.waitpid(child, 0)
    if "--never-listen" in sys.argv:
        signal.pause()
    engine = Engine()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((option("--host", "127.0.0.1"), int(sys.argv[1])))
    listener.listen(64)
    print("listening", flush=True)
    flood = int(option("--flood", "0"))
    while flood > 0:
        flood -= os.write(1, b"a line of a flood\n" * 4096)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=engine.serve, args=(connection,), daemon=True).start()


main()
