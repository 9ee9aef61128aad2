"""SGLang's start-up log, versions 0.4 to 0.5.23 (srt/model_executor/model_runner.py, cuda_graph_setup.py,
managers/scheduler.py, entrypoints/http_server.py). `fired up` follows its own warm-up request, so it is
readiness.
"""

import re
from collections.abc import Sequence

from poorwill.core.words import Phase
from poorwill.engines.dialects.log_facts import LogFact, began, marker, plain, search, took

_PREFIX = re.compile(
    r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{3})?(?: [A-Z]+\d+(?:_[A-Z]+\d+)*)*\] |^INFO: +"
)
_S = r"(?P<s>\d+(?:\.\d+)?)"

_TABLE = (
    began(Phase.IMPORTS, r"^server_args=", "arguments"),
    began(Phase.CONTEXT, r"^Init torch distributed begin"),
    took(Phase.CONTEXT, rf"^Init torch distributed ends\. elapsed={_S} s", then=Phase.UNATTRIBUTED),
    began(Phase.UNATTRIBUTED, r"^Init torch distributed ends\."),
    began(Phase.WEIGHTS, r"^Load weight begin\."),
    took(Phase.WEIGHTS, rf"^Load weight end\. elapsed={_S} s", then=Phase.KV_CACHE),
    took(
        Phase.WEIGHTS,
        rf"^Load weight end\. Committed real weights after CUDA graph capture in {_S} s",
    ),
    began(Phase.KV_CACHE, r"^Load weight end\."),
    began(Phase.KV_CACHE, r"KV [Cc]ache (?:is )?allocated\..*?#tokens: (?P<d>\d+)", "tokens"),
    began(Phase.KV_CACHE, r"KV [Cc]ache (?:is )?allocated\."),
    began(Phase.UNATTRIBUTED, r"^Memory pool end\."),
    began(Phase.GRAPHS, r"^Capture (?P<d>.+?) begin\."),
    took(
        Phase.GRAPHS,
        rf"^Capture (?P<d>.+?) end\. (?:.*?\belapsed=|Time elapsed: ){_S} s",
        then=Phase.UNATTRIBUTED,
    ),
    began(Phase.UNATTRIBUTED, r"^max_total_num_tokens=(?P<d>\d+), chunked_prefill_size=", "tokens"),
    began(Phase.WARMUP, r"Application startup complete\.", "the engine's own request"),
    began(Phase.READY, r"The server is fired up and ready to roll!"),
)


def read_sglang(line: str) -> Sequence[LogFact]:
    """Return what a line tells."""
    text = plain(line)
    return search(_TABLE, _PREFIX.sub("", text)) or marker(text)
