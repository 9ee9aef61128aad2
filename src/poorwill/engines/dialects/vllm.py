"""vLLM's start-up log, versions 0.6 to 0.33.

Format strings as of 0.33.0: entrypoints/common/startup.py, v1/engine/core.py, v1/worker/gpu_model_runner.py,
model_executor/model_loader, compilation/, v1/executor/abstract.py; older wordings are alternatives within
the same pattern. Durations nest: the engine's initialisation holds profiling, compilation and graph capture;
loading the model holds reading the weights. Every duration is told when it is over, by one process or by each
worker.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from poorwill.core.launch import PhaseMark
from poorwill.core.words import Phase
from poorwill.engines.dialects.log_facts import LogFact, began, marker, micros, plain, search, took

_PREFIX = re.compile(
    r"^(?:\([A-Za-z][\w.:-]*(?:[ _][\w.:-]+)*? pid=\d+\) )?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[[^\]]+\] "
    r"|(?:INFO|WARNING|ERROR): +)"
)
_S = r"(?P<s>\d+(?:\.\d+)?)"

_INDUCTOR = "inductor"

_TABLE = (
    began(Phase.IMPORTS, r"^vLLM (?:API )?server version", "arguments"),
    began(Phase.CONTEXT, r"^Initializing an? (?:V1 )?LLM engine \(v[^)]+\)", "engine process"),
    began(
        Phase.CONTEXT,
        r"world_size=\d+ rank=\d+ local_rank=\d+ distributed_init_method=",
        "distributed",
    ),
    took(Phase.DOWNLOAD, rf"^Time spent downloading weights for .+: {_S} seconds", then=Phase.WEIGHTS),
    began(Phase.WEIGHTS, r"^(?:Starting to load model |Loading model from scratch)"),
    took(Phase.WEIGHTS, rf"^Initializing model took {_S} seconds", "modules"),
    took(Phase.WEIGHTS, rf"^Loading weights took {_S} seconds", "read"),
    took(
        Phase.WEIGHTS,
        rf"^Model loading took (?P<d>[\d.]+ Gi?B)(?: memory)? and {_S} seconds",
        then=Phase.WARMUP,
    ),
    took(Phase.COMPILE_MISS, rf"Dynamo bytecode transform time: {_S} s", "dynamo"),
    took(
        Phase.COMPILE_HIT,
        rf"Directly load the compiled graph\(s\) for .+? took {_S} s",
        "inductor cache",
    ),
    began(Phase.COMPILE_HIT, r"Directly load the (?:compiled graph|\d+-th graph)", "inductor cache"),
    began(Phase.COMPILE_HIT, r"Directly load AOT compilation from path", "AOT cache"),
    took(Phase.COMPILE_MISS, rf"Compiling a graph for .+? takes {_S} s", _INDUCTOR),
    took(
        Phase.WARMUP,
        rf"torch\.compile and initial profiling/warmup run together took {_S} s",
        "profile",
    ),
    took(Phase.COMPILE_MISS, rf"torch\.compile (?:takes|took) {_S} s in total", then=Phase.WARMUP),
    began(Phase.COMPILE_MISS, r"^Starting torch\.compile"),
    took(
        Phase.WARMUP,
        rf"(?:Initial profiling/warmup run|Memory profiling) (?:took|takes) {_S} s",
        "profile",
    ),
    began(Phase.KV_CACHE, r"(?P<d>Available KV cache memory: [\d.]+ GiB)"),
    began(Phase.KV_CACHE, r"KV cache size: (?P<d>[\d,]+ tokens)"),
    began(Phase.KV_CACHE, r"(?P<d># (?:GPU|CUDA) blocks: \d+)"),
    began(Phase.GRAPHS, r"^(?:Capturing (?:the model for )?CUDA graph|Capturing cudagraphs)"),
    took(Phase.GRAPHS, rf"Encoder [Gg]raph capturing finished in {_S} secs?", "encoder"),
    took(Phase.GRAPHS, rf"Graph capturing finished in {_S} secs?", then=Phase.UNATTRIBUTED),
    began(Phase.READY, r"^Starting vLLM (?:API )?server", "HTTP"),
    took(Phase.ENGINE_WAKE, rf"^It took {_S} seconds to wake up(?P<d> tags .+?)?\.$"),
    took(Phase.WEIGHTS, rf"^Reloading and processing weights took {_S} seconds", "reload"),
)
_ENGINE = re.compile(
    rf"^init engine \(profile, create kv cache, warmup model\) took {_S} s(?:econds)?\b"
    r"(?: \(compilation: (?P<compile>[\d.]+) s)?"
)


def read_vllm(line: str) -> Sequence[LogFact]:
    """Return what a line tells.

    The engine's total is the frame around profiling, compilation and capture: what none of them explains
    within it counts as warm-up, which is what the rest of it is.
    """
    text = plain(line)
    text = _PREFIX.sub("", text)
    frame = _ENGINE.match(text)
    if frame is not None:
        return (
            LogFact(
                phase=Phase.WARMUP,
                took_us=micros(frame.groupdict()),
                detail="engine initialisation",
            ),
            LogFact(phase=Phase.UNATTRIBUTED),
        )
    return search(_TABLE, text) or marker(text)


def settle_compilation(marks: Sequence[PhaseMark]) -> list[PhaseMark]:
    """Return the marks with hit and miss told apart, which a line alone cannot always do.

    vLLM traces with Dynamo and reports a total whether or not its cache holds the graphs. Where graphs came
    from the cache and none was compiled, all of it was a hit.
    """
    compiled = any(m.phase is Phase.COMPILE_MISS and m.detail == _INDUCTOR for m in marks)
    if compiled or not any(m.phase is Phase.COMPILE_HIT for m in marks):
        return list(marks)
    return [replace(m, phase=Phase.COMPILE_HIT) if m.phase is Phase.COMPILE_MISS else m for m in marks]
