"""Which replica served a conversation last: its KV cache has the prefix of what comes next.

A conversation is known by its beginning, up to the first words of the user: every later request repeats that.
It is found by looking for a few bytes; no body is parsed, and of a large one next to nothing is read.
"""

from collections import OrderedDict

from poorwill.core.words import ModelName, ReplicaId

REMEMBERED_CONVERSATIONS = 8_192
"""Conversations that are remembered, over all models: some 2 MB."""
_BEGINNINGS = (b'"messages"', b'"input"', b'"prompt"')
"""Of chats and messages, of responses, of completions. Within a text the quotes would have backslashes."""
_FAR_BYTES = 2**18
"""How far into a body they are looked for: the definitions of tools may come first."""
_NEAR_BYTES = 1_024
"""How much is compared on either side of where the user begins to speak."""
_SAID = b'"}'
"""The end of a message, or of its first part, whichever comes first."""


def conversation(model: ModelName, body: bytes) -> int:
    """Return a number for the conversation that a request goes on with, 0 if it is none.

    A text without messages is known by its first KiB: a shorter one can have no prefix worth keeping.
    """
    for beginning in _BEGINNINGS:
        begin = body.find(beginning, 0, _FAR_BYTES)
        if begin >= 0:
            break
    else:
        return 0
    user = body.find(b'"user"', begin, _FAR_BYTES)
    if user < 0:
        return hash((model, body[begin : begin + _NEAR_BYTES]))
    end = body.find(_SAID, user, user + _NEAR_BYTES)
    return hash((model, body[max(begin, user - _NEAR_BYTES) : end if end >= 0 else user + _NEAR_BYTES]))


class Conversations:
    """Who served the last conversations. Not thread-safe; never awaits."""

    __slots__ = ("_last", "_most")

    def __init__(self, most: int = REMEMBERED_CONVERSATIONS) -> None:
        self._last = OrderedDict[int, ReplicaId]()
        self._most = most

    def last(self, known: int) -> ReplicaId | None:
        """Return who served this conversation last, None if that is not known any more."""
        return self._last.get(known)

    def served(self, known: int, replica: ReplicaId) -> None:
        """Remember who serves this conversation now; the one unheard of for longest may be forgotten."""
        self._last[known] = replica
        self._last.move_to_end(known)
        if len(self._last) > self._most:
            self._last.popitem(last=False)
