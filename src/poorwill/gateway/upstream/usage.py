"""Token counts as the engine reported them, found in the bytes as they pass.

A search for the key comes before any parsing, so that a chunk without `usage` costs one `find`. Counts
come from a `usage` object alone; if an engine sends none they stay unknown and are never guessed.
"""

import re
from typing import Annotated

import msgspec

from poorwill.core.tokens import NO_PARTS

_KEY = b'"usage"'
_OBJECT = re.compile(rb"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})")
"""A JSON object with at most one level of objects inside, as usage objects are."""
_UNFINISHED = re.compile(rb"\s*(?::\s*(?:\{.*)?)?\Z", re.DOTALL)
_CARRY_MAX = 4096
_CUT = tuple(_KEY[:end] for end in range(1, len(_KEY)))
"""The ways a piece can end in the middle of the key."""


_Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None
"""A larger value is no count: priced, it would trip a spend limit or overflow the ledger's columns."""


class _Counts(msgspec.Struct):
    prompt_tokens: _Tokens = None  # OpenAI chat, completions, embeddings
    completion_tokens: _Tokens = None
    input_tokens: _Tokens = None  # OpenAI responses, Anthropic messages
    output_tokens: _Tokens = None


_decoder = msgspec.json.Decoder(_Counts)


class UsageScan:
    """Reads one response body piece by piece; later counts replace earlier ones, field by field.

    Anthropic's streams report the input at the start and the output at the end; vLLM may report
    running totals with every chunk. In both, the last value is right.
    """

    __slots__ = ("_carry", "parts", "tokens_in", "tokens_out")

    def __init__(self) -> None:
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.parts = NO_PARTS
        self._carry = b""

    def feed(self, data: bytes) -> None:
        """Scan the next piece of the body, however it was split."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        at = data.find(_KEY)
        while at >= 0:
            at += len(_KEY)
            found = _OBJECT.match(data, at)
            if found:
                self._count(found[1])
            elif len(data) - at < _CARRY_MAX and _UNFINISHED.match(data, at):
                self._carry = data[at - len(_KEY) :]
                return
            at = data.find(_KEY, at)
        if data.endswith(_CUT):
            self._carry = data[1 - len(_KEY) :]

    def _count(self, text: bytes) -> None:
        try:
            counts = _decoder.decode(text)
        except msgspec.MsgspecError:
            return
        tokens_in = counts.prompt_tokens if counts.input_tokens is None else counts.input_tokens
        tokens_out = counts.completion_tokens if counts.output_tokens is None else counts.output_tokens
        if tokens_in is not None:
            self.tokens_in = tokens_in
        if tokens_out is not None:
            self.tokens_out = tokens_out
