"""Token counts in every dialect, from the JSON documents that they come in.

Only `usage` objects (of llama.cpp also `timings`) at their places count; the same words in a text or in the
arguments of a tool do not.

| dialect | input | cached | output |
| --- | --- | --- | --- |
| OpenAI chat, completions, embeddings | `prompt_tokens` | within it | `completion_tokens` |
| OpenAI responses, images, transcriptions | `input_tokens` | within it | `output_tokens` |
| Anthropic messages | `input_tokens` | `cache_*`, beside it | `output_tokens` |
| xAI, Gemini's OpenAI API | `prompt_tokens` | within it | reasoning only within `total_tokens` |
| DeepSeek | `prompt_tokens` | `prompt_cache_hit_tokens`, within it | `completion_tokens` |
| Groq's streams | the same within `x_groq` | | |
| llama.cpp without usage | `timings`: `prompt_n`, `cache_n` beside it | | `predicted_n` |
"""

from math import ceil
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from poorwill.core.ports.answers import Counts
from poorwill.core.tokens import NO_PARTS, TokenParts

_Number = Annotated[int, Meta(ge=0, le=10**9)] | Annotated[float, Meta(ge=0, le=10**9)] | None
"""A larger value is no count: priced, it would trip a spend limit or overflow the ledger's columns."""


class _Details(Struct):
    cached_tokens: _Number = None
    cache_write_tokens: _Number = None
    audio_tokens: _Number = None
    image_tokens: _Number = None
    reasoning_tokens: _Number = None
    cached_tokens_details: "_Details | None" = None


class _CacheCreation(Struct):
    ephemeral_5m_input_tokens: _Number = None
    ephemeral_1h_input_tokens: _Number = None


class _Usage(Struct):
    prompt_tokens: _Number = None
    completion_tokens: _Number = None
    input_tokens: _Number = None
    output_tokens: _Number = None
    total_tokens: _Number = None
    cache_read_input_tokens: _Number = None
    cache_creation_input_tokens: _Number = None
    cache_creation: _CacheCreation | None = None
    prompt_cache_hit_tokens: _Number = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    input_token_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    output_token_details: _Details | None = None


class _Timings(Struct):
    prompt_n: _Number = None
    cache_n: _Number = None
    predicted_n: _Number = None


class _Document(Struct):
    """Where counts can be: at the top, or within the object that an event is about."""

    usage: _Usage | None = None
    timings: _Timings | None = None
    message: Raw = Raw()
    response: Raw = Raw()
    x_groq: Raw = Raw()
    choices: Raw = Raw()


_document = msgspec.json.Decoder(_Document).decode
_FIELDS = _Usage.__struct_fields__


class Tally:
    """What one answer has reported so far. Later counts replace earlier ones, field by field.

    Anthropic's streams report the input at the start and the output at the end; vLLM may report running
    totals with every chunk. In both, the last value is right.
    """

    __slots__ = ("pieces", "timings", "usage")

    def __init__(self) -> None:
        self.usage: _Usage | None = None
        self.timings: _Timings | None = None
        self.pieces = 0
        """Pieces of text that a stream brought, each of one token or more."""

    def read(self, document: bytes | bytearray, *, inner: bool = False) -> bool:
        """Read one JSON document; return whether it is usage and nothing else, as at the end of a stream."""
        try:
            found = _document(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False  # no JSON, or a count that is none
        for part in () if inner else (found.message, found.response, found.x_groq):
            if part:
                self.read(bytes(part), inner=True)
        self.timings = found.timings or self.timings
        if found.usage is None:
            return False
        if self.usage is None:
            self.usage = found.usage
        else:
            for name in _FIELDS:
                if (value := getattr(found.usage, name)) is not None:
                    setattr(self.usage, name, value)
        return bytes(found.choices) == b"[]"

    def counts(self, *, complete: bool) -> Counts:
        """Return what is known."""
        reported = _counts(self.usage) if self.usage else Counts()
        if not complete and self.pieces > (reported.tokens_out or 0):
            return Counts(
                tokens_in=reported.tokens_in, tokens_out=self.pieces, parts=reported.parts, counted=True
            )
        if reported.tokens_in is not None or reported.tokens_out is not None:
            return reported
        if self.timings is not None and self.timings.predicted_n is not None:
            cached, prompt = self.timings.cache_n, self.timings.prompt_n
            return Counts(
                tokens_in=None if prompt is None else _whole(prompt) + _whole(cached),
                tokens_out=_whole(self.timings.predicted_n),
                parts=TokenParts(cache_read=_whole(cached)) if cached else NO_PARTS,
                counted=True,
            )
        return Counts(tokens_out=self.pieces, counted=True) if self.pieces else reported


def _whole(number: float | None) -> int:
    """Return a count as a whole number, rounded up; none is 0."""
    return ceil(number or 0)


def _counts(usage: _Usage) -> Counts:
    """Return what a usage object says, whatever its dialect."""
    before = usage.prompt_tokens_details or usage.input_tokens_details or usage.input_token_details
    after = usage.completion_tokens_details or usage.output_tokens_details or usage.output_token_details
    given = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    tokens_in = tokens_out = None
    if usage.prompt_tokens is not None:
        tokens_in = _whole(usage.prompt_tokens)
    elif usage.input_tokens is not None:
        beside = _whole(usage.cache_read_input_tokens) + sum(_written(usage))
        tokens_in = _whole(usage.input_tokens) + beside
    if given is not None:
        tokens_out = _whole(given)
    if usage.total_tokens is not None:
        total = _whole(usage.total_tokens)
        if tokens_in is None and tokens_out is None:  # rerankers
            tokens_in = total
        elif tokens_in is not None and tokens_out is not None:
            tokens_out = max(tokens_out, total - tokens_in)
    return Counts(tokens_in=tokens_in, tokens_out=tokens_out, parts=_parts(usage, before, after))


def _written(usage: _Usage) -> tuple[int, int]:
    """Return the tokens that Anthropic wrote to its cache: for five minutes, and for an hour."""
    by_time = usage.cache_creation or _CacheCreation()
    hour, short = _whole(by_time.ephemeral_1h_input_tokens), _whole(by_time.ephemeral_5m_input_tokens)
    return max(_whole(usage.cache_creation_input_tokens) - hour, short), hour


def _parts(usage: _Usage, before: _Details | None, after: _Details | None) -> TokenParts:
    cached_tokens = usage.cache_read_input_tokens, usage.prompt_cache_hit_tokens
    written, for_an_hour = _written(usage)
    if before is after is None and cached_tokens == (None, None) and not (written or for_an_hour):
        return NO_PARTS
    before, after = before or _Details(), after or _Details()
    cached = before.cached_tokens_details or _Details()
    read = before.cached_tokens or usage.cache_read_input_tokens or usage.prompt_cache_hit_tokens
    parts = TokenParts(
        cache_read=_whole(read),
        cache_write=written or _whole(before.cache_write_tokens),
        cache_write_1h=for_an_hour,
        audio_in=max(_whole(before.audio_tokens) - _whole(cached.audio_tokens), 0),
        image_in=max(_whole(before.image_tokens) - _whole(cached.image_tokens), 0),
        audio_out=_whole(after.audio_tokens),
        reasoning=_whole(after.reasoning_tokens),
    )
    return NO_PARTS if parts == NO_PARTS else parts
