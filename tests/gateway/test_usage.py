"""Token counts are read from `usage` alone, wherever the bytes are cut."""

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.gateway.upstream.usage import UsageScan

from .toy_upstream import completion, delta


def scan(*pieces: bytes) -> tuple[int | None, int | None]:
    usage = UsageScan()
    for piece in pieces:
        usage.feed(piece)
    return usage.tokens_in, usage.tokens_out


def events(*documents: object) -> bytes:
    return b"".join(b"data: " + json.dumps(d).encode() + b"\n\n" for d in documents)


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
DETAILED = USAGE | {
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": None,
}
STREAM = events(delta("m", "usage"), delta("m", "x", usage=None), delta("m", "", usage=DETAILED))

BODIES = {
    "chat": json.dumps(completion("m")).encode(),
    "details inside": json.dumps(completion("m") | {"usage": DETAILED}).encode(),
    "compact": json.dumps(completion("m"), separators=(",", ":")).encode(),
    "indented": json.dumps(completion("m"), indent=2).encode(),
    "usage first": json.dumps({"usage": USAGE} | completion("m")).encode(),
    "stream": STREAM,
    "stream with done": STREAM + b"data: [DONE]\n\n",
}


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_counts_survive_any_split(name: str, data: st.DataObject) -> None:
    body = BODIES[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    edges = [0, *cuts, len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert scan(*pieces) == (7, 3)


@pytest.mark.parametrize("name", BODIES)
def test_counts_survive_a_cut_in_two(name: str) -> None:
    body = BODIES[name]
    for at in range(1, len(body)):
        assert scan(body[:at], body[at:]) == (7, 3), at


@pytest.mark.parametrize("name", BODIES)
def test_counts_are_found_byte_by_byte(name: str) -> None:
    body = BODIES[name]
    assert scan(*(body[i : i + 1] for i in range(len(body)))) == (7, 3)


@pytest.mark.parametrize(
    "body",
    [
        events(delta("m", "a"), delta("m", '{"usage": {"prompt_tokens": 1}}')),
        b'{"content": "usage"}',
        b'{"content": "\\"usage\\": {\\"prompt_tokens\\": 5}"}',
        b'{"usage": null}',
        b'{"usage": "free"}',
        b'{"usage": {"prompt_tokens": "many"}}',
        b'{"usage": {"prompt_tokens": -7, "completion_tokens": 3}}',
        b'{"usage": {"prompt_tokens": 92233720368547758070, "completion_tokens": 3}}',
        b'{"tools": [{"properties": {"usage": {"type": "string"}}}]}',
        b'{"usage": {"prompt_tokens": 5',
        b"",
    ],
)
def test_nothing_else_is_taken_for_a_count(body: bytes) -> None:
    assert scan(body) == (None, None)


def test_the_last_count_wins() -> None:
    body = events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "message_delta", "usage": {"output_tokens": 4}},
    )
    assert scan(body) == (9, 4)


def test_embeddings_have_no_tokens_out() -> None:
    assert scan(b'{"usage": {"prompt_tokens": 4, "total_tokens": 4}}') == (4, None)


def test_an_endless_usage_is_dropped() -> None:
    usage = UsageScan()
    tracemalloc.start()
    usage.feed(b'{"usage": {"a": ')
    for _ in range(1000):
        usage.feed(b"1" * 100)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 50_000
