"""The paths that each kind of engine serves: a model is not woken for any other.

From the engines' own route tables of November 2026: llama.cpp's tools/server, vLLM's entrypoints, SGLang's
http_server, Ollama's docs/openai.md, `transformers serve`. A path that is missing here can be reached with
`engine.kind = "command"`, which serves any.
"""

from collections.abc import Mapping
from types import MappingProxyType

_TEXT = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")
_RANKING = ("/v1/rerank", "/v1/score")
_SPEECH = ("/v1/audio/transcriptions", "/v1/audio/translations")

ENGINE_PATHS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "toy": frozenset(_TEXT),
        "llama.cpp": frozenset(
            {
                *_TEXT,
                *_MESSAGES,
                "/v1/responses",
                "/v1/rerank",
                "/v1/reranking",
                "/v1/infill",
                "/v1/audio/transcriptions",
            }
        ),
        "vllm": frozenset(
            {
                *_TEXT,
                *_MESSAGES,
                *_RANKING,
                *_SPEECH,
                "/v1/responses",
                "/v1/pooling",
                "/v1/classify",
                "/v1/realtime",
            }
        ),
        "sglang": frozenset(
            {
                *_TEXT,
                *_MESSAGES,
                *_RANKING,
                "/v1/responses",
                "/v1/classify",
                "/v1/tokenize",
                "/v1/detokenize",
                "/v1/audio/transcriptions",
                "/v1/images/generations",
                "/v1/images/edits",
            }
        ),
        "ollama": frozenset({*_TEXT, *_MESSAGES, "/v1/responses", "/v1/images/generations"}),
        "transformers": frozenset({*_TEXT, *_SPEECH, "/v1/responses"}),
    }
)
"""By kind; a kind that is not named serves any path."""
