"""A fake hosted API: a real HTTP server that answers chat completions with prices that are no accident."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-of-the-operator"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
PRICES = "input_usd_mtok = 0.59, output_usd_mtok = 0.79"
COST_NUSD = 11 * 590 + 7 * 790


class FakeHostedApi:
    """What it was asked, and how it is to behave."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        """Streams wait for it after their first event."""
        self.port = 0

    def hosted(self, **more: str) -> str:
        """Return the value of `hosted` in fleet.toml."""
        extra = "".join(f', {key} = "{value}"' for key, value in more.items())
        url = f"http://127.0.0.1:{self.port}/openai/v1"
        return (
            '{ provider = "fake", model = "fake-8b", bridge = true, '
            f'url = "{url}", key_env = "FAKE_KEY", {PRICES}{extra} }}'
        )


@contextmanager
def fake_hosted_api() -> Iterator[FakeHostedApi]:
    """Run a fake hosted API on loopback."""
    fake = FakeHostedApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["authorization"] != f"Bearer {KEY}":
                self.whole(401, {"error": {"message": "Invalid API Key"}})
                return
            ask = json.loads(body)
            fake.asked.append(ask)
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            if ask.get("stream"):
                self.stream(ask)
            else:
                message = {"role": "assistant", "content": "from afar"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self.whole(200, {**shell(ask), "choices": [choice], "usage": USAGE})

        def whole(self, status: int, document: object) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def stream(self, ask: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for text in ("from ", "afar"):
                delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                self.event(json.dumps({**shell(ask), "choices": [delta]}))
                fake.go_on.wait(30)
            if (ask.get("stream_options") or {}).get("include_usage"):
                self.event(json.dumps({**shell(ask), "choices": [], "usage": USAGE}))
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def event(self, data: str) -> None:
            line = f"data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        fake.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def shell(ask: dict[str, Any]) -> dict[str, Any]:
    """Return what every answer has."""
    return {"id": "chatcmpl-9", "object": "chat.completion", "created": 1, "model": ask["model"]}
