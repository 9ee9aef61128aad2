"""The bridge as its users meet it: a real fleet, the official client, a hosted API that is a fake."""

import asyncio
import io
import json
import signal
import sqlite3
import ssl
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from poorwill.cli.run import run
from poorwill.compose.bridges import hosted_apis
from poorwill.config import load_fleet

from .fake_hosted import COST_NUSD, KEY, FakeHostedApi, fake_hosted_api
from .program import Program, assert_tiles, write_fleet
from .test_serve import client

HELLO: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def fake() -> Iterator[FakeHostedApi]:
    with fake_hosted_api() as fake:
        yield fake


def bridged_fleet(directory: Path, hosted: str, *, spend: str = "", **changes: object) -> Path:
    """Write a fleet whose toy model has a bridge."""
    write_fleet(directory, **changes)
    path = directory / "fleet.toml"
    text = path.read_text().replace('engine = "toy"\n', f'engine = "toy"\nhosted = {hosted}\n')
    path.write_text(f"{text}\n{spend}")
    return directory


def poorwill(*words: str, **env: str) -> tuple[int, str]:
    out = io.StringIO()
    status = asyncio.run(run(words, env, io.StringIO(), out, out))
    return status, out.getvalue()


def rows(directory: Path, columns: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(directory / "ledger.sqlite")
    try:
        return db.execute(f"SELECT {columns} FROM request_rows ORDER BY arrived_us").fetchall()
    finally:
        db.close()


def test_nobody_waits_and_the_bill_shows_it(fleet: Path, fake: FakeHostedApi) -> None:
    bridged_fleet(fleet, fake.hosted(), options="load_seconds = 2")
    status, secret = poorwill("keys", "add", "alice", "--fleet", str(fleet), FAKE_KEY=KEY)
    assert status == 0
    secret = next(word for word in secret.split() if word.startswith("pw-"))
    program = Program.start(fleet, FAKE_KEY=KEY)
    try:
        base = f"http://{program.address}/v1"
        with openai.OpenAI(base_url=base, api_key=secret, max_retries=0, timeout=10) as alice:
            create = alice.chat.completions.with_raw_response.create
            first = create(model="toy", messages=HELLO)
            assert first.headers["x-poorwill-bridge"] == "fake/fake-8b"
            assert first.parse().choices[0].message.content == "from afar"
            assert program.status()["state"] == "waking"
            stream = alice.chat.completions.create(
                model="toy", messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
            text = [part.choices[0].delta.content or "" for part in stream if part.choices]
            assert "".join(text) == "from afar"
            assert program.operator("wake").status_code == 200  # joins the wake they began
            here = create(model="toy", messages=HELLO)
            assert "x-poorwill-bridge" not in here.headers
            assert here.parse().choices[0].message.content != "from afar"
        assert [ask["model"] for ask in fake.asked] == ["fake-8b", "fake-8b"]
        assert secret not in str(fake.headers)
        told = poorwill("status", "--fleet", str(fleet), FAKE_KEY=KEY)[1]
        assert "toy: bridge to fake/fake-8b while it wakes: 2 requests since serve began" in told
    finally:
        assert program.stop() == 0
    assert KEY not in (fleet / "serve.log").read_text()
    assert rows(fleet, "bridge, bridge_nusd, replica, outcome, key") == [
        ("fake/fake-8b", COST_NUSD, None, "ok", "alice"),
        ("fake/fake-8b", COST_NUSD, None, "ok", "alice"),
        (None, 0, "toy-0", "ok", "alice"),
    ]
    assert_tiles(fleet)
    assert poorwill("ledger", "check", "--fleet", str(fleet), FAKE_KEY=KEY)[0] == 0
    _bill_adds_up(fleet)


def _bill_adds_up(fleet: Path) -> None:
    ask = ("bill", "--fleet", str(fleet), "--by", "cause,key", "--json")
    bill = json.loads(poorwill(*ask, FAKE_KEY=KEY)[1])
    [crossed] = [line for line in bill["lines"] if line["cause"] == "bridge"]
    assert (crossed["key"], crossed["cost_nusd"]) == ("alice", 2 * COST_NUSD)
    assert sum(line["cost_nusd"] for line in bill["lines"]) == bill["totals"][0]["cost_nusd"]
    # The wake was for those that crossed meanwhile: it is not overhead.
    woke = [line for line in bill["lines"] if line["cause"].startswith("wake.")]
    assert woke and {line["key"] for line in woke} == {"alice"}
    count = bill["figures"][0]["count"]
    assert (count["bridged"], count["bridged_without_usage"]) == (2, 0)
    text = poorwill("bill", "--fleet", str(fleet), FAKE_KEY=KEY)[1]
    assert "2 requests went to a hosted API" in text
    statement = poorwill("bill", "--fleet", str(fleet), "--invoice", "alice", FAKE_KEY=KEY)[1]
    assert "Other APIs" in statement


def test_no_usage_is_counted_as_unknown(fleet: Path, fake: FakeHostedApi) -> None:
    program = Program.start(bridged_fleet(fleet, fake.hosted(), options="load_seconds = 2"), FAKE_KEY=KEY)
    try:
        with client(program) as anybody:
            stream = anybody.chat.completions.create(model="toy", messages=HELLO, stream=True)
            assert len(list(stream)) == 2
    finally:
        assert program.stop() == 0
    assert rows(fleet, "bridge, bridge_nusd, tokens_in, counted") == [("fake/fake-8b", 0, None, 1)]
    text = poorwill("bill", "--fleet", str(fleet), FAKE_KEY=KEY)[1]
    assert "1 request went to a hosted API; 1 without usage, whose cost is not known" in text
    assert poorwill("ledger", "check", "--fleet", str(fleet), FAKE_KEY=KEY)[0] == 0


def test_spend_limit_stops_the_bridge(fleet: Path, fake: FakeHostedApi) -> None:
    """A request crosses only if the most that it may cost fits; if not, it waits for the replica."""
    body = json.dumps({"model": "toy", "messages": HELLO, "max_tokens": 10}).encode()
    directory = bridged_fleet(fleet, fake.hosted(), options="load_seconds = 2")
    path = directory / "fleet.toml"
    path.write_text(path.read_text().replace('active_usd_h = "3.60"', "active_usd_h = 0"))
    [api] = hosted_apis(
        load_fleet(str(path), {"FAKE_KEY": KEY}), env={"FAKE_KEY": KEY}, log=ToyLog()
    ).values()
    # Enough for one such request, not for what the first one cost and one more.
    limit = Decimal(api.most_nusd(0, body) + COST_NUSD // 2).scaleb(-9)
    path.write_text(f'{path.read_text()}[spend]\nday_usd = "{limit}"\n')
    program = Program.start(directory, FAKE_KEY=KEY)
    try:
        url = f"http://{program.address}/v1/chat/completions"
        json_body = {"content-type": "application/json"}
        first, second = (requests.post(url, data=body, headers=json_body, timeout=20) for _ in range(2))
        assert first.headers["x-poorwill-bridge"] == "fake/fake-8b"
        assert second.status_code == 200 and "x-poorwill-bridge" not in second.headers
        assert len(fake.asked) == 1
    finally:
        assert program.stop() == 0


def test_refused_key_leaves_it_to_the_wake(fleet: Path, fake: FakeHostedApi) -> None:
    program = Program.start(
        bridged_fleet(fleet, fake.hosted(), options="load_seconds = 0.3"), FAKE_KEY="sk-wrong"
    )
    try:
        with client(program) as anybody:
            answer = anybody.chat.completions.create(model="toy", messages=HELLO)
            assert answer.model == "toy"
        assert '"why":"status 401"' in (fleet / "serve.log").read_text()
        assert "sk-wrong" not in (fleet / "serve.log").read_text()
    finally:
        assert program.stop() == 0
    assert rows(fleet, "bridge, replica, outcome") == [(None, "toy-0", "ok")]


def test_failed_wake_crosses_the_bridge(fleet: Path, fake: FakeHostedApi) -> None:
    hosted = fake.hosted(when="failed")
    program = Program.start(
        bridged_fleet(fleet, hosted, options="fail_start = true", backoff_s=30), FAKE_KEY=KEY
    )
    try:
        with client(program) as anybody:
            for _ in range(2):  # the second one meets the back-off
                answer = anybody.chat.completions.create(model="toy", messages=HELLO)
                assert answer.choices[0].message.content == "from afar"
        assert program.status()["failures"] == 1
    finally:
        assert program.stop() == 0


def test_shutdown_waits_for_the_bridge(fleet: Path, fake: FakeHostedApi) -> None:
    program = Program.start(bridged_fleet(fleet, fake.hosted(), options="load_seconds = 30"), FAKE_KEY=KEY)
    fake.go_on.clear()
    with client(program) as anybody:
        stream = anybody.chat.completions.create(model="toy", messages=HELLO, stream=True)
        parts = iter(stream)
        assert next(parts).choices[0].delta.content == "from "
        program.child.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError):  # nobody new is let in: it is ending
            while True:
                anybody.chat.completions.create(model="toy", messages=HELLO)
        fake.go_on.set()
        assert next(parts).choices[0].delta.content == "afar"
        assert list(parts) == []
    assert program.stop() == 0


def test_https_is_verified(fleet: Path) -> None:
    fake = FakeHostedApi()
    bridged_fleet(fleet, fake.hosted().replace("http://127.0.0.1:0", "https://api.example"))
    settings = load_fleet(str(fleet / "fleet.toml"), {"FAKE_KEY": KEY})
    [api] = hosted_apis(settings, env={"FAKE_KEY": KEY}, log=ToyLog()).values()
    assert api.tls is not None
    assert api.tls.verify_mode is ssl.CERT_REQUIRED and api.tls.check_hostname
    assert (api.host, api.port, api.at_once) == ("api.example", 443, True)
    assert api.prices(0, 11).cost(11, 7).nusd == COST_NUSD


class ToyLog:
    def info(self, message: str, /, **fields: object) -> None:
        assert KEY not in str(fields)

    warning = error = info


def test_every_mistake_in_a_bridge_is_named(fleet: Path, fake: FakeHostedApi) -> None:
    hosted = '{ provider = "nobody", model = "nothing", bridge = true, url = "https://x.example/v1", '
    bridged_fleet(fleet, hosted + 'key_env = "FAKE_KEY" }')
    status, told = poorwill("check", str(fleet))
    assert status == 2
    assert "hosted.key_env: FAKE_KEY is not set in the environment" in told
    status, told = poorwill("check", str(fleet), FAKE_KEY=KEY)
    assert status == 2
    assert "fleet.toml:11: models.toy.hosted.model: genai-prices" in told
    assert "has no price for nobody/nothing" in told
    assert "hint: give input_usd_mtok and output_usd_mtok" in told
    status, told = poorwill("serve", str(fleet), "--port", "0", FAKE_KEY=KEY)
    assert status == 2 and "has no price for nobody/nothing" in told
    bridged_fleet(fleet, fake.hosted())
    status, told = poorwill("check", str(fleet), FAKE_KEY=KEY)
    assert status == 0 and "bridge to fake/fake-8b while it wakes" in told
