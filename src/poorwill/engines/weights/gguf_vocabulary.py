"""A small byte-level BPE vocabulary, learned from a page of text in a few hundredths of a second.

Byte-level BPE as GPT-2 defined it (openai/gpt-2, src/encoder.py: `bytes_to_unicode`): every byte is a
printable character, so any text can be encoded. It owns no file and knows nothing of GGUF.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

SPECIALS = ("<unk>", "<s>", "</s>")
"""Ids 0, 1 and 2: unknown, begin of text, end of text."""

_TEXT = """
The common poorwill is a small bird of dry, open country. When nights are cold and insects are few, it does
something no other bird is known to do: it lets its body cool, slows its breath, and sleeps for weeks. The
people who lived there long before us called it the sleeping one. A warm morning wakes it. It needs some
minutes to warm up, and then it flies as if nothing had happened.

A language model that nobody asks anything is like that bird in winter. It holds memory that costs money for
every second, and gives nothing back. So it should sleep. What it knows can be written to disk, and what it
was doing can be written there too. When the next question comes, the question waits for a moment, the model
is read back, and the answer is the same as it would have been. The one who asked should know how long the
wait will be, and the one who pays should know what the sleep has saved.

You are a helpful assistant. How can I help you today? Please write a short story about the sea. What is the
capital of France? Explain this function and find the error in it. Here is a list of things to do: first,
read the file; second, count the lines; third, return the result. Yes, of course. No, that is not possible.
Thank you very much for your question. This is the answer, and these are the reasons for it.
user: system: assistant: error: warning: import return class def self None True False for while with from
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Tokens in the order of their ids, and merges in the order of their rank."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    def printable(self) -> list[int]:
        """Return the ids of tokens whose bytes are printable ASCII, space or newline."""
        letters = {char for byte, char in byte_letters().items() if 32 <= byte < 127 or byte == 10}
        return [i for i, token in enumerate(self.tokens) if i >= len(SPECIALS) and set(token) <= letters]


def byte_letters() -> dict[int, str]:
    """Return the printable character that stands for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    for extra, byte in enumerate(byte for byte in range(256) if byte not in letters):
        letters[byte] = chr(256 + extra)
    return letters


def learn_vocabulary(merges: int) -> Vocabulary:
    """Learn at most `merges` merges from the text above: the most frequent pair first, ties by order."""
    letters = byte_letters()
    words = Counter(
        tuple(letters[byte] for byte in word.encode()) for word in _words(_TEXT.replace("\n", " "))
    )
    learned: list[tuple[str, str]] = []
    while len(learned) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        learned.append(best)
        words = Counter(_counted(words, best))
    tokens = [*SPECIALS, *(letters[byte] for byte in range(256))]
    known = set(tokens)
    for left, right in learned:
        if left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
    return Vocabulary(tokens=tuple(tokens), merges=tuple(learned))


def _words(text: str) -> Iterable[str]:
    return (f" {word}" for word in text.split())


def _counted(words: Counter[tuple[str, ...]], pair: tuple[str, str]) -> dict[tuple[str, ...], int]:
    merged: dict[tuple[str, ...], int] = {}
    for word, count in words.items():
        joined = _joined(word, pair)
        merged[joined] = merged.get(joined, 0) + count
    return merged


def _joined(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    parts: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            parts.append(word[at] + word[at + 1])
            at += 2
        else:
            parts.append(word[at])
            at += 1
    return tuple(parts)
