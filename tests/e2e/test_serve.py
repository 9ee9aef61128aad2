"""`poorwill serve` as its users meet it: clients through a wake, operators, signals, bad luck."""

import asyncio
import io
import json
import signal
import sys
from pathlib import Path

import httpx2
import openai
import pytest

from poorwill.cli.run import run

from .program import Program, marked_processes, spans, write_fleet

CHAT = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}


def client(program: Program, **options: object) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://{program.address}/v1",
        api_key="any",
        max_retries=0,
        **options,  # type: ignore[arg-type]
    )


def test_openai_client_through_a_cold_start(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet, options="load_seconds = 0.5"))
    try:
        with client(program) as openai_client:
            answer = openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
            assert answer.choices[0].message.content
            assert answer.usage.total_tokens > 0
            stream = openai_client.chat.completions.create(**CHAT, stream=True)  # type: ignore[call-overload]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            assert [model.id for model in openai_client.models.list()] == ["toy"]
    finally:
        assert program.stop() == 0
    assert spans(fleet)[-1][0] == "parked.cold"


def test_failed_wake_is_503_and_backs_off(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet, options="fail_start = true", backoff_s=30))
    try:
        with client(program) as openai_client:
            for _ in range(2):  # the second one meets the back-off
                with pytest.raises(openai.InternalServerError) as caught:
                    openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
                assert caught.value.status_code == 503
                assert caught.value.code == "wake_failed"
                assert int(caught.value.response.headers["retry-after"]) >= 1
        assert program.status()["failures"] == 1
    finally:
        assert program.stop() == 0


def test_after_the_budget_the_wake_goes_on(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet, options="load_seconds = 3", budget_s=1, cap_s=30))
    try:
        with client(program) as openai_client:
            with pytest.raises(openai.InternalServerError) as caught:
                openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
            assert (caught.value.status_code, caught.value.code) == (504, "wake_timeout")
            assert int(caught.value.response.headers["retry-after"]) >= 1
        assert program.status()["state"] == "waking"
        assert program.operator("wake").status_code == 200  # joins the wake that went on
        assert program.ask().status_code == 200
    finally:
        assert program.stop() == 0
    assert [cause for cause, _, _ in spans(fleet)].count("failed_wake") == 0


def test_first_wake_uses_the_prediction(fleet: Path) -> None:
    """The toy's prediction is its load time and a fifth of a second; without one it would be 10 s."""
    program = Program.start(write_fleet(fleet, options="load_seconds = 5", budget_s=1, cap_s=30))
    try:
        with client(program) as openai_client:
            with pytest.raises(openai.InternalServerError) as caught:
                openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
            assert caught.value.response.headers["retry-after"] in ("4", "5")
            assert caught.value.response.headers["x-poorwill-wake"]
        waking = program.status()
        assert waking["state"] == "waking" and 0 < waking["ready_in_us"] < 5_000_000
        out = io.StringIO()
        asyncio.run(run(["status", "--fleet", str(fleet)], {}, io.StringIO(), out, io.StringIO()))
        assert "waking cold (weights, ready in about " in out.getvalue()
        chunks = httpx2.stream(
            "POST", f"http://{program.address}/v1/chat/completions", json={**CHAT, "stream": True}
        )
        with chunks as answer:
            first = next(answer.iter_text())
        assert first.startswith(": poorwill waking: "), first
        assert "ready in about" in first and "fails in" in first
    finally:
        assert program.stop() == 0


def test_operator_wakes_and_parks(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        assert program.operator("wake").status_code == 200
        assert program.status()["state"] == "ready"
        there = {"model": "toy", "state": "parked", "tier": "cold"}
        assert program.operator("park").json() == there
        status = program.status()
        assert (status["state"], status["tier"]) == ("parked", "cold")
        assert status["wake"]["count"] == 1
        assert marked_processes(fleet) == []
    finally:
        assert program.stop() == 0


def test_dead_engine_is_started_again(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        assert program.ask().status_code == 200
        (pid,) = marked_processes(fleet)
        Program.kill_group(pid)
        # The death is noticed at once, or by the next request, which may be refused for a moment.
        answers = [program.ask().status_code for _ in range(2)]
        assert set(answers) <= {200, 502, 503}
    finally:
        assert program.stop() == 0


def test_short_idle_time_warns_at_start(
    fleet: Path,
) -> None:
    program = Program.start(write_fleet(fleet))
    assert program.operator("wake").status_code == 200
    assert program.operator("park").status_code == 200
    assert program.stop() == 0
    assert "an idle time is too short" not in (fleet / "serve.log").read_text()
    program = Program.start(write_fleet(fleet, idle_s=0.001))
    try:
        told = (fleet / "serve.log").read_text()
        assert "an idle time is too short" in told and "allow_short_idle = true" in told
        assert program.ask().status_code == 200
    finally:
        assert program.stop() == 0


def test_left_replicas_are_adopted(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet, on_exit="leave"))
    assert program.ask().status_code == 200
    (pid,) = marked_processes(fleet)
    assert program.stop() == 0
    assert marked_processes(fleet) == [pid]
    write_fleet(fleet, on_exit="stop")
    program = Program.start(fleet)
    assert program.status()["pid"] == pid
    assert program.stop(signal.SIGINT) == 0
    assert marked_processes(fleet) == []


def test_second_poorwill_refuses(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    try:
        out, err = io.StringIO(), io.StringIO()
        status = asyncio.run(run(["serve", str(fleet), "--port", "0"], {}, io.StringIO(), out, err))
        assert status == 3
        assert f"pid {program.child.pid}" in err.getvalue()
    finally:
        assert program.stop() == 0


def test_held_requests_fail_at_shutdown(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet, options="never_ready = true"))
    with httpx2.stream(
        "POST",
        f"http://{program.address}/v1/chat/completions",
        json={**CHAT, "stream": True},
        timeout=30,
    ) as response:
        lines = response.iter_lines()
        assert next(lines).startswith(":")  # held, with heartbeats
        program.child.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line.startswith("data:")]
    assert json.loads(rest[0].removeprefix("data:"))["error"]["code"] == "draining"
    assert program.ended() == 0


class Lines(io.StringIO):
    """A stream that tells when a line has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        if "\n" in text:
            self.written.set()
        return count


def test_spend_limit_survives_a_restart(
    fleet: Path,
) -> None:
    # 21 s at $3.60 an hour, to notice a wake and stop it, cost $0.021: a wake might pass the limit.
    write_fleet(fleet)
    toml = (fleet / "fleet.toml").read_text()
    (fleet / "fleet.toml").write_text(toml + '\n[spend]\nday_usd = "0.02"\n')
    for _ in range(2):
        program = Program.start(fleet)
        try:
            with client(program) as openai_client, pytest.raises(openai.RateLimitError) as caught:
                openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
            assert caught.value.code == "spend_limit"
            assert 1 <= int(caught.value.response.headers["retry-after"]) <= 86_400
            assert "has no room for another wake (toy $0.021)" in caught.value.message
            said = asyncio.run(_said(["status", "--fleet", str(fleet)]))
            assert "tripped: the day's spend limit, $0.02, has no room" in said
            assert "lifts by itself at" in said and "00:00 UTC, in " in said
            assert "raise day_usd under [spend] in fleet.toml and reload, or lift it on the dashboard" in said
        finally:
            assert program.stop() == 0
    (fleet / "fleet.toml").write_text(toml + '\n[spend]\nday_usd = "2"\n')
    program = Program.start(fleet)
    try:
        with client(program) as openai_client:
            openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
        assert "within: the day's spend limit, $2.00" in asyncio.run(_said(["status", "--fleet", str(fleet)]))
    finally:
        assert program.stop() == 0


def test_status_shows_an_unwritable_ledger(fleet: Path) -> None:
    program = Program.start(write_fleet(fleet))
    away = fleet / "away.sqlite"
    try:
        with client(program) as openai_client:
            openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
            (fleet / "ledger.sqlite").rename(away)
            with pytest.raises(openai.InternalServerError) as caught:
                while True:  # warm as it is: from the writer's next turn on, within a second, no more
                    openai_client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
        assert caught.value.code == "ledger_unavailable" and "moved" not in str(caught.value)
        said = asyncio.run(_said(["status", "--fleet", str(fleet)]))
        assert "the ledger cannot be written: the file was moved or deleted" in said
        away.rename(fleet / "ledger.sqlite")
    finally:
        assert program.stop() == 0


async def _said(words: list[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    assert await run(words, {}, io.StringIO(), out, err) == 0, err.getvalue()
    return out.getvalue()


async def test_run_serves_until_cancelled(fleet: Path) -> None:
    write_fleet(fleet)
    out, err = Lines(), io.StringIO()
    serving = asyncio.get_running_loop().create_task(
        run(["serve", str(fleet), "--port", "0"], {}, io.StringIO(), out, err)
    )
    await asyncio.wait_for(out.written.wait(), 30)
    address = out.getvalue().split()[1]
    async with httpx2.AsyncClient() as http:
        answer = await http.post(f"{address}/v1/chat/completions", json=CHAT, timeout=30)
        assert answer.status_code == 200
        assert (await http.get(f"{address}/v1/models")).json()["data"][0]["id"] == "toy"
    serving.cancel()
    assert await serving == 0
    assert marked_processes(fleet) == []


def test_a_script_beside_the_file_is_run(fleet: Path) -> None:
    script = f'exec {sys.executable} -P -u -m poorwill.engines.programs.toy_server --port "$1" --model mine\n'
    (fleet / "engine.sh").write_text(script)
    (fleet / "fleet.toml").write_text(
        '[models.mine]\nengine = "command"\ncommand = ["sh", "./engine.sh", "{port}"]\nladder = ["cold"]\n'
    )
    program = Program.start(fleet)
    try:
        body = {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}
        assert program.ask(body).status_code == 200
    finally:
        assert program.stop() == 0
