"""Log lines of every engine and version in range, built from their documented formats, and a captured log."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.launch import PhaseMark
from poorwill.core.words import SECOND_US, Phase
from poorwill.engines.dialects.llamacpp import read_llamacpp
from poorwill.engines.dialects.others import read_any, read_ollama, read_transformers
from poorwill.engines.dialects.sglang import read_sglang
from poorwill.engines.dialects.vllm import read_vllm, settle_compilation
from poorwill.policies.coldstart.anatomy import anatomy
from poorwill.policies.coldstart.leaves import totals

CAPTURED = Path(__file__).parent / "data" / "llamacpp_verbosity4.log"

PREFIXES = [
    "INFO 02-14 02:37:28 [core.py:50] ",  # up to 0.9
    "(EngineCore_DP0 pid=123) INFO 11-23 18:13:16 [gpu_worker.py:773] ",
    "(Worker_TP0 pid=44) INFO 02-14 02:37:28 [v1/engine/core.py:50] ",
    "\x1b[0;36m(EngineCore pid=9)\x1b[0;0m INFO 02-14 02:37:28 [core.py:50] ",
    "",
]

VLLM = [
    ("vLLM API server version 0.10.1", Phase.IMPORTS, None),
    ("vLLM server version 0.33.0, serving model Qwen/Qwen3-0.6B", Phase.IMPORTS, None),
    ("Initializing an LLM engine (v0.6.3) with config: model='m'", Phase.CONTEXT, None),
    ("Initializing a V1 LLM engine (v0.33.0) with config: model=..", Phase.CONTEXT, None),
    ("Starting to load model /m...", Phase.WEIGHTS, None),
    ("Loading model from scratch...", Phase.WEIGHTS, None),
    (
        "Time spent downloading weights for Qwen/Qwen3-0.6B: 12.345678 seconds",
        Phase.DOWNLOAD,
        12.345678,
    ),
    ("Loading weights took 0.72 seconds", Phase.WEIGHTS, 0.72),
    ("Model loading took 1.12 GiB memory and 1.234567 seconds", Phase.WEIGHTS, 1.234567),
    ("Model loading took 14.99 GB and 12.1 seconds", Phase.WEIGHTS, 12.1),
    ("Dynamo bytecode transform time: 3.21 s", Phase.COMPILE_MISS, 3.21),
    (
        "Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 1.234 s",
        Phase.COMPILE_HIT,
        1.234,
    ),
    ("Directly load the compiled graph for shape None from the cache", Phase.COMPILE_HIT, None),
    ("Directly load AOT compilation from path /c/x", Phase.COMPILE_HIT, None),
    ("Compiling a graph for general shape takes 36.76 s", Phase.COMPILE_MISS, 36.76),
    ("torch.compile takes 20.00 s in total", Phase.COMPILE_MISS, 20.0),
    ("torch.compile took 20.00 s in total", Phase.COMPILE_MISS, 20.0),
    (
        "torch.compile and initial profiling/warmup run together took 9.10 s in total",
        Phase.WARMUP,
        9.1,
    ),
    ("Initial profiling/warmup run took 0.50 s", Phase.WARMUP, 0.5),
    ("Memory profiling takes 1.50 seconds", Phase.WARMUP, 1.5),
    ("Available KV cache memory: 60.1 GiB", Phase.KV_CACHE, None),
    ("GPU KV cache size: 561,232 tokens, Maximum concurrency for 40,960", Phase.KV_CACHE, None),
    ("# GPU blocks: 27000, # CPU blocks: 2048", Phase.KV_CACHE, None),
    ("Graph capturing finished in 3 secs, took 0.55 GiB", Phase.GRAPHS, 3.0),
    ("Encoder graph capturing finished in 3 secs, took 0.55 GiB (4 graphs)", Phase.GRAPHS, 3.0),
    (
        "init engine (profile, create kv cache, warmup model) took 12.34 seconds",
        Phase.WARMUP,
        12.34,
    ),
    (
        "init engine (profile, create kv cache, warmup model) took 12.34 s (compilation: 8.10 s)",
        Phase.WARMUP,
        12.34,
    ),
    ("Starting vLLM API server 0 on http://0.0.0.0:8000", Phase.READY, None),
    ("Starting vLLM server on http://0.0.0.0:8000", Phase.READY, None),
    ("It took 0.26 seconds to wake up tags ['weights', 'kv_cache'].", Phase.ENGINE_WAKE, 0.26),
    ("It took 0.26 seconds to wake up.", Phase.ENGINE_WAKE, 0.26),
]

SGLANG = [
    ("Load weight begin. avail mem=78.60 GB", Phase.WEIGHTS, None),
    (
        "Load weight end. elapsed=3.20 s, type=Qwen3ForCausalLM, avail mem=60.00 GB, mem usage=15 GB.",
        Phase.WEIGHTS,
        3.2,
    ),
    ("Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16", Phase.KV_CACHE, None),
    ("KV Cache is allocated. #tokens: 123456, K size: 1 GB, V size: 1 GB", Phase.KV_CACHE, None),
    ("Memory pool end. avail mem=8.10 GB", Phase.UNATTRIBUTED, None),
    ("Capture cuda graph begin. This can take up to several minutes.", Phase.GRAPHS, None),
    (
        "Capture target decode CUDA graph end. bs=[1, 2, 4], elapsed=4.10 s, mem usage=0.40 GB.",
        Phase.GRAPHS,
        4.1,
    ),
    ("Capture cuda graph end. Time elapsed: 10.33 s. mem usage=1.2 GB.", Phase.GRAPHS, 10.33),
    ("The server is fired up and ready to roll!", Phase.READY, None),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("text", "phase", "seconds"), VLLM)
def test_vllm_lines_with_any_prefix(prefix, text, phase, seconds):
    news = read_vllm(prefix + text)
    assert news and news[0].phase is phase, text
    assert news[0].took_us == (None if seconds is None else round(seconds * SECOND_US))


@pytest.mark.parametrize("prefix", ["", "[2026-11-23 10:00:00] ", "[2026-11-23 10:00:00.123 DP0 TP0] "])
@pytest.mark.parametrize(("text", "phase", "seconds"), SGLANG)
def test_sglang_lines_with_any_prefix(prefix, text, phase, seconds):
    news = read_sglang(prefix + text)
    assert news and news[0].phase is phase, text
    assert news[0].took_us == (None if seconds is None else round(seconds * SECOND_US))


def test_a_captured_llama_cpp_log():
    news = [item for line in CAPTURED.read_text().splitlines() for item in read_llamacpp(line)]
    phases = list(dict.fromkeys(item.phase for item in news))
    assert phases == [
        Phase.IMPORTS,
        Phase.WEIGHTS,
        Phase.CONTEXT,
        Phase.KV_CACHE,
        Phase.GRAPHS,
        Phase.WARMUP,
        Phase.UNATTRIBUTED,
        Phase.READY,
    ]
    stamps = [item.since_us for item in news if item.since_us is not None]
    assert stamps == sorted(stamps)
    assert stamps[-1] == 25_350


def test_llama_cpp_stamps_count_minutes():
    (news,) = read_llamacpp("2.05.250.001 I srv  init: listening on http://127.0.0.1:1")
    assert news.since_us == 125_250_001


@pytest.mark.parametrize(
    ("line", "phase", "seconds"),
    [
        (
            'time=2026-11-23 level=INFO msg="llama runner started in 3.21 seconds"',
            Phase.WEIGHTS,
            3.21,
        ),
        ('level=INFO msg="llama-server started in 0.50 seconds"', Phase.WEIGHTS, 0.5),
        ('level=INFO msg="waiting for llama runner to start responding"', Phase.WEIGHTS, None),
    ],
)
def test_ollama_lines(line, phase, seconds):
    news = read_ollama(line)
    assert news[0].phase is phase
    assert news[0].took_us == (None if seconds is None else round(seconds * SECOND_US))


def test_transformers_lines():
    assert read_transformers("Loading weights:   0%|          | 0/111 [00:00<?]")[0].phase is Phase.WEIGHTS
    assert read_transformers("INFO:     Application startup complete.")[0].phase is Phase.READY


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_no_line_is_an_error(line):
    for dialect in (
        read_vllm,
        read_sglang,
        read_llamacpp,
        read_ollama,
        read_transformers,
        read_any,
    ):
        for news in dialect(line):
            assert news.phase in Phase


def told(phase: Phase, ended_s: float, took_s: float, detail: str = "") -> PhaseMark:
    at = round((ended_s - took_s) * SECOND_US)
    return PhaseMark(phase=phase, at_us=at, ended_us=round(ended_s * SECOND_US), detail=detail)


def test_a_whole_vllm_start():
    """The lines of a start, each at the second it was written; durations nest and are told afterwards."""
    lines = [
        (12.0, "(APIServer pid=1) INFO 11-23 18:00:12 [startup.py:18] vLLM server version 0.33.0"),
        (20.0, "Initializing a V1 LLM engine (v0.33.0) with config: model=m"),
        (23.0, "Starting to load model m..."),
        (31.0, "Loading weights took 7.00 seconds"),
        (32.0, "Model loading took 14.99 GiB memory and 8.50 seconds"),
        (36.0, "Dynamo bytecode transform time: 4.00 s"),
        (56.0, "Compiling a graph for compile range (1, 8192) takes 20.00 s"),
        (57.0, "torch.compile took 25.00 s in total"),
        (59.0, "Initial profiling/warmup run took 2.00 s"),
        (60.0, "GPU KV cache size: 561,232 tokens"),
        (65.0, "Graph capturing finished in 5 secs, took 0.55 GiB"),
        (66.0, "init engine (profile, create kv cache, warmup model) took 34.00 seconds"),
        (67.0, "Starting vLLM server on http://127.0.0.1:8000"),
    ]
    marks = [PhaseMark(phase=Phase.SPAWN, at_us=0)]
    for at_s, line in lines:
        for news in read_vllm(line):
            if news.took_us is None:
                marks.append(PhaseMark(phase=news.phase, at_us=round(at_s * SECOND_US)))
            else:
                marks.append(told(news.phase, at_s, news.took_us / SECOND_US, news.detail))
    spans = anatomy(settle_compilation(marks), 0, 70 * SECOND_US)
    seconds = {str(phase): us / SECOND_US for phase, us in totals(spans).items()}
    assert sum(seconds.values()) == 70
    assert seconds["spawn"] == 12
    assert seconds["weights"] == pytest.approx(9, abs=0.01)
    assert seconds["compile_miss"] == 25
    assert seconds["graphs"] == 5
    assert seconds["warmup"] == pytest.approx(4, abs=1.5)
    assert seconds["ready"] == 3


def test_a_cached_compilation_is_a_hit():
    marks = [
        told(Phase.COMPILE_MISS, 8, 4, "dynamo"),
        told(Phase.COMPILE_HIT, 12, 4, "inductor cache"),
        told(Phase.COMPILE_MISS, 12, 8),
    ]
    assert {mark.phase for mark in settle_compilation(marks)} == {Phase.COMPILE_HIT}
    missed = [*marks, told(Phase.COMPILE_MISS, 30, 18, "inductor")]
    assert settle_compilation(missed) == missed


def test_a_captured_transformers_log():
    log = CAPTURED.with_name("transformers_serve.log").read_bytes().decode()
    news = [item for line in log.split("\n") for item in read_transformers(line)]
    assert [item.phase for item in news] == [Phase.WEIGHTS, Phase.UNATTRIBUTED, Phase.READY]
