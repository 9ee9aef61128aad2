#!/usr/bin/env python3
"""Stands for poorwill on the server: drains at first, then serves; says which file it is."""

import http.server
import json
import os
from pathlib import Path

ANSWERS = iter(["draining"] * int(os.environ.get("SERVER_DRAINS", "1")))  # noqa: TID251


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = next(ANSWERS, "ok") if self.path == "/healthz" else "not here"
        body = json.dumps({"status": status, "file": Path(__file__).read_text()[-6:]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.HTTPServer(("127.0.0.1", int(os.environ["SERVER_PORT"])), Health).serve_forever()  # noqa: TID251
# one
