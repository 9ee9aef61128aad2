"""llama.cpp's server log, of `llama-server` and of the wheel xllamacpp, at verbosity 3 and 4.

Lines carry the time since the server's start as M.SS.mmm.uuu (common/log.cpp) unless that is switched off.
What libllama says about loading is only there at verbosity 4; without it the whole load is one phase.
"""

import re
from collections.abc import Sequence

from poorwill.core.words import Phase
from poorwill.engines.dialects.log_facts import LogFact, began, marker, plain, search, took

_STAMP = re.compile(r"^(\d{1,7})\.(\d\d)\.(\d{3})\.(\d{3}) (?:[IWEDT] )?")

_TABLE = (
    began(Phase.WEIGHTS, r"load_model: loading model '"),
    began(Phase.WEIGHTS, r"load_tensors: loading model tensors", "read"),
    began(
        Phase.WEIGHTS,
        r"load_tensors: +(?P<d>\S+ (?:model|compute)? ?buffer size = +[\d.]+ MiB)",
        "read",
    ),
    began(Phase.WEIGHTS, r"load_tensors: (?P<d>offloaded \d+/\d+ layers to GPU)", "read"),
    began(Phase.CONTEXT, r"llama_context: constructing llama_context"),
    began(Phase.KV_CACHE, r"llama_kv_cache(?:_\w+)?: +(?P<d>\S+ KV buffer size = +[\d.]+ MiB)"),
    began(Phase.GRAPHS, r"sched_reserve: reserving"),
    began(Phase.GRAPHS, r"llama_context: +\S+ compute buffer size"),
    began(Phase.WARMUP, r"warming up the model with an empty run"),
    began(Phase.UNATTRIBUTED, r"initializing,? (?:slots, )?n_slots = \d+"),
    took(Phase.WEIGHTS, r"\bload time = +(?P<ms>[\d.]+) ms"),
    began(Phase.READY, r"(?:server is )?listening on http"),
)


def read_llamacpp(line: str) -> Sequence[LogFact]:
    """Return what a line tells."""
    text = plain(line)
    stamp = _STAMP.match(text)
    if stamp is None:
        return search(_TABLE, text) or marker(text)
    minutes, seconds, millis, micros = map(int, stamp.groups())
    since_us = ((minutes * 60 + seconds) * 1000 + millis) * 1000 + micros
    return search(_TABLE, text[stamp.end() :], since_us=since_us)
