"""Starts compared, advice from measured differences, the words of an overrun, traces."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from poorwill.core.entries import Noted, PhaseSpan, WakeBegan, WakeEnded
from poorwill.core.errors import OperatorFault
from poorwill.core.machine.phase_limit import EXPECTED_DETAIL, overrun, with_rates
from poorwill.core.words import SECOND_US, ModelName, Phase, ReplicaId, Tier, WakeId
from poorwill.policies.coldstart.advice import StartSetup, advise
from poorwill.policies.coldstart.leaves import STORAGE_DETAIL
from poorwill.policies.coldstart.report.waterfall import side_by_side
from poorwill.policies.coldstart.starts import FinishedWake, StartKind, compare
from poorwill.telemetry.tracing import (
    CountingExporter,
    WakeTracer,
    chrome_trace,
    open_tracer,
    trace_wakes,
)

GB = 10**9


def wake(*phases: tuple[Phase, float, int | None, str], tier: Tier = Tier.COLD, **other) -> FinishedWake:
    spans, at = [], 0
    for phase, took_s, read, detail in phases:
        end = at + round(took_s * SECOND_US)
        spans.append(PhaseSpan(phase=phase, began_us=at, ended_us=end, bytes_read=read, detail=detail))
        at = end
    values = {
        "wake": WakeId("w"),
        "model": ModelName("m"),
        "replica": ReplicaId("m-0"),
        "from_tier": tier,
        "began_us": 0,
        "ended_us": at,
        "ok": True,
        "failure": "",
        "why": "demand",
        "asked_by": "k",
        "held": 1,
        "served": 1,
        "budget_us": 60 * SECOND_US,
        "image_bytes": 0,
        "spans": tuple(spans),
        "prices_nusd": tuple((s.ended_us - s.began_us) // 1000 for s in spans),
    }
    return FinishedWake(**(values | other))


def stored(count: int) -> str:
    return STORAGE_DETAIL.format(count)


COLD = wake(
    (Phase.IMPORTS, 1, None, ""),
    (Phase.WEIGHTS, 10, 2 * GB, stored(2 * GB)),
    (Phase.COMPILE_MISS, 8, None, ""),
    (Phase.GRAPHS, 4, None, ""),
)
CACHED = wake(
    (Phase.IMPORTS, 1, None, ""),
    (Phase.WEIGHTS, 2, 2 * GB, stored(1000)),
    (Phase.COMPILE_HIT, 3, None, ""),
    (Phase.GRAPHS, 4, None, ""),
)
FROZEN = wake((Phase.READ_IMAGE, 1, 3 * GB, ""), (Phase.RESTORE_PROCESS, 0.5, None, ""), tier=Tier.FROZEN)


def test_kinds_of_start():
    assert [w.kind for w in (COLD, CACHED, FROZEN)] == [
        StartKind.COLD,
        StartKind.CACHE_WARM,
        StartKind.FROZEN,
    ]
    unknown = wake((Phase.WEIGHTS, 1, None, ""))
    assert unknown.kind is StartKind.COLD


def test_each_kind_is_summarised():
    slower = wake((Phase.WEIGHTS, 20, 2 * GB, stored(2 * GB)))
    failed = wake((Phase.WEIGHTS, 99, None, ""), ok=False)
    cold, warm, frozen = compare([COLD, slower, failed, CACHED, FROZEN])
    assert (cold.kind, cold.count) == (StartKind.COLD, 2)
    weights = cold.phases[Phase.WEIGHTS]
    assert (weights.low_us, weights.median_us, weights.high_us) == tuple(s * SECOND_US for s in (10, 15, 20))
    assert cold.phases[Phase.GRAPHS].low_us == 0
    assert cold.reading_us(2 * GB) == SECOND_US
    assert frozen.reading_us(1 * GB) == 3 * SECOND_US
    assert warm.price_nusd == sum(CACHED.prices_nusd)
    assert cold.phase_prices_nusd[Phase.WEIGHTS] == 15_000


def test_a_wake_without_a_rate_has_no_price():
    unpriced = replace(COLD, prices_nusd=(None,) * len(COLD.spans))
    (cold,) = compare([unpriced])
    assert cold.price_nusd is None
    assert cold.phase_prices_nusd == {}


def test_a_snapshot_counts_as_read():
    silent = wake((Phase.RESTORE_PROCESS, 1, None, ""), tier=Tier.FROZEN, image_bytes=GB)
    assert silent.must_read_bytes == GB


def test_reading_alone_is_no_floor():
    """A floor is the least number of ready replicas."""
    told = "\n".join(side_by_side(compare([COLD, FROZEN]), 2 * GB))
    assert "reading alone" in told and "total / reading" in told and "floor" not in told


def test_the_largest_advice_comes_first():
    advice = advise(compare([COLD, CACHED, FROZEN]), StartSetup(bandwidth=2 * GB, engine="vllm"))
    assert [a.saves_us for a in advice] == sorted((a.saves_us for a in advice), reverse=True)
    frozen = next(a for a in advice if "frozen" in a.do)
    assert frozen.measured and frozen.saves_us == COLD.took_us - FROZEN.took_us
    cache = next(a for a in advice if "page cache" in a.do)
    assert cache.measured and cache.saves_us == 8 * SECOND_US
    compiled = next(a for a in advice if "compile caches" in a.do)
    assert compiled.measured and compiled.saves_us == 5 * SECOND_US
    loader = next(a for a in advice if "load-format" in a.do)
    assert not loader.measured and loader.saves_us == round(8.75 * SECOND_US)


def test_network_weights_belong_on_a_disk():
    def disk(*wakes: FinishedWake, **about: str):
        found = advise(compare(wakes), StartSetup(**about))
        return next((a for a in found if "disk of this machine" in a.do), None)

    assert disk(COLD) is None
    downloading = wake((Phase.DOWNLOAD, 30, 2 * GB, ""), (Phase.WEIGHTS, 10, 2 * GB, stored(2 * GB)))
    download = disk(downloading)
    assert download is not None and download.measured
    assert download.saves_us == 30 * SECOND_US
    mounted = disk(COLD, remote="nfs4")
    assert mounted is not None and not mounted.measured
    assert "not on nfs4" in mounted.do
    assert mounted.saves_us == 10 * SECOND_US - 500_000


def test_a_tier_in_the_ladder_is_kept():
    about = StartSetup(ladder=("frozen", "cold"))

    def about_frozen(*wakes: FinishedWake) -> str:
        return next(a.do for a in advise(compare(wakes), about) if "frozen" in a.do)

    assert "only the first start was cold" in about_frozen(COLD, FROZEN, FROZEN)
    assert "2 of 3 were cold starts" in about_frozen(COLD, CACHED, FROZEN)


def test_a_compile_cache_hit_needs_no_advice():
    hit = wake((Phase.WEIGHTS, 10, 2 * GB, stored(2 * GB)), (Phase.COMPILE_HIT, 3, None, ""))

    def told(*wakes: FinishedWake) -> bool:
        return any("compile caches" in a.do for a in advise(compare(wakes), StartSetup()))

    assert told(hit, COLD)
    assert not told(COLD, hit)


def test_small_savings_are_left_out():
    (snapshot,) = [a for a in advise(compare([CACHED]), StartSetup(bandwidth=2 * GB)) if "snapshot" in a.do]
    assert not snapshot.measured
    quick = wake((Phase.WEIGHTS, 0.01, 1000, stored(1000)))
    assert advise(compare([quick]), StartSetup(bandwidth=2 * GB)) == []
    assert advise([], StartSetup()) == []


def test_an_overrun_names_phase_and_rates():
    why = overrun(Phase.WEIGHTS, 61 * SECOND_US, 60 * SECOND_US)
    assert why == "weights: 61 s of 60 s"
    slow = PhaseSpan(
        phase=Phase.WEIGHTS,
        began_us=0,
        ended_us=61 * SECOND_US,
        bytes_read=round(18.3 * GB),
        detail="read, " + EXPECTED_DETAIL.format(2.1 * GB),
    )
    assert with_rates(why, [slow]) == "weights: 61 s of 60 s; reading 0.3 GB/s, expected 2.1"
    assert with_rates(why, [replace(slow, detail="")]) == "weights: 61 s of 60 s; reading 0.3 GB/s"
    assert with_rates(why, [replace(slow, bytes_read=None)]) == why
    assert (
        with_rates(why, [replace(slow, bytes_read=0)])
        == "weights: 61 s of 60 s; reading 0 GB/s, expected 2.1"
    )
    assert with_rates("weights: slow: disk", [replace(slow, ended_us=slow.began_us)]) == "weights: slow: disk"
    moment = replace(slow, ended_us=slow.began_us + 1, bytes_read=2_000, detail="")
    assert with_rates("weights: slow: disk", [moment]) == "weights: slow: disk; reading 2 GB/s"
    for spent_us, told in ((2_003_000, "2.003"), (2_345_600, "2.35"), (2_000_001, "2")):
        assert overrun(Phase.WEIGHTS, spent_us, 2 * SECOND_US) == f"weights: {told} s of 2 s"
    imports = replace(slow, phase=Phase.IMPORTS)
    assert with_rates("imports: 61 s of 60 s", [imports]) == "imports: 61 s of 60 s"
    assert with_rates("poorwill is shutting down", [slow]) == "poorwill is shutting down"


def test_the_chrome_trace_has_every_leaf():
    trace = chrome_trace([COLD, FROZEN])
    events = json.loads(json.dumps(trace))["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == 2 + len(COLD.spans) + len(FROZEN.spans)
    weights = next(event for event in complete if event["name"] == "weights")
    assert (weights["ts"], weights["dur"]) == (1 * SECOND_US, 10 * SECOND_US)
    assert weights["args"]["bytes_read"] == 2 * GB


def test_a_trace_of_several_models():
    other = replace(FROZEN, model=ModelName("n"), replica=ReplicaId("n-0"), wake=WakeId("v"))
    events = chrome_trace([COLD, other])["traceEvents"]
    named = {
        (event["name"], event["args"]["name"]): (event["pid"], event["tid"])
        for event in events
        if event["ph"] == "M"
    }
    for model, replica, wake in (("m", "m-0", "w"), ("n", "n-0", "v")):
        (whole,) = (e for e in events if e["args"].get("wake") == wake)
        place = (whole["pid"], whole["tid"])
        assert named["thread_name", replica] == place
        assert named["process_name", model][0] == place[0]


def test_tracing_needs_an_endpoint():
    assert open_tracer({}) is None
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: F401
    except ImportError:
        with pytest.raises(OperatorFault, match="not installed"):
            open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


def test_spans_that_cannot_be_sent_are_counted():
    pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Deaf(SpanExporter):
        def export(self, spans):
            return SpanExportResult.FAILURE

    exporter = CountingExporter(Deaf())
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = WakeTracer(provider, exporter)
    tracer.send(COLD)
    assert tracer.close() == 1 + len(COLD.spans)


async def test_lost_spans_are_reported_once():
    class Deaf:
        def __init__(self) -> None:
            self.left = [2, 0, 1]

        def lost(self) -> int:
            return self.left.pop(0)

        def close(self) -> int:
            return self.left.pop(0)

    log = Lines()
    entries = [Noted(at_us=1, kind="adopted"), Noted(at_us=2, kind="adopted")]
    await trace_wakes(lambda: Feed(entries), Deaf(), log=log)
    assert log.warnings == ["spans were not sent"] * 2


def test_the_library_is_silent_on_stderr():
    pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` is not installed")
    said = (
        "import logging; from poorwill.telemetry.tracing import open_tracer\n"
        "tracer = open_tracer({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'})\n"
        "logging.getLogger('opentelemetry.exporter.x').error('Transient error')\n"
        "assert tracer.close() == 0\n"
    )
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


class Feed:
    """A feed of given entries, which then ends."""

    def __init__(self, entries) -> None:
        self._entries = iter(entries)

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return next(self._entries)
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self) -> None:
        pass


class Lines:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def info(self, message, /, **fields): ...

    def warning(self, message, /, **fields):
        self.warnings.append(message)

    def error(self, message, /, **fields): ...


def exporting():
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return WakeTracer(provider), exporter


async def test_ended_wakes_are_sent_with_phases():
    tracer, exporter = exporting()
    began = WakeBegan(
        wake=WakeId("w"),
        replica=ReplicaId("m-0"),
        model=ModelName("m"),
        generation=1,
        at_us=0,
        from_tier=Tier.COLD,
        asked_by="k",
        why="demand",
        budget_us=None,
    )
    ended = WakeEnded(
        wake=WakeId("w"), replica=ReplicaId("m-0"), at_us=COLD.ended_us, ok=True, anatomy=COLD.spans
    )
    stranger = replace(ended, wake=WakeId("lost"))
    await trace_wakes(lambda: Feed([began, 7, stranger, ended]), tracer, log=Lines())
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"wake m", "imports", "weights", "compile_miss", "graphs"}
    whole = spans["wake m"]
    assert (whole.start_time, whole.end_time) == (0, COLD.ended_us * 1000)
    assert all(s.parent.span_id == whole.context.span_id for n, s in spans.items() if n != "wake m")
