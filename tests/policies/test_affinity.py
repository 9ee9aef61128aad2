"""A conversation is known by its beginning, whatever comes after, in every kind of body."""

import json

import pytest

from poorwill.core.words import ModelName, ReplicaId
from poorwill.policies.requests.affinity import Conversations, conversation

M = ModelName("m")
SYSTEM, FIRST, SECOND = "You are terse. " * 300, 'Say "}" and the word "user".', "And now?"


def said(role: str, text: object) -> dict[str, object]:
    return {"role": role, "content": text}


def chat(*turns: str) -> dict[str, object]:
    roles = ["user", "assistant"] * len(turns)
    return {"model": "m", "messages": [said("system", SYSTEM), *map(said, roles, turns)], "stream": True}


def parts(*turns: str) -> dict[str, object]:
    texts = [[{"type": "text", "text": turn}] for turn in turns]
    return {"system": SYSTEM, "messages": [*map(said, ["user", "assistant"] * len(turns), texts)]}


def responses(*turns: str) -> dict[str, object]:
    return {"tools": ["x" * 5_000], "input": [*map(said, ["user", "assistant"] * len(turns), turns)]}


def content_first(*turns: str) -> dict[str, object]:
    roles = ["user", "assistant"] * len(turns)
    return {"messages": [{"content": t, "role": r} for r, t in zip(roles, turns, strict=False)]}


def completion(*turns: str) -> dict[str, object]:
    return {"prompt": SYSTEM[:600] + turns[0] + SYSTEM + "".join(turns[1:]), "max_tokens": 9}


@pytest.mark.parametrize("body", [chat, parts, responses, content_first, completion])
def test_later_turns_are_recognised(body) -> None:
    def known(*turns: str) -> int:
        return conversation(M, json.dumps(body(*turns)).encode())

    first = known(FIRST)
    assert first == known(FIRST, "}", SECOND) == known(FIRST, "}", SECOND, "no", "why") != 0
    assert first != known("Something else", "}", SECOND)
    assert first != conversation(ModelName("n"), json.dumps(body(FIRST)).encode())


@pytest.mark.parametrize("body", [b"", b"{}", b'{"model":"m","texts":["a"]}', b"--b\r\n\r\nmodel\r\n--b--"])
def test_no_conversation(body: bytes) -> None:
    assert conversation(M, body) == 0


def test_what_is_unheard_of_longest_is_forgotten() -> None:
    kept = Conversations(most=3)
    for known in (1, 2, 3, 1, 4):
        kept.served(known, ReplicaId(f"m-{known}"))
    assert [kept.last(known) for known in range(6)] == [None, "m-1", None, "m-3", "m-4", None]
