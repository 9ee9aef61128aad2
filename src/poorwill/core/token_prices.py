"""What tokens cost: each class at a price of its own, and unknown is never zero."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from poorwill.core.money import rounded
from poorwill.core.tokens import NO_PARTS, TokenParts

MTOK = 1_000_000

DEAREST: Mapping[str, int] = MappingProxyType(
    {
        **{"cache_read": 1, "cache_write": 2, "cache_write_1h": 2},
        **{"audio_in": 20, "image_in": 20, "audio_out": 20},
    }
)
"""A part without a price counts against spend limits as so many times plain input or output, the most that
any provider on the public list asked in November 2026, rounded up. (`reasoning` is plain output.)"""

_OUT = frozenset({"audio_out"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCost:
    """What a request cost, in nano-dollars."""

    nusd: int
    """What is known of it, rounded once, half up."""
    unknown_nusd: int = 0
    """The most that its parts without a price may have cost beyond that; 0 if every part has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrices:
    """Nano-dollars per million tokens at one instant, for a request of one size."""

    input: int
    output: int
    parts: Mapping[str, int] = field(default_factory=dict)
    """Of those parts that have a price of their own."""

    def cost(self, tokens_in: int, tokens_out: int, parts: TokenParts = NO_PARTS) -> TokenCost:
        """Return what so many tokens cost."""
        plain_in, plain_out, known, unknown = tokens_in, tokens_out, 0, 0
        for name, factor in DEAREST.items():
            count: int = getattr(parts, name)
            if name in _OUT:
                plain_out -= count
            else:
                plain_in -= count
            if name in self.parts:
                known += self.parts[name] * count
            else:
                unknown += (self.output if name in _OUT else self.input) * factor * count
        known += self.input * max(plain_in, 0) + self.output * max(plain_out, 0)
        return TokenCost(nusd=rounded(known, MTOK), unknown_nusd=-(-unknown // MTOK))

    def most(self, tokens_in: int, tokens_out: int) -> int:
        """Return the most that so many plain or cached tokens may cost, in nano-dollars."""
        cached = (self.parts.get(name, self.input * DEAREST[name]) for name in DEAREST if "cache" in name)
        return -(-(max(self.input, *cached) * tokens_in + self.output * tokens_out) // MTOK)
