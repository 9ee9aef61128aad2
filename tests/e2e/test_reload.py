"""A served fleet follows its file: by SIGHUP, by `poorwill reload`, by a watch; and never by half."""

import asyncio
import io
import os
import signal
import threading
from pathlib import Path

import httpx2
import pytest
from tests.waiting import wait_until

from poorwill.cli.run import run

from .program import Program, marked_processes, notes, write_fleet

MORE = """
[models.second]
engine = "toy"
options = { load_seconds = 0.05 }
"""


async def said(words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return await run(words, {}, io.StringIO(), out, err), out.getvalue(), err.getvalue()


def reload(fleet: Path) -> tuple[int, str, str]:
    return asyncio.run(said(["reload", str(fleet)]))


def append(fleet: Path, text: str) -> None:
    file = fleet / "fleet.toml"
    file.write_text(file.read_text() + text)


def change(fleet: Path, old: str, new: str) -> None:
    file = fleet / "fleet.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def models(program: Program) -> list[str]:
    return [one["id"] for one in httpx2.get(f"http://{program.address}/v1/models", timeout=30).json()["data"]]


def test_reload_adds_and_removes_models(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        assert program.ask().status_code == 200
        engines = marked_processes(fleet)
        append(fleet, MORE)
        status, out, _ = reload(fleet)
        assert (status, out) == (0, "models.second is new\n")
        ask = {"model": "second", "messages": [{"role": "user", "content": "hi"}]}
        assert program.ask(ask).status_code == 200
        change(fleet, MORE, "")
        assert reload(fleet)[1] == "models.second leaves\n"
        wait_until(lambda: models(program) == ["toy"])
        assert program.ask(ask).json()["error"]["code"] == "model_not_found"
        wait_until(lambda: marked_processes(fleet) == engines)  # that of `toy` was not touched
        assert reload(fleet)[1] == "nothing changed\n"
    finally:
        assert program.stop() == 0


def test_hangup_reloads_and_never_kills(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        append(fleet, MORE)
        for _ in range(5):
            program.child.send_signal(signal.SIGHUP)
        wait_until(lambda: models(program) == ["toy", "second"])
        assert program.child.poll() is None
    finally:
        assert program.stop() == 0
    assert "the configuration was read again" in (fleet / "serve.log").read_text()


def test_faulty_file_changes_nothing(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        assert program.ask().status_code == 200
        engines = marked_processes(fleet)
        append(fleet, '\n[models.broken]\nengine = "nonsense"\n')
        status, _, err = reload(fleet)
        assert status == 2 and "models.broken.engine" in err and "nothing was changed" in err
        shown = httpx2.get(f"http://{program.admin}/status", timeout=30).json()["configuration"]
        assert "models.broken.engine" in shown["problems"][0] and shown["refused_us"]
        told = asyncio.run(said(["status", str(fleet)]))[1]
        assert "fleet.toml was refused" in told and "models.broken.engine" in told
        assert models(program) == ["toy"] and marked_processes(fleet) == engines
        metrics = httpx2.get(f"http://{program.admin}/metrics", timeout=30).text
        assert "poorwill_config_last_reload_successful 0" in metrics
    finally:
        assert program.stop() == 0
    assert "the configuration is faulty" in (fleet / "serve.log").read_text()
    assert [text for kind, text in notes(fleet) if kind == "reload_refused" and "broken" in text]


def test_changed_engine_starts_anew(fleet: Path) -> None:
    """A stream goes on to its end on the old engine; who comes meanwhile gets the new one."""
    program = Program.start(write_fleet(fleet, options="load_seconds = 0.05, tokens_per_second = 10"))
    try:
        old = stream(program, 30)
        (before,) = marked_processes(fleet)
        change(fleet, "tokens_per_second = 10", "tokens_per_second = 1000")
        status, out, _ = reload(fleet)
        assert status == 0 and "its engine starts anew with its next wake" in out
        assert program.ask().status_code == 200
        assert old.whole, "the new engine serves once the old one is done"
        (after,) = marked_processes(fleet)
        assert after != before
    finally:
        assert program.stop() == 0


def test_some_keys_wait_for_a_restart(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        change(fleet, "[gateway]", "[gateway]\nmax_events = 7\nmax_requests_per_key = 3")
        status, out, _ = reload(fleet)
        assert status == 0
        assert out.splitlines() == ["gateway.max_requests_per_key", "gateway.max_events: needs a restart"]
        assert "gateway.max_events" in asyncio.run(said(["status", str(fleet)]))[1]
    finally:
        assert program.stop() == 0


def test_gateway_goes_by_what_is_reloaded(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        with httpx2.Client(base_url=f"http://{program.address}", timeout=60) as client:  # one connection
            body = {"model": "toy", "messages": [{"role": "user", "content": "x" * 500}]}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
            change(fleet, "[gateway]", "[gateway]\nmax_body = 300")
            assert reload(fleet)[0] == 0
            assert client.post("/v1/chat/completions", json=body).status_code == 413
    finally:
        assert program.stop() == 0


def test_watched_file_is_reloaded(fleet: Path) -> None:
    write_fleet(fleet)
    change(fleet, "[fleet]", "[fleet]\nreload_on_change = true")
    program = Program.start(fleet)
    try:
        other = fleet / "fleet.toml.new"
        other.write_text((fleet / "fleet.toml").read_text() + MORE)
        os.replace(other, fleet / "fleet.toml")
        wait_until(lambda: models(program) == ["toy", "second"])
    finally:
        assert program.stop() == 0


class Stream(threading.Thread):
    """Reads one streamed answer to its end."""

    def __init__(self, program: Program, tokens: int) -> None:
        super().__init__()
        self.program, self.tokens = program, tokens
        self.begun = threading.Event()
        self.seen: list[str] = []
        self.whole = False

    def run(self) -> None:
        url = f"http://{self.program.address}/v1/chat/completions"
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": "toy", "messages": messages, "stream": True, "max_tokens": self.tokens}
        with httpx2.stream("POST", url, json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    self.begun.set()
                    self.seen.append(line)
        self.whole = self.seen[-1] == "data: [DONE]"


def stream(program: Program, tokens: int) -> Stream:
    """Begin a stream; return when its first token is here."""
    reader = Stream(program, tokens)
    reader.start()
    assert reader.begun.wait(60)
    return reader


@pytest.mark.parametrize("verb", ["status", "reload"])
def test_nobody_serves(fleet: Path, verb: str) -> None:
    write_fleet(fleet)
    assert asyncio.run(said([verb, str(fleet)]))[0] == 4
