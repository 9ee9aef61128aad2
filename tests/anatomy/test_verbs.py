"""`poorwill anatomy` and `poorwill bench` as a user runs them, over a real ledger and a real engine."""

import io
import json
from pathlib import Path

import pytest

from poorwill.cli.run import run
from poorwill.core.entries import PhaseSpan, ReplicaCreated, SpanOpened, WakeBegan, WakeEnded
from poorwill.core.settings import RateSettings
from poorwill.core.words import (
    LINGER,
    SECOND_US,
    ModelName,
    Phase,
    ReplicaId,
    Tier,
    WakeId,
    parked,
    waking,
)
from poorwill.ledger.ledger import open_ledger
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import reading
from poorwill.policies.coldstart.report.waterfall import readable, waterfall
from poorwill.policies.coldstart.starts import FinishedWake
from poorwill.telemetry.log import StreamLog

START = 1_800_000_000 * SECOND_US
DOLLAR_H = 3_600_000_000_000
"""3,600 dollars an hour: a second is a dollar."""

FLEET = """
[gateway]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"

[models.bird]
engine = "toy"
options = { load_seconds = 0.2, tokens_per_second = 100, slots = 2 }
ladder = ["cold"]
wake_budget_s = 20
policy = { name = "fixed", idle_s = 60 }

[[rates]]
active_usd_h = "1.00"
"""


class Clock:
    def now_us(self) -> int:
        return START


async def poorwill(*args: str, **env: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    status = await run(args, env, io.StringIO(), out, err)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    (tmp_path / "fleet.toml").write_text(FLEET)
    return tmp_path


def story(*, number: int, at_s: float, phases: list[tuple[Phase, float]], tier: Tier) -> list:
    """One successful wake and the linger after it."""
    replica, name = ReplicaId("bird-0"), WakeId(f"bird-0.{number}")
    began = START + round(at_s * SECOND_US)
    spans, at = [], began
    for phase, took_s in phases:
        spans.append(PhaseSpan(phase=phase, began_us=at, ended_us=at + round(took_s * SECOND_US)))
        at = spans[-1].ended_us
    return [
        WakeBegan(
            wake=name,
            replica=replica,
            model=ModelName("bird"),
            generation=number,
            at_us=began,
            from_tier=tier,
            asked_by="ann",
            why="demand",
            budget_us=60 * SECOND_US,
            held=2,
        ),
        SpanOpened(replica=replica, at_us=began, cause=waking(Phase.PROVISION), tier=tier, wake=name),
        WakeEnded(wake=name, replica=replica, at_us=at, ok=True, anatomy=tuple(spans)),
        SpanOpened(replica=replica, at_us=at, cause=LINGER),
        SpanOpened(replica=replica, at_us=at + SECOND_US, cause=parked(Tier.COLD), tier=Tier.COLD),
    ]


@pytest.fixture
async def told(fleet: Path) -> Path:
    """A fleet whose ledger holds two cold starts and a wake from a snapshot."""
    log = StreamLog(stream=io.StringIO(), level="error")
    rate = RateSettings(effective_us=0, active_nusd_h=DOLLAR_H)
    async with open_ledger(str(fleet / "ledger.sqlite"), clock=Clock(), log=log) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [rate], now_us=START))
        created = ReplicaCreated(
            replica=ReplicaId("bird-0"), model=ModelName("bird"), driver="cold", at_us=START
        )
        opened = SpanOpened(replica=ReplicaId("bird-0"), at_us=START, cause=parked(Tier.COLD), tier=Tier.COLD)
        await ledger.record([created, opened])
        cold = [(Phase.SPAWN, 0.5), (Phase.WEIGHTS, 8.0), (Phase.WARMUP, 1.5)]
        await ledger.record(story(number=1, at_s=10, phases=cold, tier=Tier.COLD))
        slow = [(Phase.SPAWN, 0.5), (Phase.WEIGHTS, 10.0), (Phase.WARMUP, 1.5)]
        await ledger.record(story(number=2, at_s=100, phases=slow, tier=Tier.COLD))
        frozen = [(Phase.READ_IMAGE, 1.0), (Phase.VERIFY, 0.25)]
        await ledger.record(story(number=3, at_s=200, phases=frozen, tier=Tier.FROZEN))
    return fleet


async def test_anatomy_compares_starts_and_advises(told):
    status, out, _ = await poorwill("anatomy", "--fleet", str(told))
    assert status == 0
    assert "cold (2)" in out and "frozen (1)" in out
    assert "bird: 3 wakes, median [lowest .. highest]" in out
    assert "the next wake from frozen: about 1.25 s, as the only one so far" in out
    assert "9 s [8 s .. 10 s]" in out
    assert "saves 9.75 s (measured): let wakes come from frozen" in out
    # The range of both, and above that the doubt that the prediction had.
    assert "the next wake from cold: about 11 s, between 10 s and 15.7 s" in out


async def test_one_wake_is_a_waterfall_with_prices(told):
    status, out, _ = await poorwill("anatomy", "bird-0.1", "--fleet", str(told))
    assert status == 0
    weights = next(line for line in out.splitlines() if line.strip().startswith("weights"))
    assert "0.5 s" in weights and "8 s" in weights and "80%" in weights
    assert "$8.00" in weights
    assert "#" * 30 in weights


def test_details_have_readable_units():
    assert readable("read, 16000000 B from storage, expected 2100000000 B/s") == (
        "read, 16 MB from storage, expected 2.1 GB/s"
    )
    assert readable("CPU buffer size =     8.72 MiB, 0 B from storage") == (
        "CPU buffer size = 8.72 MiB, from the page cache"
    )
    assert readable("10 B from storage") == "10 B from storage"


def test_a_waterfall_fits_the_terminal():
    span = PhaseSpan(phase=Phase.WEIGHTS, began_us=0, ended_us=SECOND_US, detail="x" * 300)
    wake = FinishedWake(
        wake=WakeId("w"), model=ModelName("m"), replica=ReplicaId("m-0"), from_tier=Tier.COLD,
        began_us=0, ended_us=SECOND_US, ok=True, failure="", why="demand", asked_by="k", held=1,
        served=1, budget_us=None, image_bytes=0, spans=(span,), prices_nusd=(1,),
    )  # fmt: skip
    for width in (80, 120, 200):
        row = next(line for line in waterfall(wake, None, width=width) if "#" in line)
        assert len(row) <= width
    whole = next(line for line in waterfall(wake, None) if "#" in line)
    assert whole.endswith("x" * 300) and "#" * 40 in whole


@pytest.mark.parametrize("what", ["bird", "bird-0"])
async def test_anatomy_as_json_adds_up(told, what: str):
    status, out, _ = await poorwill("anatomy", what, "--fleet", str(told), "--json")
    assert status == 0
    bird = json.loads(out)["models"]["bird"]
    assert [wake["wake"] for wake in bird["wakes"]] == ["bird-0.1", "bird-0.2", "bird-0.3"]
    for wake in bird["wakes"]:
        assert sum(phase["ended_us"] - phase["began_us"] for phase in wake["phases"]) == wake["took_us"]
        assert sum(phase["price_nusd"] for phase in wake["phases"]) == wake["price_nusd"]
    cold = next(start for start in bird["starts"] if start["kind"] == "cold")
    assert cold["phases"]["weights"] == {"median_us": 9_000_000, "low_us": 8_000_000, "high_us": 10_000_000}
    assert bird["expected"]["frozen"]["total"]["expected_us"] == 1_250_000


async def test_a_trace_file_is_written(told, tmp_path):
    path = tmp_path / "trace.json"
    status, _, err = await poorwill("anatomy", "--fleet", str(told), "--trace", str(path))
    assert status == 0 and "wrote 3 wakes" in err
    assert len(json.loads(path.read_text())["traceEvents"]) > 8
    status, _, err = await poorwill("anatomy", "--fleet", str(told), "--trace", "/nowhere/x.json")
    assert status == 2 and "cannot write" in err


async def test_a_model_that_never_woke_is_predicted(told):
    more = '\n[models.owl]\nengine = "toy"\noptions = { load_seconds = 3 }\nladder = ["frozen", "cold"]\n'
    (told / "fleet.toml").write_text((told / "fleet.toml").read_text() + more)
    status, out, _ = await poorwill("anatomy", "owl", "--fleet", str(told))
    assert status == 0
    assert "owl: no wake has finished yet" in out
    assert "next wake from cold: about 3.2 s, between 3.2 s and 6.4 s (predicted, none" in out
    status, out, _ = await poorwill("anatomy", "--fleet", str(told), "--json")
    models = json.loads(out)["models"]
    assert models["owl"]["expected"]["cold"]["measured"] is False
    assert models["bird"]["expected"]["cold"]["measured"] is True
    assert set(models["owl"]["expected"]) == {"frozen", "cold"}


async def test_a_model_s_wakes_are_listed_by_id(told):
    status, out, _ = await poorwill("anatomy", "bird", "--fleet", str(told))
    assert status == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("  bird-0.")]
    assert [row[0] for row in rows] == ["bird-0.1", "bird-0.2", "bird-0.3"]
    assert rows[0][1:5] == ["2027-01-15", "08:00:10", "cold", "10"]
    for count in ("0", "-1", "x"):
        status, _, err = await poorwill("anatomy", "bird", "--fleet", str(told), "--last", count)
        assert status == 2 and "argument --last" in err


async def test_unknown_names_and_missing_ledgers(told, tmp_path):
    status, _, err = await poorwill("anatomy", "fish", "--fleet", str(told))
    assert status == 2 and "no model 'fish'" in err and "bird" in err
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "fleet.toml").write_text(FLEET)
    status, _, err = await poorwill("anatomy", "--fleet", str(empty))
    assert status == 8 and "no ledger" in err


async def test_the_textbook_prediction():
    line = "--predict --params 70e9 --bits 16 --link-gbit 1 --disk-gb-s 5 --json"
    status, out, _ = await poorwill("anatomy", *line.split())
    assert status == 0
    prediction = json.loads(out)
    assert prediction["phases"]["download"]["expected_us"] == pytest.approx(1120e6, rel=0.01)
    assert 19 * 60e6 < prediction["total"]["expected_us"] < 21 * 60e6
    assert max(prediction["phases"], key=lambda p: prediction["phases"][p]["expected_us"]) == "download"


async def predicted(words: str) -> dict:
    status, out, err = await poorwill("anatomy", "--predict", *words.split(), "--json")
    assert status == 0, err
    return json.loads(out)


async def test_a_wake_is_predicted_from_each_tier():
    model = "--params 235e9 --active-params 22e9 --bits 8 --tp 4 --gpu A100"
    found = {
        tier: await predicted(f"{model} --tier {tier}") for tier in ("asleep", "frozen", "suspended", "cold")
    }
    for tier, each in found.items():
        assert each["tier"] == tier and each["weight_bytes"] == 235e9
        for part in (each["total"], *each["phases"].values()):
            assert part["low_us"] < part["expected_us"] < part["high_us"]
    whole = {tier: each["total"]["expected_us"] for tier, each in found.items()}
    assert whole["asleep"] < whole["suspended"] < whole["cold"]
    assert "restore_device" in found["frozen"]["phases"]
    anew = await predicted(f"{model} --tier asleep --sleep-level 2 --storage cache")
    assert [*anew["phases"]] == ["engine_wake", "weights"]
    small = await predicted(f"{model} --tier asleep --image-gb 10")
    assert small["total"]["expected_us"] < whole["asleep"] / 4


async def test_accelerators_change_the_prediction():
    line = "--params 70e9 --storage cache --loader runai-sharded"
    one = await predicted(line)
    several = await predicted(f"{line} --tp 4 --pp 2")
    weights, graphs = (one["phases"][phase]["expected_us"] for phase in ("weights", "graphs"))
    assert several["phases"]["weights"]["expected_us"] < weights / 4
    assert several["phases"]["graphs"]["expected_us"] < 0.6 * graphs
    held = "--params 30e9 --tier asleep"
    waking = {flag: await predicted(f"{held} {flag}") for flag in ("--gpu L40S", "--pcie 4", "--gpu h100")}
    old, same, new = (each["total"]["expected_us"] for each in waking.values())
    assert old == same > 1.05 * new


@pytest.mark.parametrize(
    ("kind", "otherwise"), [("--gpu V100", "--pcie 3"), ("--bits 2", "--bits 4"), ("--bits 32", "--bits 16")]
)
async def test_kinds_never_seen_are_not_known(kind, otherwise):
    line = ("anatomy", "--predict", "--params", "8e9")
    status, out, err = await poorwill(*line, *kind.split())
    assert (status, out) == (2, "") and "not known: no start " in err
    assert (await poorwill(*line, *otherwise.split()))[0] == 0
    assert (await poorwill(*line, *kind.split(), "--engine", "llama.cpp"))[0] == 0


@pytest.mark.parametrize(
    "line",
    [
        "--predict",
        "--predict --params 0",
        "--predict --params 7e9 --disk-gb-s -1",
        "--predict --params 7e9 --pp 0",
        "--predict --params 7e9 --active-params 8e9",
        "--predict --params 7e9 --sleep-level 2",
        "--predict --params 7e9 --image-gb 8",
        "--predict --params 7e9 --tier asleep --image-gb 0",
        "--predict --params 7e9 --tier asleep --image-gb nan",
        "--predict --params 7e9 --tier asleep --storage cache",
        "--predict --params 7e9 --tier asleep --sleep-level 2 --image-gb 8",
        "--predict --params 7e9 --tier frozen --link-gbit 1",
        "--predict --params 7e9 --tier hibernated",
    ],
)
async def test_impossible_figures_are_refused(line):
    status, _, err = await poorwill("anatomy", *line.split())
    assert status == 2 and "hint" in err


async def test_bench_finds_where_batching_saturates(fleet):
    """The toy decodes two requests at once at 100 tokens a second each."""
    status, out, err = await poorwill(
        *("bench", "bird", "--fleet", str(fleet), "--json", "--concurrency", "8"),
        *("--seconds", "0.4", "--tokens", "20", "--pairs", "10"),
    )
    assert status == 0, err
    result = json.loads(out)
    assert {level["route"] for level in result["levels"]} == {"direct", "gateway"}
    assert [lv["concurrency"] for lv in result["levels"] if lv["route"] == "direct"] == [1, 2, 4, 8]
    assert all(level["failed"] == 0 for level in result["levels"])
    # Two slots: saturated at 2, or at 4 where the turnaround between requests leaves a slot idle.
    assert result["saturates_at"] in (2, 4)
    first = result["levels"][0]
    assert first["between_tokens"]["p50_us"] == pytest.approx(1e6 / 100, rel=0.8)
    assert result["gateway_overhead"]["pairs"] == 10
    (penalty,) = result["wake_penalty"].values()
    assert penalty["wake_us"] > 200_000
    assert result["baseline_first_token_us"] < 200_000


async def test_bench_of_one_client(fleet):
    status, out, err = await poorwill(
        *("bench", "bird", "--fleet", str(fleet), "--concurrency", "1"),
        *("--seconds", "0.3", "--tokens", "10", "--pairs", "4"),
    )
    assert status == 0, err
    assert "bird, warm" in out and "throughput" not in out


async def test_bench_refuses_bad_options(fleet):
    status, _, err = await poorwill("bench", "--fleet", str(fleet), "--concurrency", "0")
    assert status == 2 and "out of range" in err
    status, _, err = await poorwill("bench", "fish", "--fleet", str(fleet))
    assert status == 2 and "it has bird" in err
    status, _, err = await poorwill("bench", "--fleet", str(fleet), "--key-env", "NONE")
    assert status == 2 and "$NONE is not set" in err


async def test_bench_says_what_failed(fleet):
    broken = FLEET.replace("load_seconds = 0.2", "fail_requests = 418")
    (fleet / "fleet.toml").write_text(broken.replace("wake_budget_s = 20", "wake_budget_s = 3"))
    status, _, err = await poorwill("bench", "--fleet", str(fleet), "--seconds", "0.2")
    assert status == 7 and "the benchmark of bird failed" in err


async def test_a_phase_past_its_limit_is_named(fleet):
    limits = "phase_limits_s = { weights = 0.3 }\nwake_budget_s = 20"
    slow = FLEET.replace("load_seconds = 0.2", "load_seconds = 20")
    (fleet / "fleet.toml").write_text(slow.replace("wake_budget_s = 20", limits))
    status, _, _ = await poorwill("bench", "--fleet", str(fleet))
    assert status == 7
    with reading(str(fleet / "ledger.sqlite")) as db:
        why = " ".join(str(row) for row in db.execute("SELECT * FROM wakes WHERE ok = 0"))
    assert "weights: 0.3" in why and "s of 0.3 s" in why


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--params 7e9", "--params is for --predict"),
        ("--tier frozen", "--tier is for --predict"),
        ("bird --image-gb 8", "--image-gb is for --predict"),
        ("bird --disk-gb-s 5", "--disk-gb-s is for --predict"),
        ("bird --predict --params 7e9", "not by bird"),
        ("--predict --params 7e9 --trace t.json", "not by --trace"),
    ],
)
async def test_ignored_options_are_refused(line, told):
    status, out, err = await poorwill("anatomy", *line.split())
    assert (status, out) == (2, "")
    assert told in err and "hint: " in err


async def test_predictions_use_measurements(told):
    (told / "weights").mkdir()
    (told / "weights" / "model.safetensors").write_bytes(bytes(1000))
    engine = f'engine = "vllm"\npath = "{told}/weights"'
    toy = 'engine = "toy"\noptions = { load_seconds = 0.2, tokens_per_second = 100, slots = 2 }'
    (told / "fleet.toml").write_text(FLEET.replace(toy, engine))
    line = ("anatomy", "--predict", "--params", "7e9", "--fleet", str(told))
    status, _, err = await poorwill(*line)
    assert status == 0
    assert "host factor 0.83, from 2 starts of this fleet" in err
    status, mine, _ = await poorwill(*line, "--json")
    status, given, _ = await poorwill(*line, "--json", "--host-factor", "1")
    imports = [json.loads(text)["phases"]["imports"]["expected_us"] for text in (mine, given)]
    assert imports[0] == pytest.approx(imports[1] * 5 / 6, rel=0.01)
