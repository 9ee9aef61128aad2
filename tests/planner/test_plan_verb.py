"""`poorwill plan` as a user calls it."""

import io
import re
import shlex
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner import units

from poorwill.cli.plan.verb import VERB
from poorwill.cli.run import run
from poorwill.planner.report.drawing import dollar_ticks

S = 1_000_000
WORLD = ("--active-usd-h", "3.60", "--parked-usd-h", "0.036", "--wake-s", "95", "--park-s", "20")


def csv_of(tmp_path, rows, header="arrival_s,service_s", name="trace.csv"):
    path = tmp_path / name
    path.write_text(header + "\n" + "\n".join(rows) + "\n")
    return str(path)


async def document(plan, *args):
    ran = await plan(*args, "--json")
    assert ran.status == 0, ran.err
    return units.read(ran.out)


def named(document, name):
    return next(policy for policy in document["policies"] if policy["name"] == name)


# what the manual shows

MANUAL = Path(__file__).parents[2] / "docs" / "planner.md"
SHOWN = re.findall(r"^ +poorwill plan (.+)$", f"{MANUAL.read_text()}\n{VERB.epilog}", re.MULTILINE)


@pytest.mark.parametrize("words", sorted(set(SHOWN) - {"--from-ledger"}))
async def test_every_shown_command_works(plan, tmp_path, monkeypatch, words):
    csv_of(tmp_path, ["0,1", "900,2"], name="requests.csv")
    monkeypatch.chdir(tmp_path)
    shorter = {"1000": "40", "31536000": "604800"}  # tenants, and a year: both would take a minute
    args = [shorter.get(word, word) for word in shlex.split(words)]
    ran = await plan(*args)
    assert ran.status == 0, ran.err


def test_the_manual_shows_every_source_of_a_plan():
    shown = "\n".join(SHOWN)
    for source in ("--hours-per-day", "--trace", "--synthetic", "--from-ledger", "--tenants"):
        assert source in shown


# the closed form


async def test_four_hours_a_day_cost_a_sixth(plan):
    ran = await plan("--hours-per-day", "4", "--active-usd-h", "3.80")
    assert ran.status == 0
    for figure in ("$2,736", "$456", "1/6", "720 h x $3.80/h", "120 h x $3.80/h", "1m 55s"):
        assert figure in ran.out
    assert "tokens a month" in ran.out and "genai-prices" in ran.out


async def test_the_closed_form_as_json_has_its_formulas(plan):
    found = await document(
        plan, "--hours-per-day", "4", "--active-usd-h", "3.80", "--wake-s", "480", "--park-s", "60"
    )
    assert found["continuous_month_usd"] == 2736
    assert found["hibernated_month_usd"] == 456
    assert found["duty_cycle"] == pytest.approx(1 / 6)
    assert found["break_even_idle_s"] == 540
    assert any("= 9m of idle time" in line for line in found["formulas"])
    each = found["hosted"]["per_million_tokens_usd"] / 1e6
    assert found["hosted"]["hibernated_tokens"] * each == pytest.approx(456, rel=1e-6)


async def test_wakes_and_parked_time_are_paid_on_top(plan):
    found = await document(
        plan, "--hours-per-day", "4", "--wakes-per-day", "6",
        "--active-usd-h", "3.60", "--parked-usd-h", "0.36", "--wake-s", "480", "--park-s", "120",
    )  # fmt: skip
    active_h = 120 + 30 * 6 * 600 / 3600
    assert found["hibernated_month_usd"] == pytest.approx(3.6 * active_h + 0.36 * (720 - active_h))


@pytest.mark.parametrize("hours", ["25", "-1", "four", "1/0"])
async def test_impossible_hours_are_refused(plan, hours):
    ran = await plan(f"--hours-per-day={hours}", "--active-usd-h", "1")
    assert ran.status == 2 and "24" in ran.err


async def test_nothing_to_plan_from_says_what_to_give(plan):
    ran = await plan("--active-usd-h", "1")
    assert ran.status == 2
    assert "--trace" in ran.err and "--hours-per-day" in ran.err


# a trace


async def test_a_trace_worked_by_hand(plan, tmp_path):
    path = csv_of(tmp_path, ["100,10", "150,10", "700,10", "1000,10"])
    found = await document(plan, "--trace", path, "--span-s", "2000", *WORLD, "--idle-s", "300")
    # Woken at 100, ready at 195; both served until 205; gap 495 > 300: parks 505 to 525. Woken at 700,
    # ready at 795, served until 805; 1000 is within 300 s, served until 1010; parks 1310 to 1330.
    fixed = named(found, "fixed-300s")
    assert fixed["wakes"] == 2
    assert fixed["active_s"] == (525 - 100) + (1330 - 700)
    assert fixed["useful_s"] == 10 + 10 + 10
    assert fixed["cost_usd"] == pytest.approx(1055 * 0.001 + 945 * 0.00001, abs=1e-9)
    assert fixed["held_share"] == 0.75
    assert fixed["wait"] == {"mean_s": 58.75, "p50_s": 45, "p95_s": 95, "p99_s": 95, "max_s": 95}
    assert fixed["duty_cycle"] == pytest.approx(30 / 1055)
    assert fixed["idle_s"] == 300


async def test_json_has_the_promised_keys_and_names(plan, tmp_path):
    path = csv_of(tmp_path, ["100,10", "150,10", "700,10"])
    found = await document(
        plan, "--trace", path, "--span-s", "2000", *WORLD, "--idle-s", "90", "--idle-s", "0.5"
    )
    assert {"requests", "span_s", "policies", "pareto", "recommended", "verdict"} <= set(found)
    assert found["requests"] == 3 and found["span_s"] == 2000
    names = [policy["name"] for policy in found["policies"]]
    assert set(names) >= {
        "continuous", "cold", "hibernate", "fixed-90s", "fixed-0.5s", "break-even", "ladder",
        "adaptive", "clairvoyant", "hosted", "bridge",
    }  # fmt: skip
    assert len(names) == len(set(names))
    assert found["recommended"] in names
    assert set(found["pareto"]) <= set(names) - {"clairvoyant"}
    for policy in found["policies"]:
        assert {
            "name", "idle_s", "wakes", "active_s", "useful_s", "duty_cycle", "cost_usd",
            "held_share", "wait", "ratio_to_clairvoyant",
        } <= set(policy)  # fmt: skip
        assert set(policy["wait"]) == {"mean_s", "p50_s", "p95_s", "p99_s", "max_s"}
    assert named(found, "continuous")["cost_usd"] == 2.0
    assert named(found, "clairvoyant")["ratio_to_clairvoyant"] == 1
    assert (
        min(p["cost_usd"] for p in found["policies"] if p["name"] not in ("hosted",))
        == (named(found, "clairvoyant")["cost_usd"])
    )


async def test_idle_times_can_be_given_in_any_way(plan, tmp_path):
    path = csv_of(tmp_path, ["100,10"])
    ways = (
        ("--idle-s", "90", "300"),
        ("--idle-s", "90,300"),
        ("--idle-s", "90", "--idle-s", "300", "--idle-s", "90"),
    )
    for way in ways:
        found = await document(plan, "--trace", path, *WORLD, *way)
        fixed = [p["idle_s"] for p in found["policies"] if p["name"].startswith("fixed")]
        assert fixed == [90, 300]


async def test_the_account_closes_at_the_end_of_the_span(plan, tmp_path):
    path = csv_of(tmp_path, ["100,50", "1200,5"])
    found = await document(plan, "--trace", path, "--span-s", "220", *WORLD, "--idle-s", "300")
    fixed = named(found, "fixed-300s")
    assert found["requests"] == 1
    assert (fixed["active_s"], fixed["useful_s"]) == (120, 25)
    assert any("after the span's end" in note for note in found["notes"])


async def test_a_span_without_requests_is_told(plan, tmp_path):
    ran = await plan("--trace", csv_of(tmp_path, ["100,10"]), "--span-s", "50", *WORLD)
    assert ran.status == 2 and "--span-s" in ran.err


async def test_a_cancelled_plan_prints_nothing():
    out = io.StringIO()
    words = ("plan", "--synthetic", "bursty", *WORLD)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, words, {}, io.StringIO(), out, io.StringIO())
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert out.getvalue() == ""


async def test_one_replica_per_model_unless_told_otherwise(plan, tmp_path):
    path = csv_of(tmp_path, ["0,10,a", "0,10,b", "500,10,a"], header="arrival_s,service_s,model")
    apart = await document(plan, "--trace", path, "--span-s", "1000", *WORLD)
    together = await document(plan, "--trace", path, "--span-s", "1000", *WORLD, "--one-replica")
    only = await document(plan, "--trace", path, "--span-s", "1000", *WORLD, "--model", "b")
    assert (apart["models"], together["models"], only["requests"]) == (2, 1, 1)
    assert named(apart, "continuous")["cost_usd"] == 2.0
    assert named(together, "continuous")["cost_usd"] == 1.0
    assert (named(apart, "hibernate")["wakes"], named(together, "hibernate")["wakes"]) == (3, 2)


async def test_wakes_from_a_list_are_taken_in_turn(plan, tmp_path):
    path = csv_of(tmp_path, ["0,1", "1000,1", "2000,1"])
    found = await document(
        plan, "--trace", path, "--span-s", "3000", "--active-usd-h", "1", "--wake-s", "10,20",
        "--park-s", "0",
    )  # fmt: skip
    assert named(found, "hibernate")["active_s"] == 10 + 20 + 10 + 3
    assert named(found, "hibernate")["wait"]["max_s"] == 20


async def test_tiers_make_a_ladder(plan, tmp_path):
    path = csv_of(tmp_path, ["0,1", "100,1", "90000,1"])
    found = await document(
        plan, "--trace", path, "--span-s", "100000", "--active-usd-h", "3.6",
        "--tier", "frozen:2:1:0.36", "--tier", "cold:60:5:0",
    )  # fmt: skip
    ladder = named(found, "ladder")
    assert set(ladder["parked_s"]) == {"frozen", "cold"}
    assert ladder["parked_s"]["cold"] > 80000
    assert named(found, "cold")["parked_s"].keys() == {"cold"}
    assert named(found, "hibernate")["parked_s"].keys() == {"frozen"}


async def test_concurrency_makes_requests_queue(plan, tmp_path):
    path = csv_of(tmp_path, ["0,10"] * 4)
    found = await document(
        plan, "--trace", path, "--span-s", "1000", "--active-usd-h", "1", "--wake-s", "0",
        "--max-concurrency", "2",
    )  # fmt: skip
    assert named(found, "continuous")["wait"]["max_s"] == 10
    assert named(found, "continuous")["useful_s"] == 20
    assert named(found, "clairvoyant")["useful_s"] == 20


async def test_a_floor_keeps_the_replica_ready(plan, tmp_path):
    path = csv_of(tmp_path, ["100,10"])
    found = await document(
        plan, "--trace", path, "--span-s", "86400", *WORLD, "--origin", "2026-01-05",
        "--floor", "mon 06:00-07:00 UTC",
    )  # fmt: skip
    # Woken by demand and parked; woken by the floor at six, parked after seven.
    assert named(found, "hibernate")["wakes"] == 2
    assert named(found, "hibernate")["active_s"] == (95 + 10 + 20) + (3600 + 20)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), ""),
        (("--max-concurrency", "2"), "the sweep knows no limit to concurrency"),
        (("--floor", "mon 06:00-07:00 UTC", "--wake-s", "5,6"), "no floor and no list of wakes"),
        (("--wake-s", "5,5"), ""),
    ],
)
async def test_beyond_the_sweep_it_simulates(plan, words, why):
    given = ("--synthetic", "bursty", "--requests-per-day", "12", *WORLD, *words)
    best = (await document(plan, *given))["best_fixed_in_hindsight"]
    assert best["evaluator"] == ("simulation" if why else "sweep")
    assert why in best["why"]
    text = (await plan(*given)).out
    assert (why or "by the sweep") in text


async def test_an_odd_floor_is_explained(plan):
    ran = await plan("--synthetic", "poisson", "--active-usd-h", "1", "--floor", "noon")
    assert ran.status == 2 and "Europe/Berlin" in ran.err


async def test_bad_rows_are_skipped_or_refused(plan, tmp_path):
    path = csv_of(tmp_path, ["0,1", "x,1", "50,1"])
    ran = await plan("--trace", path, *WORLD, "--json")
    assert ran.status == 0 and "line 3" in ran.err
    assert units.read(ran.out)["requests"] == 2
    refused = await plan("--trace", path, *WORLD, "--bad-rows", "refuse")
    assert refused.status == 2 and "line 3" in refused.err and not refused.out


@pytest.mark.parametrize(
    "words",
    [
        ("--active-usd-h", "-1"),
        ("--active-usd-h", "much"),
        ("--wake-s", "-5"),
        ("--wake-s", "nan"),
        ("--idle-s", "soon"),
        ("--service-s", "1e30"),
        ("--tier", "lukewarm:1:1:1"),
        ("--tier", "frozen:1:1:1:1"),
        ("--params", "seventy"),
        ("--load-rps-one-box", "0"),
        ("--seed", "-1"),
        ("--span-s", "0"),
        ("--prompt-tokens", "-5"),
    ],
)
async def test_senseless_options_are_refused(plan, words):
    ran = await plan("--synthetic", "poisson", *words)
    assert ran.status == 2
    assert words[1] in ran.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--trace", "a.csv"), "--trace and --synthetic are different plans"),
        (("--hours-per-day", "4"), "--synthetic and --hours-per-day are different plans"),
        (("--period", "2026-11"), "--period is a period of the ledger"),
        (("--to", "2026-11-01"), "--to is a period of the ledger"),
        (("--prices", "table.csv"), "--hosted"),
        (("--prompt-tokens-s", "100"), "--output-tokens-s"),
        (("--prompt-tokens", "0", "--output-tokens", "0"), "nothing to price"),
        (("--plot", "no-such-folder/a.png"), "no-such-folder"),
    ],
)
async def test_contradicting_options_are_refused(plan, words, told):
    ran = await plan("--synthetic", "poisson", "--active-usd-h", "1", *words)
    assert ran.status == 2 and told in ran.err and not ran.out


async def test_missing_rates_and_files_are_explained(plan, tmp_path):
    path = csv_of(tmp_path, ["0,1"])
    assert "--active-usd-h" in (await plan("--trace", path)).err
    ran = await plan("--trace", str(tmp_path / "none.csv"), *WORLD)
    assert ran.status == 2 and "none.csv" in ran.err


async def test_an_unknown_hosted_model_is_refused(plan, tmp_path):
    path = csv_of(tmp_path, ["0,1"])
    ran = await plan("--trace", path, *WORLD, "--hosted", "nobody/nothing")
    assert ran.status == 2 and "nobody/nothing" in ran.err


async def test_a_seed_gives_the_same_trace(plan):
    words = ("--synthetic", "bursty", "--requests-per-day", "20", *WORLD)
    assert await document(plan, *words) == await document(plan, *words)
    assert await document(plan, *words) != await document(plan, *words, "--seed", "2")


# the verdict


async def test_a_dense_trace_runs_continuously(plan, tmp_path):
    path = csv_of(tmp_path, [f"{at},20" for at in range(0, 7200, 5)])
    found = await document(plan, "--trace", path, *WORLD, "--prompt-tokens", "1000000")
    assert (found["answer"], found["recommended"]) == ("run continuously", "continuous")
    assert "Run continuously" in found["verdict"]


async def test_making_everybody_wait_is_no_saving(plan, tmp_path):
    # A burst of 200 requests every ten minutes: parking between bursts saves, but all of them wait.
    rows = [f"{begin + i / 10},5" for begin in range(0, 36000, 600) for i in range(200)]
    found = await document(plan, "--trace", csv_of(tmp_path, rows), *WORLD, "--prompt-tokens", "1000000")
    assert found["answer"] == "run continuously"
    assert "for each hour that requests are held" in found["verdict"]


async def test_a_handful_goes_to_a_hosted_api(plan):
    found = await document(plan, "--synthetic", "poisson", "--requests-per-day", "4", *WORLD)
    assert (found["answer"], found["recommended"]) == ("use a hosted API", "hosted")
    assert "Your own pays if its quality, or that no text leaves, is worth $" in found["verdict"]
    assert "If it must be your own: scale to zero" in found["verdict"]
    assert named(found, "hosted")["cost_usd"] < named(found, "adaptive")["cost_usd"]


async def test_models_and_their_sum_agree(plan, tmp_path):
    """Nine repositories, each too small to carry a machine: so are they together."""
    rows = [f"{3600 * hour + 60 * model},5,repo-{model}" for hour in range(48) for model in range(9)]
    path = csv_of(tmp_path, rows, header="arrival_s,service_s,model")
    found = await document(plan, "--trace", path, *WORLD)
    assert found["answer"] == "use a hosted API"
    assert "By model: use a hosted API 9." in found["verdict"]
    one = await document(plan, "--trace", path, *WORLD, "--model", "repo-3")
    assert one["answer"] == "use a hosted API"


async def test_bursts_scale_to_zero(plan, tmp_path):
    table = tmp_path / "prices.csv"
    table.write_text("provider,model,input_usd_per_mtok,output_usd_per_mtok\nme,dear,8000,8000\n")
    words = ("--synthetic", "office-hours", "--requests-per-day", "80", *WORLD)
    found = await document(plan, *words, "--hosted", "me/dear", "--prices", str(table))
    assert found["answer"] == "scale to zero"
    assert found["recommended"] in ("adaptive", "break-even", "ladder", "fixed-300s", "fixed-900s")


async def test_circumstances_are_asked_as_flags(plan):
    words = ("--synthetic", "bursty", "--requests-per-day", "20", *WORLD)
    assert (await document(plan, *words))["answer"] != "not this pattern"
    for flag, word in {
        "--compliance": "compliance",
        "--hard-real-time": "hard real time",
        "--horizontal": "horizontal",
        "--load-rps-one-box=0.001": "boxes",
    }.items():
        found = await document(plan, *words, flag)
        assert found["answer"] == "not this pattern"
        assert word in found["verdict"]


async def test_a_named_hosted_model_is_a_choice(plan, tmp_path):
    table = tmp_path / "prices.csv"
    table.write_text(
        "provider,model,input_usd_per_mtok,output_usd_per_mtok,source\n"
        "me,small,0.01,0.02,a quote of 2026-11-01\nme,large,1000,2000,another\n"
    )
    words = ("--synthetic", "bursty", *WORLD, "--prices", str(table))
    small = await document(plan, *words, "--hosted", "me/small")
    large = await document(plan, *words, "--hosted", "me/large")
    assert small["recommended"] == "hosted" and "hosted" in small["pareto"]
    assert "a quote of 2026-11-01" in small["prices"]["hosted"]
    assert large["recommended"] != "hosted" and large["answer"] == "scale to zero"


# people


async def test_table_and_plot_need_no_options(plan):
    ran = await plan("--synthetic", "bursty", "--requests-per-day", "30", *WORLD)
    assert ran.status == 0
    for words in ("recommended", "p95 wait", "<- break-even", "states on day", "idle gaps"):
        assert words in ran.out
    assert "\x1b" not in ran.out and "\x1b" not in ran.err
    assert max(map(len, ran.out.splitlines()[:20])) < 200


async def test_a_hosted_answer_draws_states_too(plan):
    ran = await plan("--synthetic", "poisson", "--requests-per-day", "4", *WORLD)
    assert "Use a hosted API" in ran.out
    assert "under adaptive (hours)" in ran.out
    assert ". parked   w waking   # serving" in ran.out or ". parked   # serving" in ran.out


@given(low=st.floats(1e-6, 1e6), ratio=st.floats(8, 1e9))
def test_the_axis_has_round_amounts(low, ratio):
    ticks = dollar_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 16 and ticks == sorted(ticks)
    assert low <= ticks[0] and ticks[-1] <= low * ratio


async def test_nearly_all_is_not_called_all(plan, tmp_path):
    trace = csv_of(tmp_path, [f"{number * 7000},0.1" for number in range(30)])
    short = ("--wake-s", "0.02", "--park-s", "0.02", "--parked-usd-h", "0")
    ran = await plan("--trace", trace, "--active-usd-h", "3.60", *short)
    assert "it saves >99.9% of running continuously" in ran.out


async def test_a_plot_of_each_kind_is_written(plan, tmp_path):
    for kind in ("png", "svg", "html"):
        path = tmp_path / f"plan.{kind}"
        ran = await plan("--synthetic", "bursty", "--requests-per-day", "6", *WORLD, "--plot", str(path))
        assert ran.status == 0, ran.err
        content = path.read_bytes()
        if kind == "png":
            assert content.startswith(b"\x89PNG") and len(content) > 20_000
            continue
        text = content.decode()
        assert "prefers-color-scheme:dark" in text and "var(--ink)" in text
        for words in ("break-even", "cost over the span (US dollars)", "seconds", "adaptive"):
            assert words in text
        assert "#010101" not in text, "a stand-in colour is left"


async def test_an_impossible_plot_is_refused(plan, tmp_path):
    words = ("--synthetic", "bursty", *WORLD, "--plot")
    assert (await plan(*words, str(tmp_path / "plan.gif"))).status == 2
    assert (await plan(*words, str(tmp_path / "no" / "plan.png"))).status == 2


async def test_tenants_share_hosts(plan):
    found = await document(
        plan, "--tenants", "40", "--hosts", "2,8", "--active-usd-h", "3.60", "--wake-s", "12",
        "--park-s", "5", "--span-s", "172800",
    )  # fmt: skip
    few, many = found["pools"]
    assert (few["cost_usd"], many["cost_usd"]) == (2 * 48 * 3.6, 8 * 48 * 3.6)
    assert few["tenant_month_usd"] < many["tenant_month_usd"]
    assert few["held_share"] > many["held_share"]
    assert few["evictions"] > many["evictions"]
    assert found["alone_tenant_month_usd"] > 0


async def test_a_model_that_fits_on_no_host_is_told(plan):
    ran = await plan("--tenants", "3", "--active-usd-h", "1", "--host-gb", "20")
    assert ran.status == 2 and "fit on no host" in ran.err
