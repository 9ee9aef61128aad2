"""The logs of engines that say little: Ollama, `transformers serve`, anything else that runs on uvicorn."""

from collections.abc import Sequence

from poorwill.core.words import Phase
from poorwill.engines.dialects.llamacpp import read_llamacpp
from poorwill.engines.dialects.log_facts import LogFact, began, marker, plain, search, took
from poorwill.engines.dialects.sglang import read_sglang
from poorwill.engines.dialects.vllm import read_vllm

_S = r"(?P<s>\d+(?:\.\d+)?)"

_OLLAMA = (
    began(Phase.READY, r"\bmsg=\"?Listening on "),
    began(Phase.SPAWN, r"\bmsg=\"starting (?:llama-server|llama server|runner)"),
    began(
        Phase.WEIGHTS,
        r"waiting for (?:llama-server|llama runner|server) to (?:start responding|become)",
    ),
    took(Phase.WEIGHTS, rf"(?:llama-server|llama runner) started in {_S} seconds", then=Phase.WARMUP),
)
_TRANSFORMERS = (
    began(Phase.WEIGHTS, r"^\[transformers\] Loading (?!weights)"),
    # A progress bar is one line, rewritten by carriage returns: its end is what counts.
    began(Phase.UNATTRIBUTED, r"Loading (?:weights|checkpoint shards): +100%"),
    began(Phase.WEIGHTS, r"Loading (?:weights|checkpoint shards): +\d+%"),
    began(Phase.READY, r"Application startup complete\."),
)
_UVICORN = (began(Phase.READY, r"Application startup complete\."),)


def read_ollama(line: str) -> Sequence[LogFact]:
    """Return what a line of `ollama serve` tells; its runner speaks llama.cpp's dialect."""
    text = plain(line)
    return search(_OLLAMA, text) or read_llamacpp(text)


def read_transformers(line: str) -> Sequence[LogFact]:
    """Return what a line of `transformers serve` tells."""
    text = plain(line)
    return search(_TRANSFORMERS, text) or marker(text)


def read_any(line: str) -> Sequence[LogFact]:
    """Return what a line of an unknown engine tells: any dialect may be spoken."""
    text = plain(line)
    for dialect in (marker, read_vllm, read_sglang, read_ollama):
        facts = dialect(text)
        if facts:
            return facts
    return search(_UVICORN, text)
