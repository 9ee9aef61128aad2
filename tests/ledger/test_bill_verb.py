"""`poorwill bill` as a user calls it."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from poorwill.bill.bill import Axis, group, make_bill
from poorwill.bill.render import amounts, as_text
from poorwill.cli.run import run
from poorwill.compose.bridges import hosted_price
from poorwill.core.entries import Alive, ClockStepped, ParkEnded
from poorwill.core.settings import HostedSettings, RateSettings
from poorwill.ledger.costs.items import Item
from poorwill.ledger.dates import instant, month, period, spelled_out, zone_of
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import connect_writer, migrate, reading
from poorwill.ledger.writing.entries import Applier

from .lives import HOUR
from .story import START, began, created, ended, opened, request, span, write

S = 1_000_000
DAY = 24 * HOUR
RATE = RateSettings(
    effective_us=0,
    active_nusd_h=3_600_000_000,
    parked_nusd_h={"frozen": 36_000_000},
    storage_nusd_gb_month=73_000_000,
    increment_us=60 * S,
    source="a price list",
)
STORY = [
    created(),
    began(10 * S),
    span(10 * S, "wake.weights", wake="a.0.1", tier="frozen"),
    ended(20 * S, served=("r1", "r2")),
    span(20 * S, "serving"),
    request(10 * S, 20 * S, 30 * S, key="ann", wake="a.0.1", tokens=(1000, 100)),
    request(10 * S, 20 * S, 30 * S, key="<b>|b", wake="a.0.1", tokens=(1000, 100)),
    span(30 * S, "linger", why="fixed 60 s"),
    ParkEnded(
        replica="a.0",
        at_us=START + 90 * S,
        began_us=START + 80 * S,
        to_tier="frozen",
        ok=True,
        image_bytes=10**10,
    ),
    span(90 * S, "parked.frozen", tier="frozen"),
    span(DAY, "floor", why="office hours"),
    Alive(at_us=START + DAY + HOUR),
]


@pytest.fixture
def ledger(path):
    db = connect_writer(path)
    migrate(db, path)
    db.execute("BEGIN")
    sync_rates(db, [RATE], now_us=START)
    Applier(db).apply(STORY)
    db.execute("COMMIT")
    db.close()
    return path


async def bill(ledger, *args):
    out, err = io.StringIO(), io.StringIO()
    status = await run(["bill", "--ledger", ledger, *args], {}, io.StringIO(), out, err)
    return status, out.getvalue(), err.getvalue()


async def test_the_table_has_a_line_for_each_cause_and_a_total(ledger):
    status, said, _ = await bill(ledger, "--by", "model,cause")
    assert status == 0
    table = said.split("\n\n")[1].splitlines()
    causes = [line.split()[1] for line in table[1:-1]]
    assert causes == [
        "wake.weights",
        "serving",
        "linger",
        "floor",
        "parked.frozen",
        "parked.cold",
        "rounding",
        "storage",
    ]
    assert table[-1].split()[0] == "total"
    assert "known up to 2027-01-16T09:00:00Z" in said.splitlines()[0]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("today", "2027-01-01"),
        ("Yesterday", "2026-12-31"),
        ("this-week", "2026-W53"),
        ("last week", "2026-W52"),
        ("this month", "2027-01"),
        ("last-month", "2026-12"),
        ("yesterday..today", "2026-12-31..2027-01-01"),
        ("2026-W48", "2026-W48"),
    ],
)
def test_words_for_periods(said, meant):
    now_us = instant("2027-01-01T00:30:00+01:00")
    assert spelled_out(said, zone_of("Europe/Berlin"), now_us=now_us) == meant
    period(meant)


@pytest.mark.parametrize("word", ["2027-01-16", "2027-W02", "2027-01", "2027-01-15..2027-01-16", "today"])
async def test_a_period_needs_no_option(ledger, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert await bill(ledger, word) == await bill(ledger, "--period", word)
    (tmp_path / word).mkdir()
    assert (await bill(ledger, word))[1] == (await bill(ledger))[1], "a fleet of that name comes first"


async def test_a_fleet_and_a_period_in_either_order(ledger, tmp_path):
    today = await bill(ledger, "--period", "today")
    assert await bill(ledger, "today", str(tmp_path)) == await bill(ledger, str(tmp_path), "today") == today
    status, _, said = await bill(ledger, "today", "2027-01")
    assert status == 2 and "two periods are named, today and 2027-01" in said


async def test_models_come_first_with_wakes_folded(ledger):
    _, said, _ = await bill(ledger)
    table = said.split("\n\n")[1].splitlines()
    head, model, *causes, total = table
    assert head.split() == ["MODEL", "TIME", "COST"] and model.startswith("a  ")
    assert all(line.startswith("  ") for line in causes)
    assert [line.split("  ")[1] for line in causes if "wake" in line] == ["1 wake"]
    costs = [float(line.rsplit("$", 1)[1].replace(",", "")) for line in causes]
    assert costs == sorted(costs, reverse=True)
    assert model.split()[-1] == total.split()[-1]


@pytest.mark.parametrize(
    ("nusd", "shown"),
    [
        ([], []),
        ([0], ["$0.00"]),
        ([1_234_567_890_123, 10**9, 1], ["$1,234.57", "$1.00", "<$0.01"]),
        ([1_310_000, -300_000], ["$0.001310", "-$0.000300"]),
        ([3_500_000_000, 499_600_000], ["$3.500", "$0.500"]),
        ([7, 0], ["$0.000000007", "$0.000000000"]),
    ],
)
def test_a_column_of_money_has_the_digits_that_matter(nusd, shown):
    assert amounts(nusd, "USD") == shown


async def test_json_csv_and_table_tell_the_same(ledger):
    axes = [*Axis]
    _, as_json, _ = await bill(ledger, "--by", ",".join(axes), "--json")
    _, as_csv, _ = await bill(ledger, "--by", ",".join(axes), "--csv")
    document = json.loads(as_json)
    rows = list(csv.DictReader(io.StringIO(as_csv)))
    assert [(*(row[axis] for axis in axes), int(row["nusd"])) for row in rows] == [
        (*(line[axis] for axis in axes), line["cost_nusd"]) for line in document["lines"]
    ]
    assert sum(line["cost_nusd"] for line in document["lines"]) == document["totals"][0]["cost_nusd"]


async def test_days_printed_one_by_one_sum_to_the_month(ledger):
    total = 0
    for day in ("2027-01-15", "2027-01-16", "2027-01-17"):
        _, said, _ = await bill(ledger, "--period", day, "--json")
        total += sum(money["cost_nusd"] for money in json.loads(said)["totals"])
    _, said, _ = await bill(ledger, "--period", "2027-01", "--json")
    assert json.loads(said)["totals"][0]["cost_nusd"] == total


async def test_the_figures_follow_their_definitions(ledger):
    _, said, _ = await bill(ledger, "--json", "--to", "2027-01-15T08:01:30Z")
    figures = json.loads(said)["figures"][0]
    assert figures["paid_us"] == 80 * S and figures["useful_us"] == 10 * S
    assert figures["duty_cycle"] == 10 / 80
    # 80 s at a tenth of a cent a second, rounded up to two minutes
    assert figures["cost_nusd"] == 120 * 1_000_000
    assert (figures["wakes"], figures["per_wake_nusd"]) == (1, 10_000_000)
    assert figures["per_request_nusd"] == 60_000_000
    assert figures["per_million_tokens"] == {
        "in_nusd": 60_000_000_000,
        "out_nusd": 600_000_000_000,
        "blended_nusd": 120_000_000_000 * 1000 // 2200,
    }
    assert figures["always_on_nusd"] == 120 * 1_000_000  # so rounded as well


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2027-01-15T08:00:12Z", ["wake.weights", "wake a.0.1 from frozen", "ann 5 s"]),
        ("2027-01-15T08:00:22Z", ["serving", "2 requests in flight", "ann 5 s"]),
        ("2027-01-15T08:00:40Z", ["linger", "kept ready by policy fixed 60 s", "$3.60 an hour"]),
        (
            "2027-01-15T09:00:00Z",
            ["parked.frozen", "why: after linger", "$0.036 an hour", "a price list"],
        ),
        ("2027-01-16T08:30:00Z", ["floor", "kept ready by floor office hours", "and on"]),
    ],
)
async def test_any_second_can_be_explained(ledger, at, words):
    status, said, _ = await bill(ledger, "--explain", "a", "--at", at)
    assert status == 0
    for word in words:
        assert word in said
    status, said, _ = await bill(ledger, "--explain", "a", "--at", at, "--json")
    assert status == 0 and json.loads(said)["replicas"][0]["replica"] == "a.0"


async def test_statements_escape_names(ledger):
    _, said, _ = await bill(ledger, "--by", "key", "--json")
    owed = {line["key"]: line["cost"] for line in json.loads(said)["lines"]}
    status, markdown, _ = await bill(ledger, "--by", "key", "--invoice", "<b>|b")
    assert status == 0
    assert f"**Total: ${owed['<b>|b']}**" in markdown
    assert markdown.startswith("# Statement for \\<b\\>\\|b\n")
    assert "2027-01-01 until 2027-02-01, UTC. Not final: this is what is known up to 2027-01-16T" in markdown
    assert "Other APIs" not in markdown, "nothing was passed on"
    _, page, _ = await bill(ledger, "--invoice", "<b>|b", "--html")
    assert "<dd>2027-01/&lt;b&gt;|b</dd>" in page and "<b>" not in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--by", "colour"], "no axis 'colour'"),
        (["--by", ""], "no axis ''"),
        (["--period", "9999-12"], "is not a period"),
        (["--explain", "a", "--at", "9998-01-15"], "lies in the future"),
        (["--at", "2027-01-15"], "--at does not go with the bill itself"),
        (["--html"], "--html does not go with the bill itself"),
        (["--focus", "--json"], "--json does not go with --focus"),
        (["--compare", "2027-01", "2026-12", "--period", "2027-01"], "--period does not go with"),
        (["--json", "--csv"], "different forms"),
        (["--period", "2027-13"], "is not a period"),
        (["--period", "someday"], "is not a period"),
        (["--from", "2027-02-01", "--to", "2027-01-01"], "ends (2027-01-01) before it begins"),
        (["--period", "2027-01", "--from", "2027-01-02"], "not both"),
        (["--explain", "zzz", "--at", "2027-01-15"], "no model 'zzz'"),
        (["--explain", "a", "--at", "2026-01-15"], "no replica of a lived"),
        (["--invoice", "nobody"], "no key 'nobody'"),
        (["--focus", "--compare", "2027-01", "2026-12"], "different questions"),
        (["--reconcile", "/nowhere.csv"], "cannot read /nowhere.csv"),
        (["--resource", "x", "--reconcile", __file__], "column resource"),
    ],
)
async def test_a_bad_question_gets_a_clear_answer_and_no_bill(ledger, words, told):
    status, said, complaint = await bill(ledger, *words)
    assert status == 2 and (said == "" or "--json" in words)
    assert told in said + complaint


async def test_an_empty_ledger_has_an_empty_bill(path):
    db = connect_writer(path)
    migrate(db, path)
    db.close()
    status, said, _ = await bill(path)
    assert status == 0 and "total" in said


async def test_time_without_a_rate_is_unpriced(path):
    write(path, [created(), span(0, "serving"), Alive(at_us=START + HOUR)])
    _, said, _ = await bill(path)
    assert "no rate" in said and "1h " in said and "$0.00" in said
    assert "no tokens were counted" in said and "blended" not in said


async def test_the_share_without_token_counts_is_shown(path):
    asked = [request(at * S, at * S, at * S + 9, tokens=(1, 2)) for at in range(3)]
    asked += [request(9, 9, 10 * S), replace(request(9, 9, 11 * S, tokens=(None, 3)), counted=True)]
    write(path, [created(), span(0, "serving")], asked, [Alive(at_us=START + HOUR)])
    _, said, _ = await bill(path)
    assert "tokens unknown" in said and "20.0%" in said
    assert "1 of 5 requests without a count; 1 counted as they passed, not reported" in said
    _, said, _ = await bill(path, "--json")
    count = json.loads(said)["figures"][0]["count"]
    assert (count["without_usage"], count["counted"], count["tokens_out"]) == (1, 1, 9)


async def test_clock_steps_move_no_span(path):
    steps = [ClockStepped(at_us=START + at * S, by_us=-HOUR) for at in (5, 9)]
    write(
        path,
        [
            created(),
            span(0, "serving"),
            *steps,
            span(10 * S, "linger"),
            Alive(at_us=START + 11 * S),
        ],
    )
    _, said, _ = await bill(path)
    assert "clock_stepped  2  last 2027-01-15T08:00:09Z: the wall clock was set 3600 s back" in said
    _, said, _ = await bill(path, "--json", "--by", "cause")
    document = json.loads(said)
    assert [(line["cause"], line["time_us"]) for line in document["lines"]] == [
        ("serving", 10 * S),
        ("linger", S),
    ]
    assert document["events"][0]["count"] == 2


async def test_the_hosted_price_stands_beside_it(ledger):
    """2,000 tokens in and 200 out of gpt-4o-mini, at 0.15 and 0.60 dollars a million."""

    hosted = {"a": HostedSettings(provider="openai", model="gpt-4o-mini")}
    with reading(ledger) as db:
        found = make_bill(db, month("2027-01"), [], hosted=hosted, price=hosted_price)
        unknown = {"a": HostedSettings(provider="openai", model="no-such-model")}
        nothing = make_bill(db, month("2027-01"), [], hosted=unknown, price=hosted_price)
    assert found.figures[0].hosted_nusd == 2_000 * 150 + 200 * 600
    assert nothing.figures[0].hosted_nusd is None


def test_a_price_is_not_known_by_model(path):
    """One model without a price takes nothing from the others, and names itself."""
    both = [
        (created(0, f"{name}.0", name), span(0, "serving", f"{name}.0"), asked)
        for name in ("a", "b")
        for asked in [request(0, 0, 10 * S, replica=f"{name}.0", model=name, tokens=(2_000, 200))]
    ]
    write(path, [*both[0], *both[1], Alive(at_us=START + HOUR)])
    hosted = {
        "a": HostedSettings(provider="openai", model="gpt-4o-mini"),
        "b": HostedSettings(provider="openai", model="no-such-model"),
    }
    with reading(path) as db:
        found = make_bill(db, month("2027-01"), [Axis.KEY], hosted=hosted, price=hosted_price)
    fleet, a, b = found.figures
    assert fleet.hosted_nusd == a.hosted_nusd == 2_000 * 150 + 200 * 600
    assert b.hosted_nusd is None and fleet.hosted_unknown == ("b",)
    assert fleet.compared_nusd == a.nusd, "compared with what the same model cost"
    assert any("not known for b" in line for line in as_text(found))


FLEET = """
[models.a]
engine = "toy"
hosted = { provider = "openai", model = "gpt-4o-mini" }

[[rates]]
active_usd_h = "3.60"

[spend]
month_usd = 10
model_day_usd = { a = 1 }
"""


async def test_a_fleet_adds_limits_and_hosted_prices(ledger, tmp_path):
    (tmp_path / "fleet.toml").write_text(FLEET)
    out, err = io.StringIO(), io.StringIO()
    words = ["bill", "--fleet", str(tmp_path)]
    assert await run(words, {}, io.StringIO(), out, err) == 0, err.getvalue()
    said = out.getvalue()
    assert "openai/gpt-4o-mini" in said
    assert "total    $10.00 a month" in said and "model a  $1.00 a day" in said
    assert "tripped" in said  # an hour of the floor's, at $3.60


async def test_currencies_are_told_apart_and_never_added_up(path):
    db = connect_writer(path)
    migrate(db, path)
    db.execute("BEGIN")
    euros = replace(RATE, effective_us=START + DAY, currency="EUR")
    sync_rates(db, [RATE, euros], now_us=START)
    Applier(db).apply(STORY)
    db.execute("COMMIT")
    db.close()
    _, said, _ = await bill(path, "--by", "day")
    assert [line.split()[-1][0] for line in said.splitlines() if line.startswith("total")] == [
        "€",
        "$",
    ]
    _, said, _ = await bill(path, "--json")
    assert {money["currency"] for money in json.loads(said)["totals"]} == {"EUR", "USD"}
    assert json.loads(said)["figures"] == []
    status, _, told = await bill(path, "--compare", "2027-01", "2026-12")
    assert status == 2 and "EUR and USD, which cannot be added up" in told


async def test_the_last_second_is_explained(ledger):
    status, said, _ = await bill(ledger, "--explain", "a", "--json")
    assert status == 0
    (found,) = json.loads(said)["replicas"]
    assert found["replica"] == "a.0" and found["cause"] == "floor"


async def test_time_without_a_tier_has_a_name_in_the_table(ledger):
    status, said, _ = await bill(ledger, "--by", "tier")
    assert status == 0
    rows = {line.split()[0] for line in said.splitlines() if "$" in line and line[0] != " "}
    assert {"(ready)", "frozen"} <= rows


def test_causes_stand_in_order():
    causes = ["parked.cold", "park", "failed_wake", "wake.verify", "serving", "wake.ready"]
    causes += ["wake.spawn", "parked.frozen", "wake.imports"]
    items = [
        Item(
            day=1,
            model="m",
            replica="m-0",
            cause=cause,
            tier="",
            key="",
            rate=None,
            currency="USD",
            us=1,
            nusd=1,
        )
        for cause in causes
    ]
    assert [line.names[0] for line in group(items, [Axis.CAUSE])] == [
        *("wake.spawn", "wake.imports", "wake.ready", "wake.verify", "serving", "park"),
        *("parked.frozen", "parked.cold", "failed_wake"),
    ]


@pytest.mark.parametrize(
    ("text", "zone", "begin", "end"),
    [
        ("2027-W02", "UTC", "2027-01-11", "2027-01-18"),
        ("2027-Q1", "UTC", "2027-01-01", "2027-04-01"),
        ("2026-Q4", "UTC", "2026-10-01", "2027-01-01"),
        ("2026-12", "UTC", "2026-12-01", "2027-01-01"),
        ("2027-03", "Europe/Berlin", "2027-02-28T23:00:00Z", "2027-03-31T22:00:00Z"),
        ("2027-03-28", "Europe/Berlin", "2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z"),
    ],
)
def test_periods_are_half_open(text, zone, begin, end):
    found = period(text, zone_of(zone))
    assert str(replace(found, zone=UTC)) == f"{begin} until {end}"


async def test_every_answer_reads_a_period_alike(ledger):
    day, zone = f"{datetime.fromtimestamp(START / S, UTC):%Y-%m-%d}", ("--zone", "Asia/Kolkata")
    after = f"{datetime.fromtimestamp(START / S, UTC) + timedelta(days=1):%Y-%m-%d}"
    _, total, _ = await bill(ledger, "--period", f"{day}..{after}", *zone)
    _, statement, _ = await bill(ledger, "--invoice", "ann", "--period", day, *zone)
    for said in (total, statement):
        assert f"{day} until {after}, Asia/Kolkata" in said
    assert "Days are Asia/Kolkata." in statement
    _, compared, _ = await bill(ledger, "--compare", day, after, *zone)
    assert f"{day} until {after}, Asia/Kolkata" in compared
    # 1970-01-01T05:30 there is midnight in UTC: what --from and --at name without a zone is local.
    _, from_there, _ = await bill(ledger, "--from", f"{day}T05:30:00", "--to", after, *zone)
    assert f"{day}T05:30:00+05:30 until {after}, Asia/Kolkata" in from_there


async def test_statement_days_are_the_zones(ledger):
    zones = {}
    for zone in ("UTC", "Etc/GMT+12"):
        _, statement, _ = await bill(ledger, "--invoice", "ann", "--zone", zone)
        rows = [row.split("|") for row in statement.splitlines() if row.startswith("| 2")]
        zones[zone] = [row[1].strip() for row in rows], statement.split("**Total: ")[1].split("**")[0]
    (utc, total), (local, local_total) = zones.values()
    at = datetime.fromtimestamp(START / S, UTC)
    assert utc == [f"{at:%Y-%m-%d}"]
    assert local == [f"{at.astimezone(ZoneInfo('Etc/GMT+12')):%Y-%m-%d}"]
    assert total == local_total


async def test_local_days_sum_to_the_bill(ledger):
    _, whole, _ = await bill(ledger, "--by", "cause", "--json")
    for zone in ("Asia/Kolkata", "America/New_York", "UTC"):
        _, said, _ = await bill(ledger, "--by", "day,cause", "--zone", zone, "--json")
        sums = {}
        for line in json.loads(said)["lines"]:
            sums[line["cause"]] = sums.get(line["cause"], 0) + line["cost_nusd"]
        assert sums == {line["cause"]: line["cost_nusd"] for line in json.loads(whole)["lines"]}


async def test_lines_of_no_span_are_explained(path):
    rate = RateSettings(
        effective_us=0,
        active_nusd_h=3_600 * 10**9,
        increment_us=60 * S,
        minimum_us=100 * S,
        storage_nusd_gb_month=10**9,
    )
    crossed = replace(request(0, 0, S, key="ann", tokens=(5, 6)), bridge="p/m", bridge_nusd=77)
    async with opened(path) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [rate], now_us=START))
        await ledger.record(
            [created(), span(0, "serving"), span(95 * S, "parked.cold", tier="cold"), crossed]
        )
    for line, words in (
        ("minimum", "ran 1m 35s, billed at least 1m 40s: 5 s more at $3,600.00 an hour"),
        ("rounding", "billed in steps of 1m: 20 s more"),
        ("bridge", "ann: $0.000000077 for 1 request"),
        ("storage", "nothing"),
    ):
        status, said, told = await bill(path, "--explain", "a", "--line", line)
        assert status == 0 and words in said, (said, told)
    assert (await bill(path, "--explain", "a", "--line", "serving"))[0] == 2


async def test_a_span_of_two_rates_shows_both(path):
    async with opened(path) as ledger:
        cheap, dear = (RateSettings(effective_us=0, active_nusd_h=n * 10**9) for n in (1, 2))
        await ledger.thread.call(lambda db: sync_rates(db, [cheap], now_us=START))
        await ledger.record([created(), span(0, "serving")])
        await ledger.thread.call(lambda db: sync_rates(db, [dear], now_us=START + 1800 * S))
        await ledger.record([Alive(at_us=START + 3600 * S)])
    _, said, _ = await bill(path, "--explain", "a")
    assert "30m of it at $1.00 an hour" in said and "30m of it at $2.00 an hour" in said


async def test_csv_runs_nothing_in_a_spreadsheet(path):
    write(path, [created(), span(0, "serving"), request(0, 0, S, key="=1+1"), span(S, "linger")])
    for words in (("--by", "key", "--csv"), ("--focus", "--by", "key")):
        _, said, _ = await bill(path, *words)
        assert "'=1+1" in said and ",=1+1" not in said
