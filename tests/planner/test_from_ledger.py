"""`poorwill plan --from-ledger`: one's own history, with one's own rates, wakes and policy."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.planner import units

from poorwill.core.entries import (
    Alive,
    ParkEnded,
    ReplicaCreated,
    RequestEnded,
    SpanOpened,
    WakeBegan,
    WakeEnded,
)
from poorwill.core.words import Tier
from poorwill.ledger.history.demand import demanded_models, past_requests
from poorwill.ledger.schema import connect_writer, migrate, reading
from poorwill.ledger.writing.entries import Applier

S = 1_000_000
START = 1_800_000_000 * S
"""2027-01-15 08:00 UTC."""
DAY = 86_400 * S

FLEET = """
[fleet]
directory = "{directory}"

[[rates]]
active_usd_h = 3.6
source = "a test"

[models.m]
engine = "toy"
policy = {policy}
"""


def request(number, arrived, leased, ended, *, outcome="ok", status=200, replica="m-0"):
    return RequestEnded(
        request=f"r{number}",
        model="m",
        replica=replica if leased is not None else None,
        key="",
        path="/v1/chat/completions",
        arrived_us=START + arrived,
        leased_us=None if leased is None else START + leased,
        first_byte_us=None,
        ended_us=START + ended,
        status=status,
        outcome=outcome,
        tokens_in=1000,
        tokens_out=100,
    )


def story(days=20):
    """A wake of 100 s each morning, then requests every ten minutes for an hour; parks of 10 s."""
    entries = [ReplicaCreated(replica="m-0", model="m", driver="cold", at_us=START)]
    entries.append(SpanOpened(replica="m-0", at_us=START, cause="parked.cold", tier=Tier.COLD))
    number = 0
    for day in range(days):
        morning = day * DAY + 3600 * S
        wake = f"m.0.{day + 1}"
        entries += [
            WakeBegan(
                wake=wake, replica="m-0", model="m", generation=day + 1, at_us=START + morning,
                from_tier=Tier.COLD, asked_by="", why="demand", budget_us=None, held=1,
            ),
            SpanOpened(replica="m-0", at_us=START + morning, cause="wake.spawn", wake=wake, tier=Tier.COLD),
            WakeEnded(wake=wake, replica="m-0", at_us=START + morning + 100 * S, ok=True),
            SpanOpened(replica="m-0", at_us=START + morning + 100 * S, cause="serving"),
        ]  # fmt: skip
        for turn in range(6):
            arrived = morning + turn * 600 * S
            leased = arrived + (100 * S if turn == 0 else 0)
            entries.append(request(number, arrived, leased, leased + 20 * S))
            number += 1
        idle = morning + 5 * 600 * S + 20 * S
        entries += [
            SpanOpened(replica="m-0", at_us=START + idle, cause="linger"),
            SpanOpened(replica="m-0", at_us=START + idle + 700 * S, cause="park", tier=Tier.COLD),
            ParkEnded(
                replica="m-0", at_us=START + idle + 710 * S, began_us=START + idle + 700 * S,
                to_tier=Tier.COLD, ok=True,
            ),
            SpanOpened(replica="m-0", at_us=START + idle + 710 * S, cause="parked.cold", tier=Tier.COLD),
        ]  # fmt: skip
    entries.append(request(number, 5 * S, None, 6 * S, outcome="unauthenticated", status=401))
    entries.append(request(number + 1, 7 * S, None, 307 * S, outcome="wake_timeout", status=504))
    entries.append(Alive(at_us=START + days * DAY))
    return entries


@pytest.fixture
def fleet(tmp_path):
    def made(idle=900, entries=None, policy=None):
        directory = tmp_path / "state"
        directory.mkdir(exist_ok=True)
        path = str(directory / "ledger.sqlite")
        with closing(connect_writer(path)) as db:
            migrate(db, path)
            db.execute("BEGIN")
            Applier(db).apply(story() if entries is None else entries)
            db.execute("COMMIT")
        file = tmp_path / "fleet.toml"
        fixed = f'{{ name = "fixed", idle_s = {idle} }}'
        file.write_text(FLEET.format(directory=directory, policy=policy or fixed))
        return str(file), path

    return made


def test_demand_is_what_wanted_a_replica(fleet):
    _, path = fleet()
    with reading(path) as db:
        assert demanded_models(db) == ["m"]
        past = past_requests(db, "m", from_us=0, to_us=START + 2 * DAY)
    assert len(past) == 1 + 6 + 6
    assert past[0].served_us is None and past[1].served_us == 20 * S


async def test_the_ledgers_rates_and_wakes_are_used(plan, fleet):
    file, _ = fleet()
    ran = await plan("--from-ledger", "--fleet", file, "--json")
    assert ran.status == 0, ran.err
    found = units.read(ran.out)
    assert found["requests"] == 20 * 6 + 1
    assert found["span_s"] == 20 * 86_400  # from the ledger's first second to its last
    fixed = next(p for p in found["policies"] if p["name"] == "fixed-900s")
    assert fixed["wakes"] == 21
    assert fixed["wait"]["max_s"] == 100


def last_line(ran):
    assert ran.status == 0, ran.err
    return ran.out.splitlines()[-1]


async def test_it_ends_with_advice(plan, fleet):
    file, _ = fleet(idle=900)
    ran = await plan("--from-ledger", "--fleet", file)
    last = last_line(ran)
    assert "too little" not in ran.out
    # 110 s is the break-even. Each of 20 days it parks five times more, and lingers 790 s less.
    assert last.startswith("your idle_s is 900; 110 would have saved $")
    assert last.endswith("in the last 20d and made 100 more requests wait")
    # Five gaps of 580 s ready against 110 + 10 + 100 s in transit, one linger of 900 s against 110 s.
    told = float(last.split("$")[1].split(" ")[0])
    assert told == pytest.approx(0.001 * (20 * (5 * (580 - 220) + 790) + 790), rel=0.05)


async def test_thirty_days_are_last_month(plan, fleet):
    file, _ = fleet(entries=story(days=40))
    ran = await plan("--from-ledger", "--fleet", file)
    assert " last month and made 150 more requests wait" in last_line(ran)
    longer = await plan("--from-ledger", "--fleet", file, "--span-s", str(35 * 86_400))
    assert " in the last 35d and made 175 more " in last_line(longer)


async def test_a_period_is_named_as_it_was_asked_for(plan, fleet):
    file, _ = fleet()
    words = ("--from-ledger", "--fleet", file)
    day = await plan(*words, "--period", "2027-01-18")
    assert " in 2027-01-18 and made 5 more " in last_line(day)
    since = await plan(*words, "--from", "2027-02-01", "--to", "2027-02-03T08:00:00Z")
    assert " from 2027-02-01 until 2027-02-03T08:00:00Z and made " in last_line(since)
    cut = await plan(*words, "--period", "2027-02")
    assert " from 2027-02-01 until 2027-02-04T08:00:00Z and made " in last_line(cut)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--period", "2026-11"), "it has requests from 2027-01-15T08:00:00Z to"),
        (("--period", "2027-13"), "not a period"),
        (("--period", "2027-01", "--span-s", "5"), "--span-s"),
        (("--period", "2027-01", "--from", "2027-01-01"), "not both"),
    ],
)
async def test_an_odd_period_is_explained(plan, fleet, words, told):
    file, _ = fleet()
    ran = await plan("--from-ledger", "--fleet", file, *words)
    assert ran.status == 2 and told in ran.err


async def test_minutes_are_too_little_history(plan, fleet):
    file, _ = fleet(entries=[*story(days=0), Alive(at_us=START + 1380 * S)])
    ran = await plan("--from-ledger", "--fleet", file)
    doubt = "too little history to advise: 1 request in 23m"
    assert ran.out.splitlines()[1].startswith(doubt), "before anything that looks like advice"
    assert "> would be recommended" in ran.out
    assert " in the last 23m" in last_line(ran)
    assert last_line(ran).endswith(" (too little history to act on)")
    found = units.read((await plan("--from-ledger", "--fleet", file, "--json")).out)
    assert found["reservation"].startswith("too little history")


async def test_no_short_idle_time_is_proposed(plan, fleet):
    entries = [
        replace(entry, at_us=entry.at_us - 987_654) if isinstance(entry, WakeEnded) else entry
        for entry in story()
    ]
    file, _ = fleet(entries=entries)
    assert "; 110 would have saved $" in last_line(await plan("--from-ledger", "--fleet", file))


async def test_a_policy_without_an_idle_time_is_named(plan, fleet):
    file, _ = fleet(policy='{ name = "adaptive" }')
    last = last_line(await plan("--from-ledger", "--fleet", file))
    assert last.startswith("your policy is adaptive; a fixed idle_s of 110 would have cost $")


async def test_a_bare_ledger_needs_rates(plan, fleet):
    _, path = fleet()
    assert (await plan("--from-ledger", "--ledger", path)).status == 2
    ran = await plan("--from-ledger", "--ledger", path, "--active-usd-h", "3.6", "--json")
    assert ran.status == 0, ran.err
    advice = units.read(ran.out)["advice"]
    assert advice.startswith("beside running continuously; a fixed idle_s of 115 would have saved $")
    mine = await plan("--from-ledger", "--ledger", path, "--active-usd-h", "3.6", "--idle-s", "900")
    assert last_line(mine).startswith("your idle_s is 900; ")


async def test_a_ledger_without_requests_says_so(plan, fleet):
    file, _ = fleet(entries=[Alive(at_us=START)])
    ran = await plan("--from-ledger", "--fleet", file)
    assert ran.status == 2 and "no request" in ran.err


def add_to(file: str, text: str) -> None:
    Path(file).write_text(Path(file).read_text() + text)


async def test_the_models_bridge_is_priced(plan, fleet):
    file, _ = fleet()
    words = ("--from-ledger", "--fleet", file, "--json")
    unnamed = units.read((await plan(*words)).out)
    assert unnamed["prices"]["hosted"].startswith("groq/llama-3.3-70b-versatile")
    hosted = (
        'hosted = { provider = "me", model = "mine", bridge = true, url = "https://x.example/v1", '
        'key_env = "K", input_usd_mtok = 300, output_usd_mtok = 1000 }\n'
    )
    add_to(file, hosted)
    found = units.read((await plan(*words)).out)
    assert found["prices"]["hosted"].startswith("me/mine, fleet.toml")
    hosted = next(p for p in found["policies"] if p["name"] == "hosted")
    assert hosted["cost_usd"] == pytest.approx(121 * (1000 * 300 + 100 * 1000) / 1e6)
    assert "hosted" not in unnamed["pareto"] and "hosted" in found["pareto"]
