"""Inputs made from a corpus: bytes changed, cut, doubled, spliced; words of the format where it hurts."""

import random
import re
from collections.abc import Sequence

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_NUMBERS = (
    *(b"0", b"-1", b"1e999", b"-0", b"9223372036854775808", b"18446744073709551616", b"1" * 400, b"0x10"),
    *(b"1e-400", b"NaN", b"Infinity", b"1_000", b"1.7976931348623157e308", b"4294967296", b"00"),
)
_BYTES = (
    b"\x00",
    b"\xff",
    b"\r",
    b"\n",
    b"\r\n",
    b"\x1b[0m",
    b'"',
    b"\\",
    b"{",
    b"[",
    b"]",
    b"}",
    b",",
    b"=",
    b"\xef\xbb\xbf",
)
_INTEGERS = tuple(
    value.to_bytes(8, "little")[:size]
    for value in (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**24, 2**16)
    for size in (4, 8)
)
MOST_BYTES = 64 * 1024


def mutated(chance: random.Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return an input: one of the corpus, changed in one to six ways."""
    data = chance.choice(corpus)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        data = _once(chance, data, corpus, words)[:MOST_BYTES]
    return data


def _once(chance: random.Random, data: bytes, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    to = min(len(data), at + chance.choice((1, 2, 4, 16, 64, 4096)))
    kind = chance.randrange(10)
    if kind == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[to:]
    if kind == 2:
        return data[:to] + data[at:to] * chance.choice((1, 1, 2, 50)) + data[to:]
    if kind == 3:
        other = chance.choice(corpus)
        begin = chance.randrange(len(other) + 1)
        return data[:at] + other[begin : begin + chance.choice((4, 32, 4096))] + data[to:]
    if kind == 4:
        return data[:at]
    if kind == 5 and (found := list(_NUMBER.finditer(data))):
        one = chance.choice(found)
        return data[: one.start()] + chance.choice(_NUMBERS) + data[one.end() :]
    if kind == 6 and (lines := data.splitlines(keepends=True)):
        first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[first], lines[second] = lines[second], lines[first]
        return b"".join(lines)
    if kind == 7:
        return data[:at] + chance.choice(_INTEGERS) + data[at + 8 :]
    word = chance.choice(words) if words and kind == 8 else chance.choice(_BYTES)
    return data[:at] + word + (data[at:] if chance.random() < 0.5 else data[to:])
