"""A proxy as clouds put before engines: TLS, a key, a path before the engine's own, pages of its own."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.gateway.bridge_site import serving_tls

PAGE = b"<html><h1>502 Bad Gateway</h1></html>"


@dataclass
class Seen:
    """What the proxy was sent."""

    url: str
    keys: set[str] = field(default_factory=set)
    pages: int = 0


@contextmanager
def tls_proxy(pem: Path, port: int, *, key: str) -> Iterator[Seen]:
    """Pass what comes to https://localhost:PORT/eng on to a port of this machine, for the one key.

    The first request gets a page of the proxy's own, as while a machine boots.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            seen.keys.add(self.headers.get("authorization", ""))
            if self.headers.get("authorization") != f"Bearer {key}":
                self.reply(401, "application/json", b'{"error": {"message": "wrong key"}}')
                return
            if seen.pages == 0:
                self.page()
                return
            engine = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                path = self.path.removeprefix("/eng")
                engine.request(self.command, path, body, {"content-type": "application/json"})
                answer = engine.getresponse()
                self.reply(answer.status, answer.headers["content-type"], answer.read())
            except OSError:
                self.page()
            finally:
                engine.close()

        do_POST = do_GET

        def page(self) -> None:
            seen.pages += 1
            self.reply(502, "text/html", PAGE)

        def reply(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = serving_tls(pem).wrap_socket(server.socket, server_side=True)
    seen = Seen(f"https://localhost:{server.server_address[1]}/eng")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
