"""`coldstart/prediction.py` against published load and start times; docs/anatomy.md has their sources."""

import csv
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.entries import PhaseSpan
from poorwill.core.words import SECOND_US, Phase, Tier
from poorwill.policies.coldstart.engine_times import USUAL_HOST, CompileCache
from poorwill.policies.coldstart.loaders import (
    GB,
    LOADERS,
    PCIE_OF,
    PCIE_RATE,
    Storage,
    layers_of,
    weight_rate,
)
from poorwill.policies.coldstart.prediction import (
    Learned,
    Machine,
    Start,
    host_factor,
    phase_factors,
    predict_start,
    predict_wake,
    total,
)

DATA = Path(__file__).parent / "data"
FILES = ("published_starts.csv", "looked_up.csv", "later_starts.csv")

COMPILED = (Phase.COMPILE_HIT, Phase.COMPILE_MISS)
PARTS = {
    "weights": (Phase.WEIGHTS,),
    "compile": COMPILED,
    "graphs": (Phase.GRAPHS,),
    "engine": (*COMPILED, Phase.KV_CACHE, Phase.GRAPHS, Phase.WARMUP),
    "ready": tuple(Phase),
}
"""What a published figure is about, as phases; `wake1` and `wake2` are from a sleep of that level."""

SET_STREAMS = ("runai", "tensorizer", "safetensors")
"""The loaders whose readers a publisher has set."""


def published(name: str = "published_starts.csv") -> list[dict[str, str]]:
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))


def predicted(row: dict[str, str], *, host: float = USUAL_HOST):
    storage = Storage(row["storage"])
    whole, bytes_ = float(row["params_b"]) * 1e9, round(float(row["bytes_gb"]) * GB)
    apart = row["ep"] != "1"
    unstated = whole / 10 if apart else whole  # of experts nobody says how many are active
    start = Start(
        parameters=whole,
        active=float(row["active_b"]) * 1e9 if row["active_b"] else unstated,
        bytes=bytes_,
        layers=int(row["layers"]) if row["layers"] else None,
        engine=row["engine"] or "vllm",
        loader=row["loader"],
        streams=int(row["streams"]) if row["streams"] and row["loader"] in SET_STREAMS else None,
        ranks=int(row["ranks"]),
        stages=int(row["pp"]),
        experts_apart=apart,
        compile_cache=CompileCache(row["compile"].replace("eager", "none") or "none"),
        eager=row["compile"] == "eager",
    )
    bus = PCIE_RATE[PCIE_OF.get(row["gpu"].lower().replace(" ", "-"), "4")]
    bandwidth = float(row["storage_gb_s"]) * GB or None
    machine = Machine(storage=storage, bandwidth=bandwidth, bus=bus, host=host)
    if row["what"] in ("wake1", "wake2"):
        reload = start if row["what"] == "wake2" else None
        ranks = start.ranks
        woken = predict_wake(Tier.ASLEEP, image_bytes=bytes_, machine=machine, ranks=ranks, reload=reload)
        return total(woken)
    return total(e for e in predict_start(start, machine) if e.phase in PARTS[row["what"]])


def miss(row: dict[str, str], **machine: float) -> float:
    """The factor between predicted and published, minus one, whichever is larger."""
    ratio = predicted(row, **machine).expected_us / SECOND_US / float(row["seconds"])
    return max(ratio, 1 / ratio) - 1


def inside(row: dict[str, str]) -> bool:
    estimate = predicted(row)
    return estimate.low_us <= float(row["seconds"]) * SECOND_US <= estimate.high_us


@pytest.mark.parametrize(("what", "middle", "tail"), [("weights", 0.10, 0.50), ("ready", 0.25, 0.50)])
def test_published_times_are_met(what, middle, tail):
    misses = sorted(miss(row) for row in published() if row["what"] == what)
    assert median(misses) <= middle
    assert misses[int(0.9 * len(misses))] <= tail


def test_the_interval_holds_published_times():
    rows = published()
    assert sum(map(inside, rows)) >= len(rows) - 2


@pytest.mark.parametrize(
    ("which", "figures", "within", "middle"),
    [
        ("fitted", 58, 56, 0.30),
        ("held", 40, 37, 0.40),
        ("second", 16, 12, 0.45),
        ("third", 15, 12, 0.40),
    ],
)
def test_later_figures_are_met(which, figures, within, middle):
    """What each set was used for, and what it missed before that: docs/anatomy.md."""
    rows = [row for row in published("looked_up.csv") if row["set"] == which]
    assert len(rows) == figures
    assert sum(map(inside, rows)) >= within
    assert median(map(miss, rows)) <= middle


def test_every_figure_has_a_source():
    assert all(row["url"].startswith("https://") for row in published("looked_up.csv"))


def test_the_run_ai_table_is_reproduced():
    """../shared/data/coldstart: Llama-3-8B on an A10G, 43 rows; the median miss is under 5 %."""
    rows = [row for row in published() if row["source"].startswith("runai")]
    assert median(miss(row) for row in rows if row["what"] == "weights") < 0.05
    ready = [row for row in rows if row["what"] == "ready"]
    assert len(ready) == 8
    assert max(miss(row) for row in ready) < 0.15


def test_bandwidth_alone_misses_the_table():
    rows = [row for row in published() if row["source"].startswith("runai") and row["what"] == "ready"]
    naive = [float(row["seconds"]) / (float(row["bytes_gb"]) / float(row["storage_gb_s"])) for row in rows]
    assert median(naive) > 2


def test_a_host_left_out_is_still_met():
    """Leave one source out: the host factor comes from all the others."""
    rows = [row for row in published() if row["what"] == "ready"]
    sources = sorted({row["source"].split(" ")[0] for row in rows})
    assert len(sources) >= 5
    misses = []
    for left_out in sources:
        others: dict[str, list[float]] = {}
        for row in rows:
            if not row["source"].startswith(left_out):
                others.setdefault(row["source"], []).append(implied_host(row))
        host = median(median(factors) for factors in others.values())
        misses += [miss(row, host=host) for row in rows if row["source"].startswith(left_out)]
    assert median(misses) < 0.30


def test_a_publisher_left_out_is_still_met():
    """Leave one source out: its rates are scaled by what all the other sources of that loader imply."""
    misses = []
    for loader in ("safetensors", "runai", "tensorizer"):  # the others have one source each
        rows = [r for r in published() if r["what"] == "weights" and r["loader"] == loader]
        for left_out in {row["source"] for row in rows}:
            others: dict[str, list[float]] = {}
            for row in rows:
                if row["source"] != left_out:
                    others.setdefault(row["source"], []).append(ratio(row))
            bias = median(median(ratios) for ratios in others.values())
            corrected = [ratio(row) / bias for row in rows if row["source"] == left_out]
            misses += [max(each, 1 / each) - 1 for each in corrected]
    misses.sort()
    assert median(misses) <= 0.15
    assert misses[int(0.9 * len(misses))] <= 0.75


def publisher(row: dict[str, str]) -> str:
    return row["source"].split(" ")[0]


def kind(row: dict[str, str]) -> str:
    return "weights" if row["what"] == "wake2" else row["what"]


def every_figure() -> list[dict[str, str]]:
    return [row for name in FILES for row in published(name)]


def left_out(row: dict[str, str], rows: list[dict[str, str]]) -> tuple[bool, float]:
    """Whether a figure is in the interval, and its miss, if its publisher taught nothing.

    What all other publishers' figures of its kind imply corrects the prediction.
    """
    others: dict[str, list[float]] = {}
    for other in rows:
        if publisher(other) != publisher(row) and kind(other) == kind(row):
            others.setdefault(publisher(other), []).append(ratio(other))
    bias = median(median(ratios) for ratios in others.values()) if others else 1.0
    estimate, seen_us = predicted(row), float(row["seconds"]) * SECOND_US * bias
    off = estimate.expected_us / seen_us
    return estimate.low_us <= seen_us <= estimate.high_us, max(off, 1 / off) - 1


def test_intervals_cover_publishers_left_out():
    rows = every_figure()
    found = [left_out(row, rows) for row in rows]
    assert sum(inside for inside, _ in found) >= 0.9 * len(rows)
    assert median(miss for _, miss in found) <= 0.30


def unseen() -> list[tuple[dict[str, str], bool, float]]:
    """Figures looked up later, as the model foretold them that had seen none (`before`): whether today's
    interval around that holds them, and the miss.

    Graphs and a sleep of level 2 that model had no part for: a kind never seen.
    """
    found = []
    for row in every_figure():
        if row.get("before") and row["what"] not in ("graphs", "wake2"):
            estimate, before = predicted(row), float(row["before"])
            low, high = (us / estimate.expected_us * before for us in (estimate.low_us, estimate.high_us))
            off = before / float(row["seconds"])
            found.append((row, low <= float(row["seconds"]) <= high, max(off, 1 / off) - 1))
    return found


def test_intervals_cover_what_was_never_seen():
    found = unseen()
    assert len(found) > 120
    assert sum(inside for _, inside, _ in found) >= 0.8 * len(found)


PACES = st.fixed_dictionaries(
    {
        phase: st.floats(0.3, 4)
        for phase in (Phase.IMPORTS, Phase.CONTEXT, Phase.WEIGHTS, *COMPILED, Phase.GRAPHS, Phase.WARMUP)
    }
)


@given(PACES, st.lists(st.floats(0.87, 1.13), min_size=40, max_size=40), st.sampled_from([1.5e9, 32e9]))
def test_the_first_start_teaches_the_next(paces, noise, parameters):
    """On a host that takes each phase as it likes: no further off than two measurements of one start."""
    off = max(noise) / min(noise) * 1.01
    machine = Machine(bandwidth=2 * GB)

    def measured(start: Start) -> dict[Phase, int]:
        plain = predict_start(start, replace(machine, host=1.0))
        return {e.phase: round(e.expected_us * paces.get(e.phase, 1.3) * noise.pop()) for e in plain}

    first, other = Start(parameters=8e9), Start(parameters=parameters)
    learnt = phase_factors(first, machine, measured(first), cached=False)
    foretold = total(predict_start(other, replace(machine, phases=learnt)))
    took_us = sum(measured(other).values())
    assert 1 / off <= foretold.expected_us / took_us <= off <= 1.32
    exact = phase_factors(
        first, machine, {e.phase: e.expected_us for e in predict_start(first, machine)}, cached=False
    )
    again = total(predict_start(other, replace(machine, phases=exact)))
    assert again.expected_us == pytest.approx(total(predict_start(other, machine)).expected_us, rel=0.01)


def test_a_cached_start_says_nothing_of_the_storage():
    start = Start(parameters=8e9)
    took = {e.phase: e.expected_us for e in predict_start(start, Machine())}
    assert Phase.WEIGHTS not in phase_factors(start, Machine(), took, cached=True)
    assert Phase.WEIGHTS in phase_factors(start, Machine(), took, cached=False)


def test_newer_starts_are_mostly_met():
    """None of these was used to set a constant. Two are beyond this model: see docs/anatomy.md."""
    rows = published("later_starts.csv")
    assert sum(map(inside, rows)) >= 6
    assert median(map(miss, rows)) <= 0.50


def ratio(row: dict[str, str]) -> float:
    """Predicted over published."""
    return predicted(row).expected_us / SECOND_US / float(row["seconds"])


def implied_host(row: dict[str, str]) -> float:
    """The host factor with which a row would be met exactly."""
    one, two = (predicted(row, host=host).expected_us for host in (1.0, 2.0))
    engine, rest = two - one, 2 * one - two
    return max(0.2, (float(row["seconds"]) * SECOND_US - rest) / engine)


def test_the_textbook_download():
    start = Start(parameters=70e9, bits=16)
    phases = predict_start(start, Machine(bandwidth=5 * GB, link=1e9 / 8))
    download = next(e for e in phases if e.phase is Phase.DOWNLOAD)
    assert 18 * 60 < download.expected_us / SECOND_US < 20 * 60
    assert download.expected_us > 0.85 * total(phases).expected_us


def test_streams_help_up_to_a_limit():
    rates = [weight_rate(LOADERS["runai"], Storage.BLOCK, bandwidth=1 * GB, streams=n) for n in (1, 2, 4, 8)]
    assert rates[0] < rates[1] < rates[2] == rates[3] <= 1 * GB


def test_compile_misses_and_quantised_weights():
    def seconds(**what: object) -> float:
        return total(predict_start(Start(parameters=8e9, **what), Machine())).expected_us / SECOND_US

    assert seconds(compile_cache=CompileCache.MISS) > seconds() + 5
    assert seconds(bits=4) < seconds(bits=16)


def weights_s(storage: Storage = Storage.NVME, **what: object) -> float:
    phases = predict_start(Start(parameters=70e9, **what), Machine(storage=storage, bus=52 * GB))
    return next(e for e in phases if e.phase is Phase.WEIGHTS).expected_us / SECOND_US


def test_accelerators_help_the_load():
    one, four = (weights_s(Storage.CACHE, ranks=ranks) for ranks in (1, 4))
    assert one > four > one / 4, "each cuts its own slice out of every tensor"
    assert weights_s(Storage.CACHE, ranks=4, experts_apart=True) < four
    network = {"storage": Storage.NETWORK, "ranks": 4}
    repeated, shared, own = (
        weights_s(loader=name, **network) for name in ("runai", "runai-distributed", "runai-sharded")
    )
    assert repeated > 3 * shared, "each reads the whole model, and all of them share the bandwidth"
    assert shared >= own


def phases_s(**what: object) -> dict[Phase, float]:
    found = predict_start(Start(parameters=30e9, bits=8, **what), Machine())
    return {estimate.phase: estimate.expected_us / SECOND_US for estimate in found}


def test_a_mixture_of_experts():
    layers = Start(parameters=235e9).depth, Start(parameters=235e9, active=22e9).depth
    assert layers[0] > layers[1]
    dense, experts = phases_s(layers=48), phases_s(layers=48, active=3e9)
    assert experts[Phase.GRAPHS] > 1.5 * dense[Phase.GRAPHS]
    first = phases_s(layers=48, active=3e9, compile_cache=CompileCache.MISS)
    assert first[Phase.WARMUP] > experts[Phase.WARMUP] + 20, "kernels of eight-bit experts"


def test_pipeline_stages_have_their_own_layers():
    assert phases_s(ranks=2, stages=2)[Phase.GRAPHS] < phases_s(ranks=2)[Phase.GRAPHS]


def test_a_sleep_without_weights_loads_them_anew():
    start, machine = Start(parameters=8e9), Machine()
    wake = predict_wake(Tier.ASLEEP, image_bytes=16e9, machine=machine, reload=start)
    assert [estimate.phase for estimate in wake] == [Phase.ENGINE_WAKE, Phase.WEIGHTS]
    (kept,) = predict_wake(Tier.ASLEEP, image_bytes=16e9, machine=machine)
    assert total(wake).expected_us > kept.expected_us > wake[0].expected_us


@pytest.mark.parametrize(
    ("gib", "seconds"), [(6.2, 0.89), (26, 2.80), (47, 5.15), (74, 8.06), (129, 14.1), (164, 17.9)]
)
def test_device_restores_match_published_ones(gib, seconds):
    phases = predict_wake(Tier.FROZEN, image_bytes=gib * 2**30, machine=Machine(), device_bytes=gib * 2**30)
    device = next(e for e in phases if e.phase is Phase.RESTORE_DEVICE)
    assert device.expected_us / SECOND_US == pytest.approx(seconds, rel=0.2)


@pytest.mark.parametrize(
    ("gb", "ranks", "bus", "seconds"),
    [(1.5, 1, 24, 0.26), (61.1, 1, 24, 2.86), (66.2, 1, 52, 2.67), (239, 4, 24, 5.41)],
)
def test_sleep_wakes_match_published_ones(gb, ranks, bus, seconds):
    machine = Machine(bus=bus * GB)
    (wake,) = predict_wake(Tier.ASLEEP, image_bytes=gb * GB, machine=machine, ranks=ranks)
    assert wake.expected_us / SECOND_US == pytest.approx(seconds, rel=0.45)


@given(st.floats(1e8, 1e12), st.integers(1, 16), st.sampled_from(Storage), st.sampled_from([*LOADERS]))
def test_estimates_lie_in_their_interval(parameters, ranks, storage, loader):
    start = Start(parameters=parameters, ranks=ranks, loader=loader)
    for estimate in predict_start(start, Machine(storage=storage)):
        assert 0 <= estimate.low_us <= estimate.expected_us <= estimate.high_us


def weights_after(times: list[int], tier: Tier = Tier.COLD):
    learned = Learned()
    for took_us in times:
        learned.observe(tier, [PhaseSpan(phase=Phase.WEIGHTS, began_us=0, ended_us=took_us)])
    prior = predict_start(Start(parameters=8e9), Machine())
    return next(e for e in learned.expect(Tier.COLD, prior) if e.phase is Phase.WEIGHTS)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=80))
def test_the_median_is_learned(times):
    after, recent = weights_after(times), times[-50:]
    assert after.expected_us == round(median(recent))
    assert after.low_us <= after.expected_us <= after.high_us
    tail = len(recent) // 10
    assert after.low_us <= sorted(recent)[tail] and sorted(recent)[-1 - tail] <= after.high_us


def test_it_learns_from_each_measured_start():
    minute = 60 * SECOND_US
    before, *after = (weights_after([minute] * count) for count in range(9))
    assert before.expected_us < minute / 2, "as predicted: a third of what this host takes"
    assert all(estimate.expected_us == minute for estimate in after)
    spans = [estimate.high_us - estimate.low_us for estimate in after]
    assert spans == sorted(spans, reverse=True), "each one takes away doubt"
    assert spans[0] > minute / 4 and spans[-1] < spans[0] / 2
    assert Learned().expect(Tier.FROZEN) == ()


def test_one_start_shows_a_slow_host():
    start = Start(parameters=8e9)
    slow = {e.phase: e.expected_us for e in predict_start(start, Machine(host=2.5))}
    assert host_factor(start, slow) == pytest.approx(2.5, rel=0.01)


@pytest.mark.parametrize(
    ("billions", "layers"), [(0.6, 28), (8, 32), (13, 40), (32, 64), (70, 80), (235, 94)]
)
def test_layers_are_guessed_from_the_size(billions, layers):
    assert layers_of(billions * 1e9) == pytest.approx(layers, rel=0.2)
