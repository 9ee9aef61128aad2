"""Where `poorwill plan` takes the length of a wake from, and that it says so for each tier."""

import pytest
from tests.planner import units

from .test_from_ledger import fleet  # noqa: F401

FLEET = """
[[rates]]
active_usd_h = 3.6

[models.m]
engine = "toy"
"""

USE = ("--hours-per-day", "4", "--active-usd-h", "3.80")


async def tiers(plan, *words):
    ran = await plan(*words, "--json")
    assert ran.status == 0, ran.err
    return {tier["tier"]: tier for tier in units.read(ran.out)["tiers"]}


async def test_an_assumed_wake_is_said_to_be_one(plan):
    assert (await tiers(plan, *USE))["hibernated"] == {
        "tier": "hibernated",
        "wake_s": [95.0],
        "park_s": 20.0,
        "parked_usd_h": 0.0,
        "source": "assumed; --wake-s, --params or a fleet tell better",
    }
    ran = await plan(*USE)
    assert "a wake from hibernated: 1m 35s (assumed" in ran.out
    assert "; a park there: 20 s\n" in ran.out, "the park is reckoned with, so it is said"


async def test_a_model_is_predicted_from_figures(plan):
    small = (await tiers(plan, *USE, "--params", "8e9"))["cold"]
    large = (await tiers(plan, *USE, "--params", "70e9", "--link-gbit", "1"))["cold"]
    assert 20 < small["wake_s"][0] < 60
    assert large["wake_s"][0] > 19 * 60, "140 GB over a gigabit link"
    assert small["source"].startswith("predicted, ") and "vllm, 8B, 16 GB" in small["source"]


async def test_the_predicted_wake_is_used(plan):
    ran = await plan(*USE, "--params", "8e9", "--park-s", "0", "--json")
    found = units.read(ran.out)
    assert found["break_even_idle_s"] == pytest.approx(found["tiers"][0]["wake_s"][0], rel=0.01)


async def test_a_tier_without_a_wake_is_predicted(plan):
    words = (
        "--synthetic",
        "poisson",
        "--span-s",
        "100000",
        "--active-usd-h",
        "1",
        "--params",
        "8e9",
    )
    found = await tiers(plan, *words, "--tier", "frozen::3:0.01", "--tier", "cold:50")
    assert found["frozen"]["source"].startswith("predicted")
    assert (found["frozen"]["park_s"], found["frozen"]["parked_usd_h"]) == (3, 0.01)
    assert (found["cold"]["wake_s"], found["cold"]["source"]) == ([50], "--tier")
    assert found["frozen"]["wake_s"][0] < 50


async def test_a_flag_goes_before_a_prediction(plan):
    found = await tiers(plan, *USE, "--params", "8e9", "--wake-s", "7")
    assert (found["hibernated"]["wake_s"], found["hibernated"]["source"]) == ([7], "--wake-s")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tier", "frozen"), "how long does a wake from frozen take?"),
        (("--weights-gb", "16"), "--weights-gb needs --params"),
        (("--eager",), "--eager needs --params"),
        (("--params", "0"), "argument --params: '0' is not a positive number"),
        (("--params", "8e9", "--disk-gb-s", "-1"), "argument --disk-gb-s: '-1' is not a positive number"),
    ],
)
async def test_impossible_predictions_are_refused(plan, words, told):
    ran = await plan(*USE, *words)
    assert (ran.status, ran.out) == (2, "")
    assert told in ran.err and "hint: " in ran.err


async def test_a_fleets_wakes_serve_any_plan(plan, fleet):  # noqa: F811
    file, _ = fleet()
    found = await tiers(plan, "--hours-per-day", "4", "--fleet", file)
    assert (found["cold"]["wake_s"], found["cold"]["source"]) == ([100] * 16, "16 measured")
    ran = await plan("--hours-per-day", "4", "--fleet", file)
    assert "720 h x $3.60/h" in ran.out and "a wake from cold: on average 1m 40s" in ran.out


async def test_a_new_fleet_is_predicted_from_files(plan, tmp_path):
    (tmp_path / "fleet.toml").write_text(FLEET)
    found = await tiers(plan, "--hours-per-day", "4", "--fleet", str(tmp_path))
    assert found["cold"]["source"].startswith("predicted, ") and "m's files" in found["cold"]["source"]
    assert found["cold"]["wake_s"] == [0.2], "what a toy without load time takes"


async def test_flags_go_before_the_ledger(plan, fleet):  # noqa: F811
    file, _ = fleet()
    words = ("--from-ledger", "--fleet", file)
    assert (await tiers(plan, *words))["cold"]["source"] == "16 measured"
    found = await tiers(plan, *words, "--tier", "cold:7")
    assert (found["cold"]["wake_s"], found["cold"]["source"]) == ([7], "--tier")
    assert (await tiers(plan, *words, "--params", "8e9"))["cold"]["source"] == "16 measured"
    assert (await tiers(plan, *words, "--wake-s", "8"))["cold"]["wake_s"] == [8]
    ran = await plan(*words, "--tier", "frozen:7")
    assert ran.status == 2 and "the model's ladder has no frozen" in ran.err and "it is cold" in ran.err


async def test_a_fleet_is_asked_for_one_of_its_models(plan, tmp_path):
    text = FLEET
    (tmp_path / "fleet.toml").write_text(text + '\n[models.n]\nengine = "toy"\n')
    words = ("--hours-per-day", "4", "--fleet", str(tmp_path))
    ran = await plan(*words)
    assert ran.status == 2 and "name one of m, n" in ran.err
    assert (await plan(*words, "--model", "n")).status == 0
    ran = await plan(*words, "--model", "o")
    assert ran.status == 2 and "no model 'o'" in ran.err


async def test_the_pool_says_which_wake_it_used(plan):
    words = ("--tenants", "4", "--hosts", "2", "--span-s", "50000", "--active-usd-h", "1")
    found = await tiers(plan, *words, "--params", "8e9")
    assert found["cold"]["source"].startswith("predicted")
