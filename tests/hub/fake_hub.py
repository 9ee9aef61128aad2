"""A stand-in for the Hugging Face hub: its documented API over real HTTP, with failures to order.

`/api/models/ORG/NAME/revision/REV`, `/ORG/NAME/resolve/REV/FILE` with ETag, X-Repo-Commit, X-Linked-Etag and
X-Linked-Size, a redirect to another address for large files, and Range.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


@dataclass(kw_only=True)
class FakeHub:
    files: dict[str, bytes]
    token: str = ""
    cut_after: int | None = None
    """Bytes of a large file after which the connection is cut, every time."""
    cuts: int = 10**6
    lies: int = 0
    """How many answers of large files have one wrong byte."""
    stall: bool = False
    """After `cut_after` bytes it waits for `resume` instead of cutting."""
    claims: int | None = None
    """The size that the hub tells for every large file; else the true one."""
    stalled: Event = field(default_factory=Event)
    resume: Event = field(default_factory=Event)
    url: str = ""
    elsewhere: str = ""
    """Where large files are redirected to: another host, as the hub does."""
    ranges: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    sent: int = 0

    def large(self, name: str) -> bool:
        return name.endswith((".gguf", ".safetensors"))


def handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if hub.token and not path.startswith("/cdn/"):
                if self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self.answer(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
                    return
            if path.startswith("/api/models/org/name"):
                self.answer(200, json.dumps(info(hub)).encode(), {"Content-Type": "application/json"})
            elif path.startswith("/org/name/resolve/"):
                self.resolve(path.split("/", 5)[5])
            elif path.startswith("/cdn/"):
                self.content(path.removeprefix("/cdn/"))
            else:
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def resolve(self, name: str) -> None:
            content = hub.files.get(name)
            if content is None:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                return
            sha = hashlib.sha256(content).hexdigest()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha[:40]}"'}
            if hub.large(name):
                headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
                self.answer(302, b"", {**headers, "Location": f"{hub.elsewhere}/cdn/{name}"})
            else:
                self.answer(200, content, headers)

        def content(self, name: str) -> None:
            content = hub.files[name]
            begin = 0
            if wanted := self.headers.get("Range"):
                begin = int(wanted.removeprefix("bytes=").partition("-")[0])
                hub.ranges.append(wanted)
            body = content[begin:]
            if hub.lies:
                hub.lies -= 1
                body = bytes([body[0] ^ 1]) + body[1:]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body)))
            if wanted:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if hub.cut_after is not None and hub.cuts > 0:
                hub.cuts -= 1
                self.wfile.write(body[: hub.cut_after])
                self.wfile.flush()
                hub.sent += len(body[: hub.cut_after])
                if hub.stall:
                    hub.stalled.set()
                    hub.resume.wait(60)
                self.close_connection = True
                return
            self.wfile.write(body)
            hub.sent += len(body)

    return Handler


def info(hub: FakeHub) -> dict[str, object]:
    siblings = []
    for name, content in hub.files.items():
        size = hub.claims if hub.claims and hub.large(name) else len(content)
        one: dict[str, object] = {"rfilename": name, "size": size, "blobId": "b" * 40}
        if hub.large(name):
            sha = hashlib.sha256(content).hexdigest()
            one["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
        siblings.append(one)
    return {"id": "org/name", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.elsewhere = f"http://localhost:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()
