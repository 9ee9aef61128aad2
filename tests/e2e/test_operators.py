"""What an operator asks a served fleet on the command line: status, top, wake, logs; also from elsewhere."""

import asyncio
import io
import json
import sqlite3
from pathlib import Path

import httpx2
import pytest

from poorwill.cli.run import run

from .program import Program, write_fleet


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def said(*words: str, err: io.StringIO | None = None, **env: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), err or io.StringIO()
    return await run(words, env, io.StringIO(), out, err), out.getvalue(), err.getvalue()


def ask(*words: str, **env: str) -> tuple[int, str, str]:
    return asyncio.run(said(*words, **env))


@pytest.fixture
def program(fleet: Path):
    served = Program.start(write_fleet(fleet, options="load_seconds = 1", ladder='["cold"]'))
    yield served
    assert served.stop() == 0


def test_wake_shows_phases_and_time_left(program: Program, fleet: Path) -> None:
    status, out, err = asyncio.run(said("wake", "toy", "--fleet", str(fleet), err=Terminal()))
    assert status == 0 and "toy: waking cold (" in err and "ready in about" in err
    assert out.startswith("toy is ready after ") and ", from cold: " in out and "weights" in out


def test_status_from_elsewhere_by_url(program: Program, fleet: Path) -> None:
    assert program.ask().status_code == 200
    status, out, _ = ask("status", "--url", f"http://{program.admin}")
    head, row, *_ = out.splitlines()
    assert status == 0 and "TODAY" in head and "LADDER" in head
    assert "$0.0" in row and row.endswith("cold") and "ready (fixed 1m, parks in" in row
    assert ask("top", "--url", f"http://{program.admin}")[1].split()[:2] == head.split()[:2]
    assert ask("park", "toy", "--url", program.admin)[0] == 0
    assert ask("status", "--url", "http://127.0.0.1:1")[0] == 4
    assert ask("status", "--url", "http://[::1")[0] == 2


def test_the_past_from_elsewhere_by_url(program: Program, fleet: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    there = ("--url", program.admin)
    assert program.ask().status_code == 200
    (tmp_path / "now").write_bytes(httpx2.get(f"http://{program.admin}/ledger", timeout=60).content)
    (rows,) = sqlite3.connect(tmp_path / "now").execute("SELECT count(*) FROM requests").fetchone()
    assert rows == 1, "what was answered is in a copy, at once"
    own = ask("bill", str(fleet), "--json")
    status, out, _ = ask("bill", *there, "--json", HOME=home)
    lines = [[(one["model"], one["cause"]) for one in json.loads(told)["lines"]] for told in (own[1], out)]
    assert status == 0 and lines[0] == lines[1]
    assert ask("anatomy", "toy", *there, HOME=home)[1].startswith("toy-0.1  toy from cold: ")
    assert ask("plan", "--from-ledger", "--active-usd-h", "$3.80", *there, HOME=home)[0] == 0
    assert ask("ledger", "backup", str(tmp_path / "copy"), *there, HOME=home)[0] == 0
    assert ask("ledger", "check", "--ledger", str(tmp_path / "copy"))[0] == 0
    status, _, said = ask("keys", "add", "ann", *there, HOME=home)
    assert status == 2 and "on the machine that serves the fleet" in said
    assert "run it where the fleet is served" in ask("doctor", *there)[2]
    (copy,) = Path(home, ".cache", "poorwill", "ledgers").glob("*.sqlite")
    assert copy.stat().st_mode & 0o077 == 0
    assert not list(fleet.glob(".copy-*")), "nothing is left where the fleet is served"


def test_logs_of_an_engine_leave_no_escapes(program: Program, fleet: Path) -> None:
    assert program.ask().status_code == 200
    log = fleet / "logs" / "toy-0.log"
    with log.open("a") as file:
        file.write("\x1b[31mred\x1b[0m \x07bell \u202eturned\n")
    served = ask("logs", "toy", "--fleet", str(fleet))
    assert served[0] == 0 and served[1].endswith("red bell turned\n")
    assert ask("logs", "toy-0", "--url", f"http://{program.admin}")[1] == served[1]
    status, _, err = ask("logs", "nobody", "--fleet", str(fleet))
    assert status == 2 and "toy" in err


def test_logs_without_a_service(fleet: Path) -> None:
    served = Program.start(write_fleet(fleet))
    assert served.ask().status_code == 200
    assert served.stop() == 0
    status, out, _ = ask("logs", "toy", "--fleet", str(fleet))
    assert status == 0 and out


async def test_followed_logs_go_on(program: Program, fleet: Path) -> None:
    log = fleet / "logs" / "toy-0.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("first\n")
    came = asyncio.Event()

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            if "second" in text:
                came.set()
            elif "first" in text:
                with log.open("a") as file:
                    file.write("second\n")
            return super().write(text)

    words = ["logs", "toy", "-f", "--fleet", str(fleet)]
    following = asyncio.ensure_future(run(words, {}, io.StringIO(), Out(), io.StringIO()))  # noqa: TID251
    async with asyncio.timeout(30):
        await came.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


def test_a_failed_model_is_marked(fleet: Path) -> None:
    served = Program.start(write_fleet(fleet, options="fail_start = true", backoff_s=300))
    try:
        assert served.operator("wake").status_code == 503
        row = ask("status", str(fleet))[1].splitlines()[1]
        assert "FAILED, not tried again for " in row and "parked cold" not in row
    finally:
        assert served.stop() == 0
