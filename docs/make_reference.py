"""Writes the pages that are made from the program: docs/cli.md (every verb's help) and docs/errors.md.

python docs/make_reference.py
"""

# ruff: noqa: TID251 - a script is its own edge

import asyncio
import io
import os
from pathlib import Path

from poorwill.cli.parsing.exit_status import EXIT_STATUS
from poorwill.cli.parsing.verbs import GROUPS, every_verb
from poorwill.cli.run import run
from poorwill.core.errors import ErrorCode
from poorwill.gateway.wire import ERROR_SHAPES

DOCS = Path(__file__).parent
WIDTH = "100"

CLI = """\
# The command line

Made from the program by `docs/make_reference.py`; a test holds it to that.

Every verb about a fleet takes the fleet's directory, or its `fleet.toml`, as an argument or as `--fleet`.
The default is the current directory. Verbs that report take `--json` ([json.md](json.md)). Exit statuses are
in [errors.md](errors.md).
"""

ERRORS = """\
# Error codes and exit statuses

Made from the program by `docs/make_reference.py`; a test holds it to that.

An error over HTTP has the shape of the API that was asked, OpenAI's, Anthropic's or Ollama's, and says
`"source": "poorwill"` if it is poorwill's own. `code` is one of these. The status is its HTTP status, unless
a `200` was committed before ([clients.md](clients.md)). On the command line the same codes give the exit
status, and stand in `{"error": ...}` under `--json`.

Besides: 0 is success, 1 a finding (`check`, `doctor` and `ledger check` found what they looked for), 130 an
interrupt.

| code | HTTP | exit status | when |
| --- | --- | --- | --- |
"""

WHEN = {
    ErrorCode.INVALID_REQUEST: "the request is wrong; change it",
    ErrorCode.PAYLOAD_TOO_LARGE: "the body or the head is larger than allowed",
    ErrorCode.UNSUPPORTED_MEDIA: "the body is compressed",
    ErrorCode.ROUTE_NOT_FOUND: "nothing answers this path; the message names the one that was meant",
    ErrorCode.METHOD_NOT_ALLOWED: "the path takes other methods; `Allow` names them",
    ErrorCode.UNAUTHENTICATED: "no API key, or one that is unknown or revoked",
    ErrorCode.FORBIDDEN: "the key, the user or the web page may not do this",
    ErrorCode.MODEL_NOT_FOUND: "the fleet has no such model; the message lists those it has",
    ErrorCode.HOLD_QUEUE_FULL: "as many requests wait for the wake as may; `Retry-After`",
    ErrorCode.RATE_LIMITED: "the key has reached one of its limits; `Retry-After`",
    ErrorCode.SPEND_LIMIT: "a spend limit is reached; `Retry-After`",
    ErrorCode.WAKE_FAILED: "the wake failed, or one failed a moment ago; `Retry-After`",
    ErrorCode.NO_CAPACITY: "there is no room for the replica; `Retry-After`",
    ErrorCode.DRAINING: "poorwill is shutting down; `Retry-After`",
    ErrorCode.OVERLOADED: "too many connections, or too much memory in use; `Retry-After`",
    ErrorCode.WAKE_TIMEOUT: "the wake budget elapsed; the wake goes on; `Retry-After`",
    ErrorCode.UPSTREAM_CONNECT: "the engine cannot be reached; of `deploy push`: the server",
    ErrorCode.UPSTREAM_PROTOCOL: "the engine's answer was not HTTP",
    ErrorCode.REPLICA_LOST: "the engine died while it worked on the request",
    ErrorCode.UPSTREAM_TIMEOUT: "the engine sent nothing for too long",
    ErrorCode.CLIENT_GONE: "the client left; in the log and the ledger only",
    ErrorCode.LEDGER_UNAVAILABLE: "the ledger cannot be written; what cannot be recorded is not started",
    ErrorCode.CONFIG_INVALID: "`fleet.toml` or the machine must be changed; every problem is listed",
    ErrorCode.IN_USE: "another poorwill serves this fleet",
    ErrorCode.NOT_RUNNING: "no poorwill serves this fleet",
    ErrorCode.INTERNAL: "a defect in poorwill; please report it with the log",
}


def cli_page() -> str:
    """Return the page of every verb's help."""
    os.environ["COLUMNS"] = WIDTH  # argparse asks for it
    lines = [CLI, _block("--help")]
    words = {path for path, _ in every_verb()}
    for group, verbs in GROUPS.items():
        lines.append(f"## {group}\n")
        for name in verbs:
            lines += [f"### poorwill {name}\n", _block(name, "--help")]
            for path in sorted(path for path in words if path[0] == name and len(path) > 1):
                lines += [f"#### poorwill {' '.join(path)}\n", _block(*path, "--help")]
    return "\n".join(lines).rstrip() + "\n"


def errors_page() -> str:
    """Return the page of every code."""
    return ERRORS + "".join(
        f"| `{code}` | {ERROR_SHAPES[code].status} | {EXIT_STATUS[code]} | {WHEN[code]} |\n"
        for code in ErrorCode
    )


PAGES = {"cli.md": cli_page, "errors.md": errors_page}


def _block(*args: str) -> str:
    out = io.StringIO()
    asyncio.run(run(list(args), {}, io.StringIO(), out, out))
    return f"```\n{out.getvalue().strip()}\n```\n"


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
