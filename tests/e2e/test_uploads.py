"""A form of hundreds of megabytes passes through a process that stays small."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from .program import Program

MB = 2**20
ENGINE = """
import hashlib, http.server, json, sys

class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, body, status=200):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(b"{}")

    def do_POST(self):
        left, size = int(self.headers["content-length"]), 0
        while size < left:
            size += len(self.rfile.read(min(left - size, 2**18)))
        if not self.path.startswith("/v1/audio/"):  # like whisper-server, which knows no text
            return self.reply(b"File Not Found", 404)
        self.reply(json.dumps({"size": size}).encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Engine).serve_forever()
"""


def form(size: int) -> Iterator[bytes]:
    """A form whose `model` comes last, as curl sends it if it is given last."""
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    for _ in range(size // MB):
        yield bytes(MB)
    yield b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'


def peak_bytes(pid: int) -> int:
    """The most memory that a process had at once, without pages of files that it shares."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("size_mb", [64, pytest.param(500, marks=pytest.mark.nightly)])
def test_a_huge_form_takes_little_memory(fleet: Path, size_mb: int) -> None:
    (fleet / "engine.py").write_text(ENGINE)
    command = f'["{sys.executable}", "{fleet / "engine.py"}", "{{port}}"]'
    (fleet / "fleet.toml").write_text(
        f'[models.whisper]\nengine = "command"\ncommand = {command}\nready_path = "/"\n'
        '[gateway]\nadmin = "127.0.0.1:0"\n[fleet]\non_exit = "stop"\n'
    )
    program = Program.start(fleet)
    try:
        program.ask({"model": "whisper", "messages": []})
        before = peak_bytes(program.child.pid)
        got = httpx2.post(
            f"http://{program.address}/v1/audio/transcriptions",
            content=form(size_mb * MB),
            headers={"content-type": "multipart/form-data; boundary=b"},
            timeout=300,
        )
        assert got.status_code == 200, got.text
        assert got.json()["size"] > size_mb * MB
        assert peak_bytes(program.child.pid) - before < 16 * MB
    finally:
        program.stop()
