"""Token counts in every dialect, from the JSON documents that they come in.

Only `usage` objects (of llama.cpp also `timings`) at their places count; the same words in a text or in the
arguments of a tool do not.

| dialect | input | cached | output |
| --- | --- | --- | --- |
| OpenAI chat, completions, embeddings | `prompt_tokens` | within it | `completion_tokens` |
| OpenAI responses, images, transcriptions | `input_tokens` | within it | `output_tokens` |
| Anthropic messages | `input_tokens` | `cache_*_input_tokens`, beside it | `output_tokens` |
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


class _Usage(Struct):
    prompt_tokens: _Number = None
    completion_tokens: _Number = None
    input_tokens: _Number = None
    output_tokens: _Number = None
    total_tokens: _Number = None
    cache_read_input_tokens: _Number = None
    cache_creation_input_tokens: _Number = None
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


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Raw = Raw()


class _Choice(Struct):
    text: str | None = None
    delta: _Delta | None = None


class _Piece(Struct):
    """An event that carries some of the answer."""

    type: str = ""
    choices: tuple[_Choice, ...] = ()


class _Document(Struct):
    """Where counts can be: at the top, or within the object that an event is about."""

    usage: Raw = Raw()
    timings: Raw = Raw()
    message: Raw = Raw()
    response: Raw = Raw()
    x_groq: Raw = Raw()
    choices: Raw = Raw()


_document = msgspec.json.Decoder(_Document).decode
_piece = msgspec.json.Decoder(_Piece).decode
_usage = msgspec.json.Decoder(_Usage).decode
_timings = msgspec.json.Decoder(_Timings).decode
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
            return False
        for part in () if inner else (found.message, found.response, found.x_groq):
            if bytes(part).startswith(b"{"):
                self.read(bytes(part), inner=True)
        self.take_usage(bytes(found.usage))
        if bytes(found.timings).startswith(b"{"):
            try:
                self.timings = _timings(found.timings)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass
        return bytes(found.choices) == b"[]" and bytes(found.usage).startswith(b"{")

    def take_usage(self, text: bytes) -> None:
        """Add a usage object; anything else, and one with an impossible count, is none."""
        if not text.startswith(b"{"):
            return
        try:
            new = _usage(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if self.usage is None:
            self.usage = new
            return
        for name in _FIELDS:
            if (value := getattr(new, name)) is not None:
                setattr(self.usage, name, value)

    def count(self, document: bytes) -> None:
        """Count the pieces of text in one event of a stream."""
        try:
            event = _piece(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if event.type.endswith(("_delta", ".delta")):  # Anthropic's content_block_delta, OpenAI's responses
            self.pieces += event.type != "message_delta"
        for choice in event.choices:
            delta = choice.delta
            if choice.text or (
                delta and (delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls)
            ):
                self.pieces += 1

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
    parts = _parts(usage, before or _Details(), after or _Details())
    given = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    tokens_in = tokens_out = None
    if usage.prompt_tokens is not None:
        tokens_in = _whole(usage.prompt_tokens)
    elif usage.input_tokens is not None:
        beside = _whole(usage.cache_read_input_tokens) + _whole(usage.cache_creation_input_tokens)
        tokens_in = _whole(usage.input_tokens) + beside
    if given is not None:
        tokens_out = _whole(given)
    if usage.total_tokens is not None:
        total = _whole(usage.total_tokens)
        if tokens_in is None and tokens_out is None:  # rerankers
            tokens_in = total
        elif tokens_in is not None and tokens_out is not None:
            tokens_out = max(tokens_out, total - tokens_in)
    return Counts(tokens_in=tokens_in, tokens_out=tokens_out, parts=NO_PARTS if parts == NO_PARTS else parts)


def _parts(usage: _Usage, before: _Details, after: _Details) -> TokenParts:
    cached = before.cached_tokens_details or _Details()
    read = before.cached_tokens or usage.cache_read_input_tokens or usage.prompt_cache_hit_tokens
    return TokenParts(
        cache_read=_whole(read),
        cache_write=_whole(usage.cache_creation_input_tokens or before.cache_write_tokens),
        audio_in=max(_whole(before.audio_tokens) - _whole(cached.audio_tokens), 0),
        image_in=max(_whole(before.image_tokens) - _whole(cached.image_tokens), 0),
        audio_out=_whole(after.audio_tokens),
        reasoning=_whole(after.reasoning_tokens),
    )
