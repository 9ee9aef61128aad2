"""Tokens by class.

Dialects differ: OpenAI counts cached tokens within `prompt_tokens`, Anthropic beside `input_tokens`. Here a
request has `tokens_in` and `tokens_out`, which contain everything, and `TokenParts` says how many of them are
special.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenParts:
    """The tokens of a request that may have a price of their own."""

    cache_read: int = 0
    """Of `tokens_in`: read from the provider's prompt cache."""
    cache_write: int = 0
    """Of `tokens_in`: written to the provider's prompt cache, for as short a time as it offers."""
    audio_in: int = 0
    image_in: int = 0
    audio_out: int = 0
    reasoning: int = 0
    """Of `tokens_out`: hidden reasoning, priced as any other output."""
    cache_write_1h: int = 0
    """Of `tokens_in`, beside `cache_write`: written to the cache for an hour, for a higher price."""


NO_PARTS = TokenParts()
TOKEN_PARTS: tuple[str, ...] = tuple(part.name for part in fields(TokenParts))
"""The names of the parts: of the ledger's columns and of a price list's entries alike."""
